//! SIGHUP reloads the configuration, and differences are applied or reported; without a configuration, it ends the run.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use memstock_tests::config::{ConfigFile, entry, limits};
use memstock_tests::engine::Event;
use memstock_tests::hog::HogBuilder;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::{Engine, PAGE, Task, TestCgroup, events, leftovers, live, lru};
use rustix::process::Signal;

/// Sends SIGHUP. Returns the events of the changes, and the final event.
fn reload(engine: &mut Engine) -> Result<(Vec<Event>, Event)> {
    let is_end = |event: &Event| ["config-reloaded", "config-refused"].contains(&&*event.kind);
    let before = engine.events()?.len();
    engine.process().signal(Signal::HUP)?;
    try_poll_until(SOON, "the events of a reload", || {
        ensure!(engine.process().ended()?.is_none(), "the daemon has ended");
        let mut events = engine.events()?.split_off(before);
        let Some(end) = events.iter().position(is_end) else { return Ok(None) };
        let sum = events.swap_remove(end);
        events.retain(|event| event.kind == "config-changed");
        Ok(Some((events, sum)))
    })
}

/// The fields that every change has.
fn parts(event: &Event) -> [&str; 5] {
    ["cgroup", "key", "from", "to", "outcome"].map(|key| event.field(key))
}

