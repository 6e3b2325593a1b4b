//! The event stream is the same for all readers, in order and complete, and ends with the engine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use memstock_tests::events::{self, Follower, Record};
use memstock_tests::hog::HogBuilder;
use memstock_tests::hotplug::{CpuOffline, can_go_offline};
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::{Engine, PAGE, Task, TestCgroup, binaries, leftovers, live};
use rustix::process::Signal;

/// Events that the ring buffer holds: 256 KiB, with 56 bytes and a header of 8 for each.
const RING_EVENTS: u32 = 256 * 1024 / 64;

/// The CPU that goes offline.
const CPU: u32 = 1;

/// The number of records of this kind for the cgroup `path`.
fn count(records: &[Record], kind: &str, path: &str) -> usize {
    let of = |record: &&Record| record.kind() == kind && record.path("cgroup") == path;
    records.iter().filter(of).count()
}

#[test]
fn all_readers_see_the_same_over_rotations() -> Result<()> {
    /// A wave is about 40 KiB: more than one file holds, less than both.
    const MAX_BYTES: u64 = 32 * 1024;
    const WAVES: usize = 6;
    const CGROUPS: usize = 100;
    live(|| {
        let parent = TestCgroup::new()?;
        let bytes = MAX_BYTES.to_string();
        let engine = Engine::start(["--cgroup", parent.path(), "--events-bytes", &bytes])?;
        let mut followers = [Follower::start()?, Follower::start()?];
        let mut rotations = 0;
        let mut current = 0;
        let mut late = Vec::new();
        for wave in 0..WAVES {
            for number in 0..CGROUPS {
                let dir = parent.dir().join(format!("{wave}-{number}"));
                fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
            }
            let last = format!("{}/{wave}-{}", parent.path(), CGROUPS - 1);
            followers[0].wait_for("the wave", |all| count(all, "cgroup-added", &last) == 1)?;
            for number in 0..CGROUPS {
                fs::remove_dir(parent.dir().join(format!("{wave}-{number}")))?;
            }
            for follower in &mut followers {
                follower.wait_for("the end of the wave", |all| {
                    let all = all.iter().filter(|record| record.kind() == "cgroup-removed");
                    all.count() == (wave + 1) * CGROUPS
                })?;
            }
            // Records of other kinds may still come; followers have all that are there now.
            late = events::read()?;
            for file in leftovers::EVENTS.iter().filter(|file| Path::new(file).exists()) {
                let file = fs::metadata(file)?;
                ensure!(file.len() <= MAX_BYTES && file.mode() & 0o777 == 0o600, "{file:?}");
                ensure!(file.uid() == 0, "{file:?}");
            }
            let inode = fs::metadata(leftovers::EVENTS[0])?.ino();
            rotations += u32::from(inode != current);
            current = inode;
        }
        ensure!(rotations > 3, "too few rotations: {rotations}");
        engine.stop()?;
        let [one, two] = followers.map(Follower::end);
        let (one, two) = (one?, two?);
        ensure!(one == two, "{} and {} records, not the same", one.len(), two.len());
        ensure!(one[0].seq() == 1, "from the first on: {:?}", one[0]);
        ensure!(one.last().is_some_and(|last| last.kind() == "ended"), "{:?}", one.last());
        ensure!(late.len() > CGROUPS && late[0].seq() > 1, "part of it is gone: {:?}", late[0]);
        let start = (late[0].seq() - 1) as usize;
        ensure!(one[start..].starts_with(&late), "the late reader saw something else");
        ensure!(
            one.iter()
                .all(|record| record.kind() != "lost" || record.text("counter") != "records_lost")
        );
        Ok(())
    })
}

#[test]
fn cgroups_come_and_go_in_order() -> Result<()> {
    live(|| {
        let parent = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", parent.path()])?;
        let mut follower = Follower::start()?;
        // Added by the start itself.
        follower.wait_for("the parent", |all| count(all, "cgroup-added", parent.path()) == 1)?;
        let name = "a \"b\" c=d";
        let child = parent.child(name)?;
        let path = child.path().to_owned();
        follower.wait_for("the child", |all| count(all, "cgroup-added", &path) == 1)?;
        // The text output also has one line per record, whatever the name is.
        let text = memstock(["events"])?.finish(SOON)?;
        let quoted = format!("cgroup=\"{}\"", path.replace('"', "\\x22"));
        ensure!(
            text.stdout
                .lines()
                .any(|line| { line.starts_with("event: cgroup-added ") && line.contains(&quoted) }),
            "{text:?}"
        );
        // Pages of an ended task keep the cgroup dying as long as they exist.
        let mut task = Task::start(&child, None)?;
        task.touch(100)?;
        drop(task);
        drop(child);
        follower.wait_for("its removal", |all| count(all, "cgroup-dying", &path) == 1)?;
        engine.drain::<&str>([])?;
        let mut all = try_poll_until(SOON, "its counter to be freed", || {
            engine.drain::<&str>([])?;
            memstock_tests::lru::drain()?;
            engine.heal()?;
            let all = follower.records()?;
            Ok((count(&all, "cgroup-removed", &path) == 1).then_some(all))
        })?;
        all.retain(|record| record.path("cgroup") == path);
        let kinds: Vec<_> = all.iter().map(Record::kind).collect();
        ensure!(kinds == ["cgroup-added", "cgroup-dying", "cgroup-removed"], "{kinds:?}");
        ensure!(all.is_sorted_by_key(Record::time_ns), "{all:?}");
        ensure!(all.iter().all(|record| record.text("time").ends_with('Z')), "{all:?}");
        engine.stop()?;
        follower.end().map(drop)
    })
}

