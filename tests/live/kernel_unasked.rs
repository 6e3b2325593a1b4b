//! `memstock kernel`, and a daemon with the option, read the kernel's own stock. Otherwise nothing is loaded for it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use memstock::engine::kernel_slots::KernelSlots;
use memstock_tests::exposition::Exposition;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::{Engine, KernelCgroup, PAGE, Task, TestCgroup, live};
use rustix::process::Signal;

use crate::in_kernel::in_kernel;

/// The program's name in the kernel.
const PROGRAM: &str = "kernel_slots";

/// Daemons of one engine: with the option there is one more program and no link; without it, no more program, map or
/// link than before.
#[test]
fn metrics_have_it_by_option() -> Result<()> {
    const FIGURE: &str = "memstock_cgroup_kernel_stranded_bytes";
    live(|| {
        let cgroup = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::pair_of(&cgroup)? else {
            skip(&name(), ABSENT);
            return Ok(());
        };
        let mut task = Task::start_outside(Some(0))?;
        fs::write(kernel.dir().join("cgroup.procs"), task.id().to_string())?;
        let mut engine = Engine::start(["--cgroup", cgroup.path(), "--metrics", "0"])?;
        let without = in_kernel()?;
        let found = Exposition::get(engine.metrics()?)?;
        ensure!(found.of(FIGURE).next().is_none(), "{}", found.text);
        engine.kill()?;
        let alone = memstock(["run", "--kernel-stock", "--cgroup", cgroup.path()])?.finish(SOON)?;
        ensure!(alone.code() == 2 && alone.stderr.contains("give --metrics"), "{alone:?}");
        engine.adopt(["--metrics", "0", "--kernel-stock"])?;
        let at = engine.metrics()?;
        let with = in_kernel()?;
        let more: Vec<_> = with.programs.difference(&without.programs).collect();
        ensure!(more.len() == 1 && more[0].ends_with(PROGRAM), "{more:?}");
        ensure!(with.links.is_subset(&without.links), "something is attached");
        let mut slots = KernelSlots::load(true)?;
        let series = format!("{FIGURE}{{cgroup=\"{}\"}}", cgroup.path());
        for nr_pages in [1, 20, 60] {
            task.touch(nr_pages)?;
            let (figure, seen) =
                try_poll_until(SOON, "a figure while the slots are still", || {
                    let before = slots.stranded()?;
                    let figure = Exposition::get(at)?.value(&series)?;
                    let after = slots.stranded()?;
                    let seen = after
                        .get(kernel.path().as_ref() as &Path)
                        .copied()
                        .context("no such path")?;
                    Ok((before == after).then_some((figure, seen)))
                })?;
            ensure!(figure == (seen * PAGE) as f64, "{figure} bytes, {seen} pages");
            eprintln!("{seen} pages in slots are {figure} bytes");
        }
        drop(slots);
        engine.kill()?;
        engine.adopt(["--metrics", "0"])?;
        poll_until(SOON, "nothing that was not there without", || {
            in_kernel().is_ok_and(|after| after.is_within(&without)).then_some(())
        })?;
        engine.stop().map(drop)
    })
}

#[test]
fn nothing_is_there_unasked() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let before = in_kernel()?;
        ensure!(!before.programs.iter().any(|program| program.contains("kernel_")), "{before:?}");
        let mut watch = memstock(["kernel", "--watch", "--delay", "0.1"])?.start()?;
        try_poll_until(SOON, "a second sample", || {
            Ok(watch.stdout()?.contains("changed hands").then_some(()))
        })?;
        let during = in_kernel()?;
        let more: Vec<_> = during.programs.difference(&before.programs).collect();
        ensure!(more.iter().any(|program| program.ends_with(PROGRAM)), "{more:?}");
        ensure!(before.programs.is_subset(&during.programs), "the engine's stay");
        // Without function tracing, nothing is attached even now.
        let has_functions = watch.stdout()?.contains("page_counter_try_charge");
        ensure!(has_functions == (during.links != before.links), "{during:?}");
        watch.signal(Signal::TERM)?;
        let ended = watch.wait(SOON)?;
        ensure!(ended.code() == 0 && ended.stderr.is_empty(), "{ended:?}");
        ensure!(memstock(["kernel"])?.finish(SOON)?.code() == 0);
        // The kernel frees unused objects after a grace period.
        poll_until(SOON, "the programs as they were before", || {
            in_kernel().is_ok_and(|after| after.is_within(&before)).then_some(())
        })?;
        engine.stop().map(drop)
    })
}
