//! `memstock top` in a terminal: controlled by keys, resized, ended in every way.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use memstock::engine::kernel_slots::KernelSlots;
use memstock::model::kernel::owned;
use memstock::model::size::human;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, poll_until};
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::tmux::Terminal;
use memstock_tests::top::{SIZE, Tree, in_tmux, row, top};
use memstock_tests::{Engine, KernelCgroup, Task, TestCgroup};
use rustix::process::Signal;

use crate::in_kernel::in_kernel;

/// The usage of a cgroup, as `top` shows it.
fn usage(engine: &Engine, cgroup: &TestCgroup) -> Result<String> {
    Ok(human(engine.show()?.cgroup(cgroup.path())?.memory.usage))
}

#[test]
fn it_is_driven_by_keys() -> Result<()> {
    in_tmux(|| {
        let tree = Tree::new()?;
        let mut task = Task::start(&tree.api, Some(0))?;
        task.touch(100)?;
        task.churn()?;
        let top = top(SIZE, &[], &["-d", "0.2"])?;
        let all = ["memstock top", "CGROUPS by USAGE", "CPUS", "EVENTS", "cgroup-added", "q quit"];
        let screen =
            top.wait_for("the view", |screen| all.iter().all(|text| screen.contains(text)))?;
        ensure!(screen.contains("daemon ") && screen.contains("CHARGES/S"), "{screen}");
        ensure!(row(&screen, "web") < row(&screen, "api"), "{screen}");
        // A rate needs two samples, and a stock needs pages.
        top.wait_for("a rate", |screen| {
            let line = screen.lines().nth(1).unwrap_or_default();
            !line.contains("pages 0/s") && !line.contains("pages -/s")
        })?;
        top.wait_for("a stock", |screen| {
            screen
                .contains(&format!("for {}", tree.api.path()).chars().take(30).collect::<String>())
        })?;

        // Sorted by name, then in reverse.
        top.press(&["S"])?;
        let screen = top.wait_for("another order", |screen| screen.contains("by CGROUP"))?;
        ensure!(row(&screen, "/batch") < row(&screen, "/web"), "{screen}");
        top.press(&["r"])?;
        let screen = top.wait_for("the reverse", |screen| screen.contains("CGROUP, reversed"))?;
        ensure!(row(&screen, "/batch") > row(&screen, "/web"), "{screen}");

        top.press(&["Home", "Space"])?;
        let screen = top.wait_for("a fold", |screen| screen.contains("(+2)"))?;
        ensure!(row(&screen, "static").is_none(), "{screen}");
        top.press(&["Right"])?;
        top.wait_for("it unfolded", |screen| row(screen, "static").is_some())?;

        top.press(&["/"])?;
        top.write("STAT")?;
        let screen = top.wait_for("a filter", |screen| screen.contains("filter: STAT"))?;
        ensure!(row(&screen, "static").is_some() && row(&screen, "api").is_none(), "{screen}");
        top.press(&["Enter", "Escape"])?;
        top.wait_for("everything", |screen| row(screen, "api").is_some())?;

        top.press(&["?"])?;
        top.wait_for("the help", |screen| screen.contains("sort by the next column"))?;
        top.press(&["Escape"])?;
        top.wait_for("no help", |screen| !screen.contains("sort by the next column"))?;
        top.press(&["q"])?;
        ensure!(top.restored()?.0 == 0);
        tree.engine.stop().map(drop)
    })
}