#[test]
fn a_limit_is_told_with_the_ancestor_that_has_it() -> Result<()> {
    live(|| {
        let parent = TestCgroup::new()?;
        let child = parent.child("b")?;
        let limit = format!("{}={}", parent.path(), 64 * PAGE);
        let engine = Engine::start([
            "--observe",
            "--cgroup",
            parent.path(),
            "--cgroup",
            child.path(),
            "--limit",
            &limit,
        ])?;
        let mut follower = Follower::start()?;
        let mut task = Task::start(&child, None)?;
        let all = try_poll_until(SOON, "both warnings", || {
            task.touch(64)?;
            let all = follower.records()?;
            let both =
                ["limit-near", "limit-hit"].iter().all(|kind| count(&all, kind, child.path()) > 0);
            Ok(both.then_some(all))
        })?;
        let limits: Vec<_> =
            all.iter().filter(|record| record.kind().starts_with("limit")).collect();
        for record in &limits {
            ensure!(record.path("ancestor") == parent.path(), "{record:?}");
            ensure!(record.text("resource") == "memory", "{record:?}");
            ensure!(record.number("limit") == 64 * PAGE, "{record:?}");
            ensure!(record.number("nr_pages") > 0 && record.number("usage") > 0, "{record:?}");
        }
        // Standard error has the first lines of the stream's text.
        let stderr = engine.stderr()?;
        let text = memstock(["events"])?.finish(SOON)?.stdout;
        let lines = |text: &str, kind: &str| -> Vec<String> {
            let start = format!("event: {kind} ");
            text.lines().filter(|line| line.starts_with(&start)).map(str::to_owned).collect()
        };
        for kind in ["limit-near", "limit-hit"] {
            let (said, all) = (lines(&stderr, kind), lines(&text, kind));
            ensure!(!said.is_empty() && said[0] == all[0], "{text}\n{stderr}");
            ensure!(said.iter().all(|line| all.contains(line)), "{text}\n{stderr}");
        }
        drop(task);
        engine.stop()?;
        ensure!(follower.process().wait(SOON)?.code() == 0);
        Ok(())
    })
}

/// A stopped daemon, and more events than the ring buffer holds.
#[test]
fn a_full_ring_is_a_loss_with_a_number() -> Result<()> {
    live(|| {
        let parent = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", parent.path()])?;
        let mut follower = Follower::start()?;
        // From its first table on the loop runs; before that the daemon takes CPUs as it finds them, and reports none.
        try_poll_until(SOON, "a table", || Ok((!engine.stdout()?.is_empty()).then_some(())))?;
        engine.process().signal(Signal::STOP)?;
        let stat = format!("/proc/{}/stat", engine.process().id());
        try_poll_until(SOON, "the daemon to stand still", || {
            let stat = fs::read_to_string(&stat)?;
            Ok(stat
                .rsplit_once(") ")
                .is_some_and(|(_, state)| state.starts_with('T'))
                .then_some(()))
        })?;
        let made = (0..RING_EVENTS).try_for_each(|_| {
            let dir = parent.dir().join("comes-and-goes");
            fs::create_dir(&dir)?;
            fs::remove_dir(&dir)
        });
        let kept = fs::create_dir(parent.dir().join("unheard-of"));
        let offline = can_go_offline(CPU).then(|| CpuOffline::take(CPU)).transpose()?;
        engine.process().signal(Signal::CONT)?;
        made.and(kept).context("making cgroups")?;
        // Two events for each cgroup, and one: every event that does not fit is counted.
        let lost = u64::from(RING_EVENTS) + 1;
        let is_loss =
            |record: &&Record| record.kind() == "lost" && record.text("counter") == "events_lost";
        let all = follower.wait_for("the loss", |all| {
            all.iter().filter(is_loss).map(|record| record.number("by")).sum::<u64>() > 0
        })?;
        let by: u64 = all.iter().filter(is_loss).map(|record| record.number("by")).sum();
        ensure!(by == engine.show()?.loss.events_lost, "{by}: {:?}", engine.show()?.loss);
        // Others may make cgroups too. No record is smaller than assumed above.
        ensure!(by >= lost, "{by} lost, at least {lost} did not fit");
        // The daemon also finds what the lost events were about.
        let unheard = format!("{}/unheard-of", parent.path());
        follower.wait_for("the cgroup of which no event told", |all| {
            count(all, "cgroup-added", &unheard) == 1
        })?;
        if let Some(offline) = offline {
            follower.wait_for("the CPU of which no event told", |all| {
                all.iter().any(|record| record.kind() == "cpu-dead")
            })?;
            offline.back()?;
        }
        // The next daemon does not tell of it again.
        drop(follower);
        engine.kill()?;
        engine.adopt(["--no-adopt"])?;
        let is_adopted = |record: &Record| record.kind() == "engine-adopted";
        let mut follower = Follower::start()?;
        follower.wait_for("the adoption", |all| all.iter().any(is_adopted))?;
        engine.stop()?;
        let all = follower.end()?;
        let again = all.iter().skip_while(|record| !is_adopted(record)).find(is_loss);
        ensure!(again.is_none(), "{again:?}");
        Ok(())
    })
}

