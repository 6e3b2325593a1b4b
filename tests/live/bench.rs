//! `memstock bench`: measures beside nobody, says what it found in three forms, and leaves nothing, told to end
//! in the middle as well. What it finds depends on the host, and is not judged.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, poll_until};
use memstock_tests::process::{Process, memstock};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, TestCgroup, cgroup, kernel_cgroup};
use rustix::process::Signal;
use serde_json::Value;

const SHORT: [&str; 6] = ["bench", "table1", "--rounds", "1", "--slice", "5"];

#[test]
fn the_table_has_each_row_in_each_form() -> Result<()> {
    live(|| {
        let picture = tempfile::NamedTempFile::new()?;
        let svg = picture.path().to_str().context("a path that is text")?;
        let finished = memstock(SHORT.iter().chain(&["--json", "--svg", svg]))?.finish(6 * SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        let table: Value = serde_json::from_str(&finished.stdout)?;
        let blocks = table["blocks"].as_array().context("no blocks")?;
        ensure!(blocks.len() == 1, "all CPUs, and nothing else unless asked: {}", blocks.len());
        let rows = blocks[0]["rows"].as_array().context("no rows")?;
        let named = |name: &str, depth: Option<u64>| {
            rows.iter().find(|row| row["name"] == name && row["depth"].as_u64() == depth)
        };
        let mut expected = vec![("nothing, again", None), ("empty programs", None)];
        for depth in [Some(1), Some(4)] {
            expected.extend([
                ("shared counter on every page", depth),
                ("+ coalesced uncharge", depth),
                ("+ stock (batch 32)", depth),
                ("batch 8", depth),
                ("batch 256", depth),
            ]);
        }
        if cgroup::mount_v1_memory()?.is_some() {
            expected
                .extend([("the kernel's own (v1)", Some(1)), ("the kernel's own (v1)", Some(4))]);
        } else {
            skip(&name(), &format!("rows of the kernel's own: {}", kernel_cgroup::ABSENT));
        }
        let drawn = fs::read_to_string(picture.path())?;
        ensure!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"), "{drawn:.80}");
        for (name, depth) in expected {
            let row = named(name, depth).with_context(|| format!("no row {name} {depth:?}"))?;
            let ratio = row["ratio"]["median"].as_f64().context("no ratio")?;
            ensure!(ratio > 0.0 && row["slices"] == 1, "{row}");
            // An apostrophe is written otherwise there.
            let plain = name.split('\'').next().unwrap_or(name);
            ensure!(drawn.contains(plain), "{name} is not in the picture");
        }
        Ok(())
    })
}

/// A bench that goes on for long, and its cgroup, with its workers in it.
fn measuring() -> Result<(Process, PathBuf)> {
    let bench = memstock(["bench", "table1", "--rounds", "10000"])?.start()?;
    let top = cgroup::mount()?.join(cgroup::OF_BENCH);
    poll_until(3 * SOON, "the tasks of the bench", || {
        let tasks = fs::read_to_string(top.join("cgroup.procs")).unwrap_or_default();
        (!tasks.is_empty()).then_some(())
    })?;
    Ok((bench, top))
}

#[test]
fn told_to_end_it_leaves_nothing() -> Result<()> {
    live(|| {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let (mut bench, top) = measuring()?;
            bench.signal(signal)?;
            let finished = bench.wait(SOON)?;
            ensure!(finished.code() == code, "{finished:?}");
            ensure!(finished.stdout.is_empty() && finished.stderr.is_empty(), "{finished:?}");
            // The frame looks for pins, cgroups and files.
            ensure!(!top.exists(), "its cgroup is there");
        }
        Ok(())
    })
}

/// Killed, it cannot clear up: the next one does.
#[test]
fn a_bench_that_was_killed_is_cleared_up_after() -> Result<()> {
    live(|| {
        let (mut bench, top) = measuring()?;
        bench.signal(Signal::KILL)?;
        bench.wait(SOON)?;
        // The kernel kills its workers.
        poll_until(SOON, "the end of its tasks", || {
            let tasks = fs::read_to_string(top.join("cgroup.procs")).unwrap_or_default();
            tasks.is_empty().then_some(())
        })?;
        let again = memstock(SHORT)?.finish(6 * SOON)?;
        ensure!(again.code() == 0, "{again:?}");
        Ok(())
    })
}

#[test]
fn it_measures_beside_no_engine() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
        let refused = memstock(SHORT)?.finish(SOON)?;
        ensure!(refused.code() == 123 && refused.stderr.lines().count() == 1, "{refused:?}");
        // Nor beside one whose daemon is dead: it charges.
        engine.kill()?;
        let refused = memstock(SHORT)?.finish(SOON)?;
        ensure!(refused.code() == 123 && refused.stderr.contains("memstock stop"), "{refused:?}");
        Ok(())
    })
}

/// What suits this host is at least the default, and is what the engine has.
#[test]
fn a_batch_can_be_left_to_memstock() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path(), "--batch", "auto"])?;
        let batch = engine.show()?.batch;
        ensure!(batch >= 32 && batch.is_power_of_two() && batch <= 1024, "{batch}");
        let forecast = memstock(["bench", "scaling"])?.finish(SOON)?;
        ensure!(forecast.code() == 0 && forecast.stdout.contains("auto"), "{forecast:?}");
        engine.stop().map(drop)
    })
}
