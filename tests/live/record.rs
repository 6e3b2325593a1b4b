//! `memstock record`: recordings of real programs match what these did, the previous recording is kept, and nothing
//! else is left behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use memstock::recording::{AccessKind, Recording, TaskEventKind, read};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::{Finished, Process, Program, memstock};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, PAGE, Task, TestCgroup, leftovers, live};
use rustix::process::Signal;

/// A recorded program, with its recording in a folder of its own.
pub struct Recorded {
    pub folder: tempfile::TempDir,
    pub finished: Finished,
}

impl Recorded {
    pub fn read(&self) -> Result<Recording> {
        read(&self.folder.path().join("data"))
    }
}

fn start(folder: &Path, args: &[&str]) -> Result<Process> {
    program(folder, args)?.start()
}

pub fn program(folder: &Path, args: &[&str]) -> Result<Program> {
    let file = folder.join("data");
    let file = file.to_str().context("a path that is not UTF-8")?;
    memstock([&["record", "-o", file], args].concat())
}

pub fn record(args: &[&str]) -> Result<Recorded> {
    let folder = tempfile::tempdir()?;
    let finished = start(folder.path(), args)?.finish(3 * SOON)?;
    Ok(Recorded { folder, finished })
}

pub fn highest(recording: &Recording, of: impl Fn(&memstock::recording::Moment) -> u64) -> u64 {
    recording.moments.iter().map(of).max().unwrap_or_default()
}

#[test]
fn processes_that_come_and_go_are_told_of() -> Result<()> {
    live(|| {
        let script = "sleep 0.05 & cat /dev/null; GOMEMLIMIT=1GiB sleep 0.3; wait; exit 7";
        let recorded = record(&["--", "sh", "-c", script])?;
        ensure!(recorded.finished.code() == 7, "{:?}", recorded.finished);
        ensure!(recorded.finished.stderr.contains(" 4 tasks, "), "{:?}", recorded.finished);
        let recording = recorded.read()?;
        let mut born = BTreeMap::new();
        let mut programs = BTreeMap::new();
        let mut died = 0;
        for event in &recording.tasks {
            match &event.kind {
                TaskEventKind::Born { parent } => {
                    born.insert(event.pid, *parent);
                }
                TaskEventKind::Exec { comm } => {
                    programs.insert(comm.clone(), event.pid);
                }
                TaskEventKind::Died => died += 1,
                TaskEventKind::FollowsLimit { why } => {
                    ensure!(why.contains("GOMEMLIMIT"), "{event:?}");
                    ensure!(programs.get("sleep") == Some(&event.pid), "{:?}", recording.tasks);
                    programs.insert("follows".into(), event.pid);
                }
            }
        }
        let shell = programs.get("sh").context("no shell")?;
        ensure!(born.len() == 3 && born.values().all(|parent| parent == shell), "{born:?}");
        ensure!(programs.contains_key("cat") && programs.contains_key("follows"), "{programs:?}");
        ensure!(died == 4, "{:?}", recording.tasks);
        ensure!(recording.end.context("no end")?.code == Some(7), "the exit code");
        Ok(())
    })
}

/// A file is read three times, at intervals, and then truncated.
#[test]
fn accesses_are_those_of_the_program() -> Result<()> {
    const NAME: &str = "record::accesses_are_those_of_the_program";
    /// Few enough that all blocks are sampled.
    const PAGES: u64 = 200;
    live(|| {
        let folder = tempfile::tempdir_in("/var/tmp")?;
        let path = folder.path().join("read");
        let mut file = File::create(&path)?;
        file.write_all(&vec![1; usize::try_from(PAGES * PAGE)?])?;
        file.sync_all()?;
        drop_cache(&file)?;
        let name = path.to_str().context("a path that is not UTF-8")?;
        let script = format!(
            "cat {name} >/dev/null; sleep 0.1; cat {name} >/dev/null; sleep 0.1; cat {name} >/dev/null; \
             sleep 0.1; : > {name}"
        );
        let recording = record(&["--", "sh", "-c", &script])?.read()?;
        if let Some(lacks) = recording.header.assumes.iter().find(|it| it.contains("mm_filemap")) {
            skip(NAME, lacks);
            return Ok(());
        }
        let inode = fs::metadata(&path)?.ino();
        let number = recording.files.iter().position(|file| file.inode == inode);
        let number = number.context("the file is not in the recording")?;
        let found = &recording.files[number];
        ensure!(found.path.as_deref() == Some(path.as_path()), "{found:?}");
        ensure!(found.device == fs::metadata(&path)?.dev(), "{found:?}");
        let mut pages = BTreeMap::new();
        for access in recording.accesses.iter().filter(|it| it.file as usize == number) {
            ensure!(access.one_in == 1, "{access:?}");
            for index in access.index..access.index + u64::from(access.pages) {
                *pages
                    .entry((index, access.kind == AccessKind::Read, format!("{:?}", access.kind)))
                    .or_insert(0) += 1;
            }
        }
        let mut twice = 0;
        for index in 0..PAGES {
            let times =
                |kind: &str, is_read| pages.get(&(index, is_read, kind.to_owned())).copied();
            let reads = times("Read", true).unwrap_or_default();
            ensure!(reads >= 3, "page {index} was read {reads} times");
            twice += u64::from(reads > 3);
            let counts = [times("Added", false), times("Removed", false)];
            ensure!(counts == [Some(1), Some(1)], "page {index}: {counts:?}");
        }
        // A read of more than the kernel handles at once is reported again from where it had to wait.
        ensure!(twice <= PAGES / 10, "{twice} pages were reported twice");
        let beyond: Vec<_> = pages.keys().filter(|(index, ..)| *index >= PAGES).collect();
        ensure!(beyond.is_empty(), "pages that are not there: {beyond:?}");
        Ok(())
    })
}