#[test]
fn a_pause_stands_still_and_a_drain_asks_first() -> Result<()> {
    in_tmux(|| {
        let tree = Tree::new()?;
        let mut task = Task::start(&tree.api, Some(0))?;
        task.touch(40)?;
        let top = top(SIZE, &[], &["-d", "0.2"])?;
        let before = usage(&tree.engine, &tree.api)?;
        top.wait_for("what is used", |screen| screen.contains(&before))?;
        top.press(&["p"])?;
        top.wait_for("a pause", |screen| screen.contains("PAUSED"))?;
        task.touch(100)?;
        let after = usage(&tree.engine, &tree.api)?;
        ensure!(before != after, "{before}");
        // When the help is drawn, any earlier sample would be visible.
        top.press(&["?"])?;
        top.wait_for("the help", |screen| screen.contains("Keys"))?;
        top.press(&["q"])?;
        let screen = top.wait_for("no help", |screen| !screen.contains("Keys"))?;
        ensure!(screen.contains(&before) && !screen.contains(&after), "{after}: {screen}");
        top.press(&["p"])?;
        top.wait_for("it goes on", |screen| screen.contains(&after))?;

        let stocked = || Ok::<_, anyhow::Error>(tree.engine.show()?.stocked_pages());
        let before = stocked()?;
        ensure!(before > 0, "nothing is stocked");
        top.press(&["Home", "d"])?;
        top.wait_for("a question", |screen| {
            screen.contains("y/n") && screen.contains("below it?")
        })?;
        top.press(&["x"])?;
        top.press(&["n"])?;
        top.wait_for("a refusal", |screen| screen.contains("nothing was drained"))?;
        ensure!(stocked()? == before, "it was drained all the same");
        top.press(&["d", "y"])?;
        top.wait_for("a drain", |screen| screen.contains("drained ") && screen.contains(" us"))?;
        ensure!(stocked()? == 0, "{:#?}", tree.engine.show()?);
        task.touch(1)?;
        ensure!(stocked()? > 0, "nothing is stocked");
        top.press(&["D", "y"])?;
        top.wait_for("another one", |screen| screen.contains("of all cgroups in"))?;
        ensure!(stocked()? == 0, "{:#?}", tree.engine.show()?);
        top.press(&["C-c"])?;
        ensure!(top.restored()?.0 == 0);
        tree.engine.stop().map(drop)
    })
}

#[test]
fn the_terminal_is_restored_by_signals() -> Result<()> {
    in_tmux(|| {
        let tree = Tree::new()?;
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let top = top(SIZE, &[], &[])?;
            top.wait_for("the view", |screen| screen.contains("CGROUPS"))?;
            ensure!(top.variable("alternate_on")? == "1" && top.variable("cursor_flag")? == "0");
            top.signal(signal)?;
            let (code, screen) = top.restored()?;
            ensure!(code == 0 && !screen.contains("CGROUPS"), "{signal:?}: {screen}");
        }
        let counted = top(SIZE, &[], &["-n", "2", "-d", "0.2"])?;
        ensure!(counted.restored()?.0 == 0, "it ends by itself");
        // Closing the terminal ends `top`.
        let closed = top(SIZE, &[], &[])?;
        closed.wait_for("the view", |screen| screen.contains("CGROUPS"))?;
        let stat = format!("/proc/{}/stat", closed.pid()?);
        drop(closed);
        ensure!(!Path::new(&stat).exists(), "it goes on without a terminal");
        tree.engine.stop().map(drop)
    })
}

/// Runs in the terminal of the test below, with the real terminal guard and a real panic.
#[test]
#[ignore = "run by a_panic_gives_the_terminal_back, in a terminal"]
fn panics_in_a_terminal() {
    let mut screen = memstock::view::top::terminal::Screen::enter().expect("a terminal");
    let text = |frame: &mut ratatui::Frame<'_>| frame.render_widget("drawn", frame.area());
    screen.draw(text).expect("to draw");
    // Raw mode: a key comes without a newline, and ends the wait.
    std::io::Read::read(&mut std::io::stdin(), &mut [0]).expect("a key");
    panic!("on purpose");
}

#[test]
fn a_panic_gives_the_terminal_back() -> Result<()> {
    in_tmux(|| {
        let test = std::env::current_exe()?;
        let words =
            ["--exact", "top::panics_in_a_terminal", "--ignored", "--nocapture"].map(OsStr::new);
        // A backtrace would move the message off the screen.
        let quiet = [("RUST_BACKTRACE", "0")];
        let terminal = Terminal::start(SIZE, &quiet, [test.as_os_str()].into_iter().chain(words))?;
        terminal.wait_for("what it draws", |screen| screen.trim() == "drawn")?;
        ensure!(terminal.variable("alternate_on")? == "1");
        terminal.press(&["x"])?;
        let (code, screen) = terminal.restored()?;
        // The message came after the terminal was restored, and can be read.
        ensure!(code == 101 && screen.contains("on purpose"), "{code}: {screen}");
        Ok(())
    })
}

#[test]
#[ignore = "long"]
fn the_engine_may_end_or_lose_its_daemon() -> Result<()> {
    in_tmux(|| {
        let mut tree = Tree::new()?;
        let top = top((120, 30), &[], &["-d", "0.2"])?;
        top.wait_for("the view", |screen| screen.contains("daemon "))?;
        tree.engine.kill()?;
        top.wait_for("no daemon", |screen| screen.contains("no daemon"))?;
        ensure!(memstock(["stop"])?.finish(SOON)?.code() == 0);
        let (code, screen) = top.restored()?;
        ensure!(code == 124 && screen.contains("memstock: the engine has ended"), "{screen}");
        Ok(())
    })
}

