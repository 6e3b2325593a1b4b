//! Memory pressure beside usage: the metrics and `top` have the kernel's own figures.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use memstock_tests::exposition::Exposition;
use memstock_tests::kernel_cgroup::{ABSENT, KILLS_FOR_DIRTY_PAGES, kills_for_dirty_pages};
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, KernelCgroup, TestCgroup};

/// The kernel's own limit, in pages: reclaim at it is what tasks wait for.
const LIMIT: u64 = 2048;

/// Seconds in which tasks of the cgroup waited, by `memory.pressure`; none if the kernel does not account them.
fn waited(cgroup: &TestCgroup) -> Option<f64> {
    let text = fs::read_to_string(cgroup.dir().join("memory.pressure")).ok()?;
    let total = text.lines().next()?.split("total=").nth(1)?.parse::<u32>().ok()?;
    Some(f64::from(total) / 1e6)
}

#[test]
fn pressure_is_what_the_kernel_says() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        if waited(&cgroup).is_none() {
            skip(&name(), "the kernel accounts no memory pressure");
            return Ok(());
        }
        let Some(kernel) = KernelCgroup::beside(&cgroup)? else {
            skip(&name(), ABSENT);
            return Ok(());
        };
        let engine = Engine::start(["--cgroup", cgroup.path(), "--metrics", "0"])?;
        let at = engine.metrics()?;
        kernel.limit(Some(LIMIT))?;
        let pages = 4 * LIMIT as u32;
        let mut holder =
            Holder::of(Mode::FileWrite).pages(pages).cgroup(&cgroup).kernel(&kernel).start()?;
        if let Err(error) = holder.get() {
            ensure!(kills_for_dirty_pages(), "{error:#}");
            skip(&name(), KILLS_FOR_DIRTY_PAGES);
            return engine.stop().map(drop);
        }
        let before = try_poll_until(SOON, "a task to wait for memory", || {
            Ok(waited(&cgroup).filter(|&seconds| seconds > 0.0))
        })?;
        let found = Exposition::get(at)?;
        let after = waited(&cgroup).context("no pressure any more")?;
        let of = |what: &str| {
            let family = format!("memstock_cgroup_memory_pressure_{what}_seconds_total");
            found.value(&format!("{family}{{cgroup=\"{}\"}}", cgroup.path()))
        };
        let (waiting, stalled) = (of("waiting")?, of("stalled")?);
        ensure!((before..=after).contains(&waiting), "{waiting}, not {before} to {after}");
        ensure!(stalled <= waiting, "{stalled} of {waiting}");
        let top = memstock(["top", "--batch-mode", "--iterations", "1"])?.finish(SOON)?;
        ensure!(top.stdout.contains("PSI%"), "{top:?}");
        drop(holder);
        engine.stop().map(drop)
    })
}