/// At the end, standard error has said how many events it does not have.
#[test]
fn what_is_withheld_is_told_of_to_the_end() -> Result<()> {
    const LIMIT: u64 = 512;
    const WITHHELD: &str = "event: withheld kind=limit-hit number=";
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::limited(LIMIT, &[&cgroup])?;
        let follower = Follower::start()?;
        // Each is at the limit at least once, and all of them within a second or two.
        for _ in 0..10 {
            HogBuilder::pages(2 * LIMIT).start(&cgroup)?.was_killed()?;
        }
        let said = engine.stop()?.stderr;
        let told = said.lines().filter(|line| line.starts_with("event: limit-hit ")).count();
        let number = |line: &str| line.strip_prefix(WITHHELD)?.parse::<usize>().ok();
        let withheld: usize = said.lines().filter_map(number).sum();
        let all = follower.end()?;
        let hits = all.iter().filter(|record| record.kind() == "limit-hit").count();
        ensure!(hits >= 10 && withheld > 0, "{told} + {withheld} of {hits}: {said}");
        ensure!(told + withheld == hits, "{told} + {withheld} of {hits}: {said}");
        Ok(())
    })
}

#[test]
fn a_closed_pipe_and_an_interrupt_are_a_good_end() -> Result<()> {
    live(|| {
        let parent = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", parent.path()])?;
        let mut piped = Command::new(binaries::memstock()?)
            .args(["events", "--follow"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut first = String::new();
        // Drops, and so closes, the pipe after one line, while there is nothing to write.
        BufReader::new(piped.stdout.take().context("a pipe")?).read_line(&mut first)?;
        let ended =
            poll_until(SOON, "the end of an unread follower", || piped.try_wait().transpose());
        if ended.is_err() {
            piped.kill()?;
            piped.wait()?;
        }
        ensure!(ended??.code() == Some(0) && first.starts_with("event: cgroup-added "), "{first}");
        for signal in [Signal::INT, Signal::TERM] {
            let mut follower = Follower::start()?;
            follower.wait_for("a record", |all| !all.is_empty())?;
            follower.process().signal(signal)?;
            follower.end().with_context(|| format!("{signal:?}"))?;
        }
        engine.stop().map(drop)
    })
}

#[test]
fn a_killed_engine_ends_followers_and_leaves_what_it_wrote() -> Result<()> {
    live(|| {
        let none = memstock(["events"])?.finish(SOON)?;
        ensure!(none.code() == 124 && none.stderr.lines().count() == 1, "{none:?}");
        let parent = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", parent.path()])?;
        let mut follower = Follower::start()?;
        follower.wait_for("a record", |all| !all.is_empty())?;
        engine.process().signal(Signal::KILL)?;
        engine.process().wait(SOON)?;
        let seen = follower.end()?;
        ensure!(events::read()? == seen, "the files are there: {seen:?}");
        ensure!(Follower::start()?.end()? == seen, "and who follows them comes to an end");
        let stopped = memstock(["stop"])?.finish(SOON)?;
        ensure!(stopped.code() == 0, "{stopped:?}");
        ensure!(memstock(["events"])?.finish(SOON)?.code() == 124, "nothing is left to read");
        Ok(())
    })
}
