//! A daemon may die at any moment: the kernel half goes on charging, the next daemon adopts it with every page, and in
//! the end nothing is left behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memstock::engine::pins::Pins;
use memstock_tests::cgroup::PREFIX;
use memstock_tests::load::{Frozen, Load};
use memstock_tests::orphan::{forget, stop};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::{Finished, Process, memstock};
use memstock_tests::random::Random;
use memstock_tests::show::Cgroup;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, Show, Task, TestCgroup, leftovers, live, scaled};
use rustix::process::Signal;

/// The pins of a complete engine.
fn pins() -> Pins {
    Pins::on(Path::new(leftovers::PINS))
}

fn all_figures(show: &Show) -> Vec<[u64; 12]> {
    show.cgroups.iter().map(Cgroup::figures).collect()
}

/// At rest, every counter of every cgroup is the same after the adoption as before the death. The next daemon finds
/// what changed meanwhile, and no page is ever missing or one too many.
#[test]
fn every_counter_survives() -> Result<()> {
    const PAGES: u64 = 300;
    live(|| {
        let top = TestCgroup::new()?;
        let [left, right, gone] = ["left", "right", "gone"].map(|name| top.child(name));
        let (left, right, gone) = (left?, right?, gone?);
        let mut task = Task::start(&left, Some(0))?;
        let mut holder = Holder::of(Mode::TmpfsWrite).cgroup(&right).start()?;
        let args = ["--cgroup", top.path(), "--limit", "1G", "--batch", "16"];
        let mut engine = Engine::start_adopting(args)?;
        task.touch(PAGES)?;
        holder.get()?;
        engine.used_at_rest(&top)?;
        let frozen = Frozen::freeze(&top)?;
        engine.audit_at_rest::<&str>(&[])?;
        let before = all_figures(&engine.show()?);
        // All but the cgroup that is removed.
        let in_use = before.iter().filter(|[_, _, usage, ..]| *usage > 0).count();
        ensure!(in_use == 3, "{before:?}");
        engine.kill()?;
        ensure!(all_figures(&engine.show()?) == before, "it goes on by itself");
        // With the cgroup named, with nothing named, and with the same settings.
        for args in [&args[..2], &[], &args] {
            engine.adopt(args)?;
            let after = all_figures(&engine.show()?);
            ensure!(after == before, "after the adoption:\n{after:?}, before it:\n{before:?}");
            engine.audit_at_rest::<&str>(&[])?;
            engine.kill()?;
        }
        drop(frozen);
        let used = engine.used_at_rest(&top)?;
        task.touch(PAGES)?;
        drop(gone);
        let made = top.child("made")?;
        let mut inside = Task::start(&made, Some(1))?;
        engine.adopt(["--no-adopt"])?;
        inside.touch(PAGES)?;
        let show = engine.show()?;
        let path = format!("{}/gone", top.path());
        ensure!(show.cgroup(&path).is_err(), "it is gone: {show:#?}");
        ensure!(show.cgroup(made.path())?.used_pages() >= PAGES, "it was not found: {show:#?}");
        ensure!(engine.used_at_rest(&top)? >= used + 2 * PAGES, "{used} pages before: {show:#?}");
        let _frozen = Frozen::freeze(&top)?;
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// The pages of a cgroup that the next daemon is the first to name are adopted, and no others.
#[test]
fn what_is_new_is_adopted_and_nothing_twice() -> Result<()> {
    live(|| {
        let (old, new) = (TestCgroup::new()?, TestCgroup::new()?);
        let mut held = Vec::new();
        for cgroup in [&old, &new] {
            let mut holder = Holder::of(Mode::AnonWrite).cgroup(cgroup).start()?;
            let pages = holder.get()?;
            held.push((holder, pages));
        }
        // The pages that the first cgroup holds stay uncharged.
        let mut engine = Engine::start(["--cgroup", old.path()])?;
        let _frozen = [Frozen::freeze(&old)?, Frozen::freeze(&new)?];
        let before = engine.show()?.cgroup(old.path())?.used_pages();
        ensure!(before < held[0].1, "it was not to be adopted: {before} pages");
        engine.kill()?;
        let limit = format!("{}=512M", new.path());
        engine.adopt(["--cgroup", old.path(), "--cgroup", new.path(), "--limit", &limit])?;
        let show = engine.show()?;
        ensure!(show.cgroup(old.path())?.used_pages() == before, "adopted twice: {show:#?}");
        ensure!(show.cgroup(new.path())?.used_pages() >= held[1].1, "not adopted: {show:#?}");
        ensure!(show.cgroup(new.path())?.memory.limit == Some(512 << 20), "{show:#?}");
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// The phase of a run in which it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Starting a new engine, or adopting one.
    Starting,
    /// Pinning a new engine.
    Pinning,
    /// Running.
    Running,
    /// Told to stop.
    Stopping,
}

impl Phase {
    /// Kills the run at a random moment of this phase; `adopts` says whether there was an engine before it.
    fn kill(self, run: &mut Process, adopts: bool, random: &mut Random) -> Result<Finished> {
        let longest = match self {
            Self::Starting => 300,
            Self::Pinning => {
                try_poll_until(SOON, "pins", || {
                    ensure!(run.ended()?.is_none(), "it ended: {}", run.stderr()?);
                    Ok((pins().unfinished().exist() || pins().exist()).then_some(()))
                })?;
                10
            }
            Self::Running => {
                at_work(run, adopts)?;
                50
            }
            Self::Stopping => {
                at_work(run, adopts)?;
                run.signal(Signal::TERM)?;
                40
            }
        };
        random.wait_up_to(Duration::from_millis(longest));
        killed(run)
    }
}

/// How often a killed run left a complete, an unfinished or no engine pinned.
#[derive(Clone, Copy, Default, Debug)]
struct Left {
    whole: u32,
    unfinished: u32,
    nothing: u32,
}

fn started(run: &mut Process) -> Result<()> {
    try_poll_until(SOON, "an engine", || {
        ensure!(run.ended()?.is_none(), "it ended: {}", run.stderr()?);
        Ok((pins().exist() && memstock(["show"])?.finish(SOON)?.code() == 0).then_some(()))
    })
}

fn at_work(run: &mut Process, adopts: bool) -> Result<()> {
    started(run)?;
    try_poll_until(SOON, "the adoption", || {
        ensure!(run.ended()?.is_none(), "it ended: {}", run.stderr()?);
        Ok((!adopts || run.stderr()?.contains("event: engine-adopted")).then_some(()))
    })
}

fn killed(run: &mut Process) -> Result<Finished> {
    run.signal(Signal::KILL)?;
    run.wait(SOON)
}

/// A run is killed at random moments of its start, its work and its end, under load, and the next one goes on with
/// what it left. An audit checks all pages now and then.
#[test]
#[ignore = "long"]
fn killed_at_any_moment() -> Result<()> {
    const POINTS: u32 = 100;
    const COUNT_EVERY: u32 = 10;
    live(|| {
        let mut random = Random::seeded()?;
        let top = TestCgroup::new()?;
        let [one, two] = [top.child("one")?, top.child("two")?];
        let mut load = Load::default();
        load.wander(&[&one, &two], None, 1)?;
        load.spawn(&two, None)?;
        load.hold(Mode::TmpfsWrite, 300, &one, None)?;
        // A cgroup that the run makes itself, and must remove.
        let new = format!("{PREFIX}survival-{}", std::process::id());
        let args = ["run", "--cgroup", top.path(), "--new", &new];
        let mut left = Left::default();
        let mut adopted = 0;
        let wanted = scaled(POINTS);
        for point in 0..wanted.max(POINTS) {
            // With fewer points, go on until each state was seen.
            let Left { whole, unfinished, nothing } = left;
            if point >= wanted && [whole, unfinished, nothing, adopted].iter().all(|&n| n > 0) {
                break;
            }
            let phase = match random.below(10) {
                0..4 => Phase::Starting,
                4..6 => Phase::Pinning,
                6..8 => Phase::Running,
                _ => Phase::Stopping,
            };
            // Every other start is without an engine.
            let is_new =
                phase == Phase::Pinning || phase == Phase::Starting && random.below(2) == 0;
            if is_new && !leftovers::pins_and_lock().is_empty() {
                stop()?;
            }
            let adopts = pins().exist();
            let mut run = memstock(args)?.start()?;
            let finished = phase.kill(&mut run, adopts, &mut random)?;
            let code = finished.code();
            ensure!(code == 137 || phase == Phase::Stopping, "{point}, {phase:?}: {finished:?}");
            adopted += u32::from(finished.stderr.contains("event: engine-adopted"));
            match (pins().exist(), pins().unfinished().exist()) {
                (true, false) => left.whole += 1,
                (false, true) => left.unfinished += 1,
                (false, false) => left.nothing += 1,
                (true, true) => anyhow::bail!("{point}, {phase:?}: two engines"),
            }
            load.check()?;
            if point % COUNT_EVERY == COUNT_EVERY - 1 && pins().exist() {
                let mut engine = Engine::start(["--cgroup", top.path()])?;
                let _frozen = Frozen::freeze(&top)?;
                engine.audit_at_rest::<&str>(&[]).with_context(|| format!("{point}, {phase:?}"))?;
                engine.show()?.check()?;
                engine.kill()?;
                engine.audit_at_rest::<&str>(&[])?;
                forget(engine);
            }
        }
        eprintln!("{left:?}, {adopted} runs adopted");
        ensure!(left.whole > 0 && left.unfinished > 0 && left.nothing > 0, "not at any moment");
        ensure!(adopted > 0, "none was adopted");
        let mut engine = Engine::start(["--cgroup", top.path(), "--new", &new])?;
        let frozen = Frozen::freeze(&top)?;
        engine.audit_at_rest::<&str>(&[])?;
        engine.kill()?;
        drop(frozen);
        load.end()?;
        drop(load);
        stop()?;
        drop([one, two]);
        drop(top);
        leftovers::none()
    })
}

/// If two start at once, exactly one runs, and the other says why; a hundred times.
#[test]
fn two_at_once_are_one() -> Result<()> {
    const TIMES: u32 = 100;
    live(|| {
        let cgroup = TestCgroup::new()?;
        let args = ["run", "--cgroup", cgroup.path()];
        let times = scaled(TIMES);
        for time in 0..times {
            let mut runs = [memstock(args)?.start()?, memstock(args)?.start()?];
            let loser = try_poll_until(SOON, "the end of one of them", || {
                let ended = [runs[0].ended()?.is_some(), runs[1].ended()?.is_some()];
                Ok(ended.iter().position(|&ended| ended))
            })?;
            let lost = runs[loser].wait(SOON)?;
            ensure!(lost.code() == 123 && lost.stderr.lines().count() == 1, "{time}: {lost:?}");
            let winner = &mut runs[1 - loser];
            let names_it = lost.stderr.contains(&format!("already running (pid {})", winner.id()));
            ensure!(names_it, "{time}: {lost:?}");
            started(winner)?;
            ensure!(winner.ended()?.is_none(), "{time}: neither runs: {}", winner.stderr()?);
            // Now and then they start without an engine; otherwise they adopt what the last one left. The last leaves
            // nothing.
            if time % 20 == 19 || time + 1 == times {
                winner.signal(Signal::TERM)?;
                ensure!(winner.wait(SOON)?.code() == 0, "{time}");
                let left = leftovers::pins_and_lock();
                ensure!(left.is_empty(), "{time}: left behind: {}", left.join(", "));
            } else {
                killed(winner)?;
            }
        }
        Ok(())
    })
}

/// The daemon locks its memory and lowers its OOM score, as far as it may; COMMAND inherits neither.
#[test]
fn the_daemon_is_protected_and_command_is_not() -> Result<()> {
    live(|| {
        let name = format!("{PREFIX}new-{}", std::process::id());
        let script = "cat /proc/self/oom_score_adj; grep VmLck /proc/self/status;
            cat /proc/$PPID/oom_score_adj; grep VmLck /proc/$PPID/status";
        let finished = memstock(["run", "--new", &name, "--", "sh", "-c", script])?.finish(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        let lines: Vec<_> = finished.stdout.lines().map(str::trim).collect();
        let [own, own_locked, daemons, daemons_locked] = lines[..] else {
            anyhow::bail!("{finished:?}");
        };
        let ours = fs::read_to_string("/proc/self/oom_score_adj")?;
        ensure!(own == ours.trim(), "COMMAND: {finished:?}");
        ensure!(own_locked.ends_with("\t       0 kB"), "COMMAND: {finished:?}");
        ensure!(!daemons_locked.ends_with("\t       0 kB"), "the daemon: {finished:?}");
        // The expected score depends on whether the test has the capability.
        let may = has_cap_sys_resource()?;
        let expected = if may { "-999" } else { ours.trim() };
        ensure!(daemons == expected, "the daemon: {finished:?}");
        Ok(())
    })
}

fn has_cap_sys_resource() -> Result<bool> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.context("CapEff")?.trim(), 16)?;
    Ok(effective >> CAP_SYS_RESOURCE & 1 == 1)
}