fn drop_cache(file: &File) -> Result<()> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).context("fadvise")
}

/// The recording distinguishes kinds of memory.
#[test]
fn dirty_and_shared_memory_is_seen() -> Result<()> {
    const PAGES: u64 = 4096;
    live(|| {
        let folder = tempfile::tempdir_in("/var/tmp")?;
        let shared = tempfile::tempdir_in("/dev/shm")?;
        let script = format!(
            "head -c {0} /dev/zero > {1}/a; head -c {0} /dev/zero > {2}/b",
            PAGES * PAGE,
            folder.path().display(),
            shared.path().display()
        );
        let recording = record(&["--", "sh", "-c", &script])?.read()?;
        let shmem = highest(&recording, |moment| moment.shmem);
        let dirty = highest(&recording, |moment| moment.dirty);
        ensure!((PAGES..PAGES + 64).contains(&shmem), "{shmem}: {:?}", recording.moments);
        // The kernel may have written some to the disk.
        ensure!((PAGES / 2..=PAGES + 64).contains(&dirty), "{dirty}: {:?}", recording.moments);
        let a = folder.path().join("a");
        let of_a = |kind| {
            let all = recording.accesses.iter().filter(|access| {
                let file = &recording.files[access.file as usize];
                access.kind == kind && file.path.as_deref() == Some(&a)
            });
            all.map(|access| u64::from(access.pages * access.one_in)).sum::<u64>()
        };
        let (added, dirtied) = (of_a(AccessKind::Added), of_a(AccessKind::Dirtied));
        ensure!(added == PAGES && dirtied == PAGES, "{added} and {dirtied} of {PAGES} pages");
        let last = recording.moments.last().context("no moment")?;
        ensure!(last.needed >= PAGES && last.file >= PAGES, "{last:?}");
        Ok(())
    })
}

/// A running cgroup is recorded and goes on, both with an engine of its own and with a running one.
#[test]
fn a_cgroup_that_runs_goes_on() -> Result<()> {
    const PAGES: u64 = 3000;
    live(|| {
        for has_engine in [false, true] {
            let cgroup = TestCgroup::new()?;
            let engine =
                has_engine.then(|| Engine::start(["--cgroup", cgroup.path()])).transpose()?;
            let mut task = Task::start(&cgroup, None)?;
            // A peak from before does not belong to the recording.
            task.touch(2 * PAGES)?;
            task.ask("drop")?;
            task.touch(500)?;
            let folder = tempfile::tempdir()?;
            let mut recorder = start(folder.path(), &["--cgroup", cgroup.path()])?;
            let file = folder.path().join("data");
            try_poll_until(SOON, "the recording", || Ok(read(&file).is_ok().then_some(())))?;
            task.touch(PAGES)?;
            // The last sample has the watermark, however late it is.
            recorder.signal(Signal::INT)?;
            let finished = recorder.wait(SOON)?;
            ensure!(finished.code() == 0, "{finished:?}");
            let recording = read(&file)?;
            let (first, last) = (recording.moments.first(), recording.moments.last());
            let grown = last.context("none")?.needed - first.context("none")?.needed;
            ensure!((PAGES..PAGES + 64).contains(&grown), "{grown}: {:?}", recording.moments);
            ensure!(recording.header.cgroup == Path::new(cgroup.path()), "{:?}", recording.header);
            let end = recording.end.context("no end")?;
            ensure!(end.code.is_none(), "{end:?}");
            let is_known = |kind: &TaskEventKind| matches!(kind, TaskEventKind::Exec { comm } if comm.starts_with("memstock-workl"));
            ensure!(
                recording.tasks.iter().any(|event| is_known(&event.kind)),
                "{:?}",
                recording.tasks
            );
            task.touch(1)?;
            if let Some(engine) = engine {
                engine.show()?.cgroup(cgroup.path())?;
            }
        }
        Ok(())
    })
}

