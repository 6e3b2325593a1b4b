//! How `memstock run` and `memstock stop` deal with an engine whose daemon is dead: adopt it, refuse it, or clear it
//! away.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use memstock::engine::pins::Pins;
use memstock_tests::cgroup::{self, PREFIX};
use memstock_tests::live::name;
use memstock_tests::orphan::{forget, orphan, refused, stop};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::{Engine, Task, TestCgroup, leftovers, live};
use rustix::process::Signal;

/// The pins of a complete engine.
fn pins() -> Pins {
    Pins::on(Path::new(leftovers::PINS))
}

#[test]
fn what_cannot_be_changed_is_refused() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let leaf = top.child("leaf")?;
        let mut task = Task::start(&leaf, Some(0))?;
        let mut engine = Engine::start(["--cgroup", leaf.path(), "--batch", "16"])?;
        task.touch(1000)?;
        engine.kill()?;
        let named = ["--cgroup", leaf.path()];
        refused(&[&named[..], &["--batch", "32"]].concat(), 123, "--batch 16, not 32")?;
        refused(&[&named[..], &["--slots", "4"]].concat(), 123, "--slots 1, not 4")?;
        refused(&[&named[..], &["--max-cgroups", "9"]].concat(), 123, "--max-cgroups 1024, not 9")?;
        refused(&[&named[..], &["--trace"]].concat(), 123, "--trace")?;
        if !fs::read_to_string("/proc/swaps")?.contains('/') {
            refused(&[&named[..], &["--memsw"]].concat(), 123, "--memsw")?;
        }
        refused(&["--cgroup", top.path()], 123, "is below")?;
        refused(&[&named[..], &["--limit", "4K"]].concat(), 125, leaf.path())?;
        refused(&["--cgroup", "/no/such"], 122, "no cgroup")?;
        refused(&["--", "/no/such"], 127, "not found")?;
        // None of that harmed the engine.
        engine.adopt(["--batch", "16", "--limit", "1G", "--cgroup", leaf.path()])?;
        let show = engine.show()?;
        ensure!(show.batch == 16, "{show:#?}");
        ensure!(show.cgroup(leaf.path())?.memory.limit == Some(1 << 30), "{show:#?}");
        engine.stop().map(drop)
    })
}

#[test]
fn another_version_is_refused_and_stopped() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        for name in ["memstock", "memstock-1", "memstock-4000000000", "memstock-1-unfinished"] {
            let _engine = orphan(&cgroup)?;
            fs::rename(pins().root(), Path::new(leftovers::PINS).join(name))?;
            refused(&["--cgroup", cgroup.path()], 123, "memstock stop")?;
            let show = memstock(["show"])?.finish(SOON)?;
            ensure!(show.code() == 123 && show.stderr.contains(name), "{show:?}");
            stop().context(name)?;
        }
        Ok(())
    })
}

/// An engine with damaged pins is refused while it charges; once it is detached, the next start replaces it.
#[test]
#[ignore = "long"]
fn incomplete_pins_are_refused_or_cleared() -> Result<()> {
    type Harm = fn(&Pins) -> std::io::Result<()>;
    fn exchange(one: &Path, other: &Path, aside: &Path) -> std::io::Result<()> {
        fs::rename(one, aside)?;
        fs::rename(other, one)?;
        fs::rename(aside, other)
    }
    const HARM: [(&str, Harm); 6] = [
        ("LOSS", |pins| fs::remove_file(pins.map("LOSS"))),
        ("no map EVENTS", |pins| fs::remove_file(pins.map("EVENTS"))),
        ("control_drain", |pins| fs::remove_file(pins.program("control_drain"))),
        ("no link to mm_page_free", |pins| fs::remove_file(pins.link("page_free", "mm_page_free"))),
        ("is another one", |pins| {
            let [one, other, aside] = ["LEARNT", "TAIL_CALLS", "ASIDE"].map(|name| pins.map(name));
            exchange(&one, &other, &aside)
        }),
        ("is linked to another program", |pins| {
            let free = pins.link("page_free", "mm_page_free");
            let alloc = pins.link("page_alloc", "mm_page_alloc");
            exchange(&free, &alloc, &pins.link("aside", "aside"))
        }),
    ];
    live(|| {
        let cgroup = TestCgroup::new()?;
        for (what, harm) in HARM {
            let engine = orphan(&cgroup)?;
            harm(&pins()).context(what)?;
            refused(&["--cgroup", cgroup.path()], 123, "memstock stop")?;
            refused(&["--cgroup", cgroup.path()], 123, what)?;
            fs::remove_dir_all(pins().links())?;
            let new = Engine::start(["--cgroup", cgroup.path()])?;
            ensure!(new.events()?.is_empty(), "{what} was not to be adopted: {}", new.stderr()?);
            forget(engine);
            new.stop()?;
            // `stop` works without a `run` before it, too.
            let engine = orphan(&cgroup)?;
            harm(&pins()).context(what)?;
            stop().context(what)?;
            forget(engine);
        }
        Ok(())
    })
}