#[test]
fn a_file_is_read_again() -> Result<()> {
    live(|| {
        let (a, b) = (TestCgroup::new()?, TestCgroup::new()?);
        let (path_a, path_b) = (a.path(), b.path());
        let file = ConfigFile::new(entry(&a, "memory = '2M'"))?;
        let mut engine = file.start()?;

        let (changes, sum) = reload(&mut engine)?;
        ensure!(changes.is_empty() && sum.field("done") == "0", "{changes:?} {sum:?}");

        // One limit is changed, a cgroup and one below it are added, and one setting cannot be changed.
        let below = b.child("below")?;
        file.write(format!(
            "batch = 64\noom-group = true\n{}{}",
            entry(&a, "memory = '3M'"),
            entry(&b, "memory = '4M'"),
        ))?;
        let (changes, sum) = reload(&mut engine)?;
        let changes: Vec<_> = changes.iter().map(parts).collect();
        let expected = [
            ["", "batch", "32", "64", "needs-restart"],
            ["", "oom-group", "false", "true", "done"],
            [path_a, "memory", "2097152", "3145728", "done"],
            [path_b, "cgroup", "absent", "named", "done"],
        ];
        ensure!(changes == expected, "{changes:#?}");
        ensure!((sum.field("done"), sum.field("needs_restart")) == ("3", "1"), "{sum:?}");
        ensure!(limits(&engine, &a)?[0] == Some(3 << 20), "{:?}", limits(&engine, &a)?);
        ensure!(limits(&engine, &b)?[0] == Some(4 << 20), "{:?}", limits(&engine, &b)?);
        engine.show()?.cgroup(below.path())?;
        HogBuilder::pages(64).start(&below)?.has_all()?;
        ensure!(
            engine.show()?.cgroup(below.path())?.faults() > 0,
            "nothing is charged below the new one"
        );

        // A mistake in the file changes nothing.
        file.write(format!("batch = x\n{}", entry(&a, "memory = '1M'")))?;
        let (changes, sum) = reload(&mut engine)?;
        ensure!(changes.is_empty() && sum.kind == "config-refused", "{changes:?} {sum:?}");
        ensure!(sum.field("mistakes") == "1", "{sum:?}");
        let said = format!("memstock: {}:1:9: ", file.path());
        ensure!(engine.stderr()?.contains(&said), "no {said}");
        ensure!(limits(&engine, &a)?[0] == Some(3 << 20), "{:?}", limits(&engine, &a)?);

        // One cgroup is no longer named: it loses its limit, but stays. The batch is reported again, since it cannot
        // change.
        memstock(["limit", path_a, "--memory", "5M"])?.finish(SOON)?;
        file.write(format!("batch = 64\n{}", entry(&a, "memory = '3M'")))?;
        let (changes, _) = reload(&mut engine)?;
        let changes: Vec<_> = changes.iter().map(parts).collect();
        let expected = [
            ["", "batch", "32", "64", "needs-restart"],
            ["", "oom-group", "true", "false", "done"],
            [path_b, "cgroup", "named", "absent", "done"],
            [path_b, "memory", "4194304", "max", "done"],
            // It was changed meanwhile.
            [path_a, "memory", "5242880", "3145728", "done"],
        ];
        ensure!(changes == expected, "{changes:#?}");
        ensure!(limits(&engine, &b)?[0].is_none(), "{:?}", limits(&engine, &b)?);

        // The stream has all events.
        let kinds = ["config-changed", "config-reloaded", "config-refused"];
        let counts = kinds
            .map(|kind| events::read().map(|all| all.iter().filter(|r| r.kind() == kind).count()));
        let counts = counts.into_iter().collect::<Result<Vec<_>>>()?;
        ensure!(counts == [9, 3, 1], "{counts:?}");
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

#[test]
fn a_limit_below_the_usage_is_refused_and_tried_again() -> Result<()> {
    live(|| {
        // In the order in which changes are told: that of their paths, in which 10 comes before 9.
        let mut both = [TestCgroup::new()?, TestCgroup::new()?];
        both.sort_by(|one, other| one.path().cmp(other.path()));
        let [a, b] = both;
        let file = ConfigFile::new(entry(&a, "") + &entry(&b, ""))?;
        let mut engine = file.start()?;
        let mut hog = HogBuilder::pages(2048).start(&a)?;
        hog.has_all()?;
        // With swap, its memory would be paged out.
        let text = format!("memory = {}", 512 * PAGE);
        file.write(entry(&a, &text) + &entry(&b, &text))?;
        let may_page_out = fs::read_to_string("/proc/swaps")?.lines().count() > 1;
        let (changes, sum) = reload(&mut engine)?;
        let outcomes: Vec<_> =
            changes.iter().map(|it| (it.field("cgroup"), it.field("outcome"))).collect();
        let refused = if may_page_out { "done" } else { "refused" };
        ensure!(outcomes == [(a.path(), refused), (b.path(), "done")], "{changes:?}");
        if !may_page_out {
            ensure!(sum.field("refused") == "1" && sum.field("done") == "1", "{sum:?}");
            ensure!(limits(&engine, &a)?[0].is_none(), "{:?}", limits(&engine, &a)?);
            ensure!(engine.stderr()?.contains("is busy"), "no reason is given");
        }
        ensure!(hog.lives(), "the hog was killed");
        drop(hog);
        try_poll_until(SOON, "the hog's memory to come back", || {
            lru::drain()?;
            let usage = engine.show()?.cgroup(a.path())?.memory.usage;
            Ok((usage <= 512 * PAGE).then_some(()))
        })?;
        // Its memory is gone, so the refused change succeeds, and there is no other.
        let (changes, _) = reload(&mut engine)?;
        if !may_page_out {
            let changes: Vec<_> = changes.iter().map(parts).collect();
            ensure!(changes == [[a.path(), "memory", "max", "2097152", "done"]], "{changes:?}");
        }
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// A SIGHUP during a reload is not lost: the file may have changed since it was read. Meanwhile the pages of a new
/// cgroup, which are those of one below it, are adopted.
#[test]
fn a_reload_during_another_comes_after_it() -> Result<()> {
    const PAGES: u64 = 1000;
    live(|| {
        let (a, b) = (TestCgroup::new()?, TestCgroup::new()?);
        let below = b.child("below")?;
        let mut holder = Task::start(&below, None)?;
        holder.touch(PAGES)?;
        let file = ConfigFile::new(entry(&a, "memory = '2M'"))?;
        let mut engine = Engine::start_adopting(["--config", file.path()])?;
        file.write(entry(&a, "memory = '2M'") + &entry(&b, ""))?;
        engine.process().signal(Signal::HUP)?;
        // Its pages are adopted after that.
        try_poll_until(SOON, "the new cgroup", || {
            Ok((!engine.events_of("config-changed")?.is_empty()).then_some(()))
        })?;
        file.write(entry(&a, "memory = '3M'") + &entry(&b, ""))?;
        engine.process().signal(Signal::HUP)?;
        try_poll_until(SOON, "both reloads", || {
            Ok((engine.events_of("config-reloaded")?.len() == 2).then_some(()))
        })?;
        ensure!(limits(&engine, &a)?[0] == Some(3 << 20), "{:?}", limits(&engine, &a)?);
        // Not of the one below: where the kernel's controller is not enabled there, it charges the pages to this one.
        let used = engine.show()?.cgroup(b.path())?.used_pages();
        ensure!(used >= PAGES, "{used} pages are adopted");
        drop(holder);
        engine.stop().map(drop)
    })
}

#[test]
fn observing_ends_with_a_reload() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let limited = entry(&cgroup, "memory = '1M'");
        let file = ConfigFile::new(format!("observe = true\n{limited}"))?;
        let mut engine = file.start()?;
        let mut hog = HogBuilder::pages(512).start(&cgroup)?;
        hog.has_all()?;
        ensure!(hog.lives(), "it was only to be observed");
        drop(hog);
        let mut task = Task::start(&cgroup, None)?;
        task.touch(512)?;
        // Waits until reports are no longer withheld, then takes more than can be stocked, so that one comes after the
        // last page.
        sleep(Duration::from_millis(1500));
        let before = engine.events_of("would-enforce")?.len();
        task.touch(40)?;
        try_poll_until(SOON, "the last report", || {
            Ok((engine.events_of("would-enforce")?.len() > before).then_some(()))
        })?;
        file.write(&limited)?;
        let (changes, _) = reload(&mut engine)?;
        let changes: Vec<_> = changes.iter().map(parts).collect();
        ensure!(changes == [["", "observe", "true", "false", "done"]], "{changes:?}");
        // Though it takes no more, it is above the limit.
        engine.only_killed(&[task.id()])?;
        HogBuilder::pages(512).start(&cgroup)?.was_killed()?;
        engine.stop().map(drop)
    })
}

/// Starts a process that does not ignore SIGHUP, even if the tests inherited that from nohup.
fn heeding_hangups<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: no handler is installed.
    let before = unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
    let started = start();
    // SAFETY: restores the previous handler.
    unsafe { libc::signal(libc::SIGHUP, before) };
    started
}

#[test]
fn without_a_file_the_terminal_that_goes_ends_it() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut engine = heeding_hangups(|| Engine::start(["--cgroup", cgroup.path()]))?;
        engine.process().signal(Signal::HUP)?;
        let finished = engine.process().wait(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        leftovers::nothing_held()
    })
}