/// A recording ends with its cgroup, and after `--seconds`.
#[test]
#[ignore = "long"]
fn a_recording_ends_with_its_cgroup_or_its_time() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let folder = tempfile::tempdir()?;
        let finished =
            start(folder.path(), &["--seconds", "1", "--cgroup", cgroup.path()])?.finish(SOON)?;
        // On an emulated CPU the last look at the pages takes a while (1.1 s were seen), but no second.
        let is_in_time = finished.stderr.starts_with("memstock: 1.");
        ensure!(finished.code() == 0 && is_in_time, "{finished:?}");
        let folder = tempfile::tempdir()?;
        let mut recorder = start(folder.path(), &["--cgroup", cgroup.path()])?;
        let file = folder.path().join("data");
        let is_begun = || Ok(read(&file).is_ok_and(|it| !it.moments.is_empty()).then_some(()));
        try_poll_until(SOON, "the recording", is_begun)?;
        drop(cgroup);
        let finished = recorder.wait(SOON)?;
        ensure!(finished.code() == 0, "without its cgroup: {finished:?}");
        // It also ends with the engine that it records from.
        let cgroup = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
        let folder = tempfile::tempdir()?;
        let mut recorder = start(folder.path(), &["--cgroup", cgroup.path()])?;
        let file = folder.path().join("data");
        let is_begun = || Ok(read(&file).is_ok_and(|it| !it.moments.is_empty()).then_some(()));
        try_poll_until(SOON, "the recording", is_begun)?;
        engine.kill()?;
        ensure!(memstock(["stop"])?.finish(SOON)?.code() == 0, "stop");
        let finished = recorder.wait(SOON)?;
        ensure!(finished.code() == 0, "without its engine: {finished:?}");
        ensure!(finished.stderr.contains("the engine ended before"), "{finished:?}");
        // `--seconds` ends COMMAND; a value beyond the clock's range means no end.
        let forever = u64::MAX.to_string();
        let recorded = record(&["--seconds", &forever, "--", "true"])?;
        ensure!(recorded.finished.code() == 0, "{:?}", recorded.finished);
        let recorded = record(&["--seconds", "1", "--", "sleep", "60"])?;
        ensure!(recorded.finished.code() == 128 + 15, "{:?}", recorded.finished);
        Ok(())
    })
}

/// COMMAND is recorded below a cgroup that a running engine tracks.
#[test]
fn command_is_recorded_beside_a_running_engine() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let below = ["--cgroup", cgroup.path(), "--", "sh", "-c", "exit 3"];
        let recorded = record(&below)?;
        ensure!(recorded.finished.code() == 3, "{:?}", recorded.finished);
        let recording = recorded.read()?;
        ensure!(recording.header.cgroup.starts_with(cgroup.path()), "{:?}", recording.header);
        ensure!(highest(&recording, |moment| moment.usage) > 0, "{:?}", recording.moments);
        let refused = record(&["--", "true"])?;
        ensure!(refused.finished.code() == 123, "{:?}", refused.finished);
        ensure!(!refused.folder.path().join("data").exists(), "a recording of nothing");
        ensure!(cgroup.dir().read_dir()?.flatten().all(|entry| !entry.path().is_dir()), "left");
        engine.show()?.cgroup(cgroup.path())?;
        Ok(())
    })
}

/// The previous recording is kept, and a failed one replaces nothing. One that was killed can be read up to its end.
#[test]
#[ignore = "long"]
fn the_recording_before_is_kept() -> Result<()> {
    live(|| {
        let folder = tempfile::tempdir()?;
        let (file, old) = (folder.path().join("data"), folder.path().join("data.old"));
        let code =
            |name| -> Result<i32> { Ok(start(folder.path(), &["--", name])?.finish(SOON)?.code()) };
        ensure!(code("memstock-no-such")? == 127, "found");
        ensure!(!file.exists(), "a recording of nothing");
        ensure!(code("true")? == 0, "true");
        let first = fs::read(&file)?;
        ensure!(code("memstock-no-such")? == 127, "found");
        ensure!(fs::read(&file)? == first && !old.exists(), "the one before is gone");
        ensure!(code("false")? == 1, "false");
        // A command that cannot be recorded does not replace the previous recording.
        ensure!(code("memstock-no-such")? == 127, "found");
        ensure!(
            fs::read(&old)? == first && fs::read(&file)? != first,
            "the one before is not kept"
        );
        ensure!(fs::metadata(&file)?.mode() & 0o777 == 0o600, "others read it");
        ensure!(folder.path().read_dir()?.count() == 2, "a file is left");
        leftovers::none()?;

        let mut killed = start(folder.path(), &["--", "sleep", "60"])?;
        let is_begun = |it: Recording| it.header.command[0] == "sleep" && !it.tasks.is_empty();
        let is_begun = || Ok(read(&file).is_ok_and(is_begun).then_some(()));
        try_poll_until(SOON, "a moment", is_begun)?;
        killed.signal(Signal::KILL)?;
        killed.wait(SOON)?;
        let recording = read(&file)?;
        ensure!(recording.end.is_none() && !recording.tasks.is_empty(), "{recording:?}");
        ensure!(memstock(["stop"])?.finish(SOON)?.code() == 0, "stop");
        Ok(())
    })
}