/// A cgroup that a killed run made, with COMMAND in it, goes on under the run that adopts, which removes it at its end.
#[test]
fn a_cgroup_of_its_own_is_taken_over() -> Result<()> {
    live(|| {
        let name = format!("{PREFIX}own-{}", std::process::id());
        let shell = ["run", "--new", &name, "--", "sh", "-c", "echo up; exec sleep 600"];
        let mut first = memstock(shell)?.start()?;
        try_poll_until(SOON, "COMMAND", || Ok((first.stdout()? == "up\n").then_some(())))?;
        let procs = cgroup::mount()?.join(&name).join("cgroup.procs");
        let sleeper = fs::read_to_string(&procs)?;
        first.signal(Signal::KILL)?;
        first.wait(SOON)?;
        let mut next = memstock(["run", "--new", &name])?.start()?;
        try_poll_until(SOON, "the adoption", || {
            Ok(next.stderr()?.contains("event: engine-adopted").then_some(()))
        })?;
        ensure!(fs::read_to_string(&procs)? == sleeper, "COMMAND was put out");
        next.signal(Signal::TERM)?;
        let finished = next.wait(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        // The test must kill COMMAND: a task of a removed cgroup moves to the parent.
        let pid = sleeper.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("COMMAND's pid")?, Signal::KILL)?;
        leftovers::none()
    })
}

/// An adoption that was cut short is undone and begun again, so that what is no longer the cgroup's is not charged to
/// it; with `--no-adopt`, it is given up.
#[test]
fn an_adoption_that_was_cut_short_begins_again() -> Result<()> {
    const PAGES: u64 = 1000;
    live(|| {
        let (cgroup, other) = (TestCgroup::new()?, TestCgroup::new()?);
        if cgroup.dir().join("memory.current").exists() {
            skip(&name(), "the kernel's own controller says whose the pages are");
            return Ok(());
        }
        let mut task = Task::start(&cgroup, None)?;
        task.touch(PAGES)?;
        let mut engine = Engine::start_adopting(["--cgroup", cgroup.path()])?;
        try_poll_until(SOON, "the adoption", || {
            Ok((engine.show()?.cgroup(cgroup.path())?.used_pages() >= PAGES).then_some(()))
        })?;
        let id = engine.show()?.cgroup(cgroup.path())?.id;
        engine.kill()?;
        pins().note_unadopted([id])?;
        fs::write(other.dir().join("cgroup.procs"), task.id().to_string())?;
        engine.adopt(["--cgroup", cgroup.path()])?;
        let used = engine.show()?.cgroup(cgroup.path())?.used_pages();
        ensure!(used < PAGES, "{used} pages of a task that has left");
        ensure!(pins().unadopted()?.is_empty(), "{:?}", pins().unadopted()?);
        engine.kill()?;
        pins().note_unadopted([id])?;
        engine.adopt(["--no-adopt"])?;
        ensure!(pins().unadopted()?.is_empty(), "{:?}", pins().unadopted()?);
        engine.stop().map(drop)
    })
}

/// A lock file alone, left by a run that was killed before it loaded anything, is cleared as well.
#[test]
fn a_lock_alone_is_cleared() -> Result<()> {
    live(|| {
        let lock = PathBuf::from(leftovers::LOCK);
        fs::write(&lock, "1234567890\n")?;
        stop()?;
        let again = memstock(["stop"])?.finish(SOON)?;
        ensure!(again.code() == 124, "{again:?}");
        Ok(())
    })
}