#[test]
fn it_follows_the_size_of_the_terminal() -> Result<()> {
    in_tmux(|| {
        let tree = Tree::new()?;
        let top = top(SIZE, &[], &["-d", "0.2"])?;
        top.wait_for("the view", |screen| {
            screen.contains("CGROUPS") && !screen.contains("FAILCNT")
        })?;
        top.resize((20, 5))?;
        top.wait_for("a word about it", |screen| {
            screen.contains("20 x 5 is too small") && screen.contains("needs 40 x 8")
        })?;
        top.resize((200, 50))?;
        let screen = top.wait_for("all columns", |screen| screen.contains("FAILCNT"))?;
        let heads = screen.lines().find(|line| line.contains("FAILCNT")).context("heads")?;
        ensure!(heads.contains("CHARGES/S") && heads.contains("STOCKED"), "side by side: {screen}");
        top.resize((40, 10))?;
        top.wait_for("a few columns", |screen| {
            screen.contains("USAGE") && !screen.contains("FAILCNT") && !screen.contains("EVENTS")
        })?;
        top.press(&["q"])?;
        ensure!(top.restored()?.0 == 0);
        tree.engine.stop().map(drop)
    })
}

#[test]
fn the_kernels_own_stocks_are_shown_while_asked_for() -> Result<()> {
    const TITLE: &str = "STOCKS OF THE KERNEL";
    in_tmux(|| {
        let tree = Tree::new()?;
        let Some(cgroup) = KernelCgroup::new()? else {
            skip(&name(), ABSENT);
            return Ok(());
        };
        let mut task = Task::start_outside(Some(0))?;
        fs::write(cgroup.dir().join("cgroup.procs"), task.id().to_string())?;
        task.touch(10)?;
        let before = in_kernel()?;
        // The terminal is large enough for a line per slot.
        let top = top((200, 50), &[], &["-d", "0.2"])?;
        top.wait_for("the view", |screen| screen.contains("CPUS") && !screen.contains(TITLE))?;
        ensure!(in_kernel()?.is_within(&before), "something is loaded unasked");
        top.press(&["K"])?;
        top.wait_for("the panel", |screen| screen.contains(TITLE) && !screen.contains("CPUS ─"))?;
        let during = in_kernel()?;
        let more: Vec<_> = during.programs.difference(&before.programs).collect();
        ensure!(more.len() == 1 && more[0].ends_with("kernel_slots"), "{more:?}");
        ensure!(during.links.is_subset(&before.links), "something is attached");

        let (mut slots, id) = (KernelSlots::load(true)?, cgroup.inode()?);
        let mut held = || -> Result<Option<u64>> {
            let cpus = slots.look()?;
            let cpu = cpus.iter().find(|cpu| cpu.cpu == 0).context("CPU 0")?;
            Ok(owned(&cpu.pages).find(|slot| slot.cgroup_id == id).map(|slot| slot.left))
        };
        for nr_pages in [1, 7] {
            task.touch(nr_pages)?;
            top.wait_for("what is in its slot", |screen| {
                // The line ends with CPU, pages, objects, cgroup; tracked cgroups are beside it.
                let line = screen.lines().find(|line| line.ends_with(cgroup.path()));
                let words: Vec<_> = line.unwrap_or_default().split_whitespace().rev().collect();
                let shown = words.get(2).and_then(|pages| pages.parse().ok());
                match held() {
                    Ok(Some(held)) => shown == Some(held) && words.get(3) == Some(&"0"),
                    // Others took the slot; the next page gets one again. If that fails, the wait times out.
                    _ => {
                        let _ = task.touch(1);
                        false
                    }
                }
            })?;
        }
        drop(slots);
        top.press(&["K"])?;
        top.wait_for("the CPUs", |screen| screen.contains("CPUS ─") && !screen.contains(TITLE))?;
        // The kernel frees unused objects after a grace period.
        poll_until(SOON, "nothing that was not there before", || {
            in_kernel().is_ok_and(|after| after.is_within(&before)).then_some(())
        })?;
        top.press(&["q"])?;
        ensure!(top.restored()?.0 == 0);
        tree.engine.stop().map(drop)
    })
}
