//! `memstock top` as people use it: driven by keys on a real terminal, and printed into a pipe.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use memstock::size::human;
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::{Finished, memstock};
use memstock_tests::skip::skip;
use memstock_tests::tmux::{self, Terminal};
use memstock_tests::{Engine, Task, TestCgroup, binaries, live};
use rustix::process::Signal;

/// As most terminals begin.
const SIZE: (u16, u16) = (80, 24);

/// A live test in a terminal.
fn in_tmux(test: impl FnOnce() -> Result<()>) -> Result<()> {
    if !tmux::exists() {
        skip(&name(), "tmux is not installed");
        return Ok(());
    }
    live(test)
}

/// `memstock top` with these arguments in a terminal.
fn top(size: (u16, u16), environment: &[(&str, &str)], args: &[&str]) -> Result<Terminal> {
    let program = binaries::memstock()?;
    let words = [program.as_os_str(), OsStr::new("top")];
    Terminal::start(size, environment, words.into_iter().chain(args.iter().map(OsStr::new)))
}

/// Two trees: `web` with `api` and `static`, and `batch`.
struct Tree {
    engine: Engine,
    api: TestCgroup,
    _others: [TestCgroup; 3],
    root: TestCgroup,
}

impl Tree {
    fn new() -> Result<Self> {
        let root = TestCgroup::new()?;
        let web = root.child("web")?;
        let (api, quiet) = (web.child("api")?, web.child("static")?);
        let batch = root.child("batch")?;
        let engine = Engine::start(["--cgroup", web.path(), "--cgroup", batch.path()])?;
        Ok(Self { engine, api, _others: [quiet, web, batch], root })
    }

    fn web(&self) -> String {
        format!("{}/web", self.root.path())
    }
}

/// In which line a cgroup is whose path ends like this.
fn row(screen: &str, name: &str) -> Option<usize> {
    screen.lines().position(|line| {
        let first = line.trim_start_matches(['▾', '▸', ' ']).split_whitespace().next();
        first.is_some_and(|first| first.ends_with(name)) && line.contains("B ")
    })
}

/// The usage of a cgroup, as it is shown.
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
        ensure!(screen.contains("daemon ") && screen.contains("HITS/S"), "{screen}");
        ensure!(row(&screen, "web") < row(&screen, "api"), "{screen}");
        // A rate needs two samples, and a stock something that is stocked.
        top.wait_for("a rate", |screen| {
            let line = screen.lines().nth(1).unwrap_or_default();
            !line.contains("faults 0/s") && !line.contains("faults -/s")
        })?;
        top.wait_for("a stock", |screen| {
            screen
                .contains(&format!("for {}", tree.api.path()).chars().take(30).collect::<String>())
        })?;

        // Sorted by name, then the other way round.
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
        // Typed and drawn: any reading before that would be seen.
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
        // A terminal that is closed takes the view with it.
        let closed = top(SIZE, &[], &[])?;
        closed.wait_for("the view", |screen| screen.contains("CGROUPS"))?;
        let stat = format!("/proc/{}/stat", closed.pid()?);
        drop(closed);
        ensure!(!Path::new(&stat).exists(), "it goes on without a terminal");
        tree.engine.stop().map(drop)
    })
}

/// What the terminal runs in the test below: the real guard of the terminal, and a real panic.
#[test]
#[ignore = "run by a_panic_gives_the_terminal_back, in a terminal"]
fn panics_in_a_terminal() {
    let mut screen = memstock::top::terminal::Screen::enter().expect("a terminal");
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
        let words = ["--exact", "panics_in_a_terminal", "--ignored", "--nocapture"].map(OsStr::new);
        let terminal = Terminal::start(SIZE, &[], [test.as_os_str()].into_iter().chain(words))?;
        terminal.wait_for("what it draws", |screen| screen.trim() == "drawn")?;
        ensure!(terminal.variable("alternate_on")? == "1");
        terminal.press(&["x"])?;
        let (code, screen) = terminal.restored()?;
        // The message came after the terminal was itself again, and can be read.
        ensure!(code == 101 && screen.contains("on purpose"), "{code}: {screen}");
        Ok(())
    })
}

#[test]
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
        ensure!(heads.contains("HITS/S") && heads.contains("STOCKED"), "side by side: {screen}");
        top.resize((40, 10))?;
        top.wait_for("a few columns", |screen| {
            screen.contains("USAGE") && !screen.contains("FAILCNT") && !screen.contains("EVENTS")
        })?;
        top.press(&["q"])?;
        ensure!(top.restored()?.0 == 0);
        tree.engine.stop().map(drop)
    })
}

/// Whether a text has escape sequences that set a colour; those of modifiers are not meant.
fn is_coloured(styled: &str) -> bool {
    styled.split('\u{1b}').skip(1).any(|sequence| {
        let end = sequence.find('m').unwrap_or(0);
        let codes = sequence.trim_start_matches('[').get(..end.saturating_sub(1)).unwrap_or("");
        codes
            .split(';')
            .filter_map(|code| code.parse::<u32>().ok())
            .any(|code| matches!(code, 30..=38 | 40..=48 | 90..=97 | 100..=107))
    })
}

#[test]
fn colours_can_be_left_out() -> Result<()> {
    in_tmux(|| {
        let tree = Tree::new()?;
        let no_colour = [("NO_COLOR", "1")];
        let cases: [(&[_], &[_], _); 4] = [
            (&[], &[], true),
            (&no_colour, &[], false),
            (&no_colour, &["--color", "always"], true),
            (&[], &["--color", "never"], false),
        ];
        for (environment, args, expected) in cases {
            let top = top(SIZE, environment, args)?;
            top.wait_for("the view", |screen| screen.contains("CGROUPS"))?;
            let styled = top.styled()?;
            ensure!(is_coloured(&styled) == expected, "{environment:?} {args:?}: {styled:?}");
            ensure!(styled.contains("\u{1b}["), "not even a selected row: {styled:?}");
        }
        // Where the cursor cannot be moved, there are plain samples.
        let program = binaries::memstock()?;
        let dumb = ["env", "TERM=dumb"].map(OsStr::new).into_iter().chain([program.as_os_str()]);
        let dumb = dumb.chain(["top", "-n", "1"].map(OsStr::new));
        let (code, screen) = Terminal::start(SIZE, &[], dumb)?.restored()?;
        ensure!(code == 0 && screen.contains("memstock top - "), "{screen}");
        tree.engine.stop().map(drop)
    })
}

#[test]
fn a_pipe_gets_plain_samples() -> Result<()> {
    live(|| {
        let none = memstock(["top", "-b", "-n", "1"])?.finish(SOON)?;
        ensure!(none.code() == 124 && none.stderr.lines().count() == 1, "{none:?}");
        let tree = Tree::new()?;
        let mut task = Task::start(&tree.api, Some(0))?;
        task.touch(100)?;
        for args in [&["top", "-b", "-n", "2", "-d", "0.1"][..], &["top", "-n", "2", "-d", "0.1"]] {
            let Finished { stdout, stderr, status } = memstock(args)?.finish(SOON)?;
            ensure!(status.success() && stderr.is_empty(), "{stderr}");
            ensure!(stdout.matches("memstock top - ").count() == 2, "{stdout}");
            ensure!(!stdout.contains('\u{1b}'), "escape sequences: {stdout}");
            let row = stdout.lines().find(|line| line.trim_start().starts_with("api "));
            let usage = usage(&tree.engine, &tree.api)?;
            ensure!(row.is_some_and(|row| row.contains(&usage)), "{stdout}");
            ensure!(stdout.lines().any(|line| line.starts_with(&tree.web())), "{stdout}");
        }
        for (flag, value) in
            [("-d", "0"), ("-d", "x"), ("-d", "1e9"), ("-n", "0"), ("--color", "red")]
        {
            let refused = memstock(["top", flag, value])?.finish(SOON)?;
            ensure!(refused.code() == 2 && refused.stderr.lines().count() == 1, "{refused:?}");
            ensure!(refused.stderr.contains(value), "{refused:?}");
        }
        tree.engine.stop().map(drop)
    })
}

#[test]
fn a_closed_pipe_and_an_interrupt_are_a_good_end() -> Result<()> {
    live(|| {
        let tree = Tree::new()?;
        let mut piped = Command::new(binaries::memstock()?)
            .args(["top", "-d", "0.1"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut first = String::new();
        BufReader::new(piped.stdout.take().context("a pipe")?).read_line(&mut first)?;
        let ended = poll_until(SOON, "the end of an unread view", || piped.try_wait().transpose());
        if ended.is_err() {
            piped.kill()?;
            piped.wait()?;
        }
        ensure!(ended??.code() == Some(0) && first.starts_with("memstock top - "), "{first}");
        for signal in [Signal::INT, Signal::TERM] {
            let mut process = memstock(["top", "-b"])?.start()?;
            try_poll_until(SOON, "a sample", || Ok((!process.stdout()?.is_empty()).then_some(())))?;
            process.signal(signal)?;
            ensure!(process.wait(SOON)?.code() == 0, "{signal:?}");
        }
        tree.engine.stop().map(drop)
    })
}

#[test]
fn strange_names_break_nothing() -> Result<()> {
    in_tmux(|| {
        let root = TestCgroup::new()?;
        let names: [&[u8]; 5] = [
            b"two words",
            b"esc\x1b[31mape\x1b[2J",
            b"bad\xffbyte",
            "日本語".as_bytes(),
            &[b'x'; 255],
        ];
        for name in names {
            let dir = root.dir().join(OsStr::from_bytes(name));
            fs::create_dir(&dir).with_context(|| format!("{dir:?}"))?;
        }
        let engine = Engine::start(["--cgroup", root.path()])?;
        try_poll_until(SOON, "all cgroups", || {
            Ok((engine.show()?.cgroups.len() == 1 + names.len()).then_some(()))
        })?;
        let shown = ["two words", r"esc\x1b[31m", r"bad\xffbyte", "日本語", "xxxxxxxx"];
        let top = top(SIZE, &[], &["-d", "0.2"])?;
        let screen =
            top.wait_for("all names", |screen| shown.iter().all(|name| screen.contains(name)))?;
        let heads = screen.lines().position(|line| line.starts_with("CGROUP ")).context("heads")?;
        let end = |line: &str| {
            // Wide characters take two columns.
            let wide = line.chars().filter(|c| ('\u{2e80}'..='\u{fffd}').contains(c)).count();
            line.trim_end().chars().count() + wide
        };
        let rows: Vec<_> = screen.lines().skip(heads).take(2 + names.len()).map(end).collect();
        ensure!(rows.iter().all(|&end| end == rows[0]), "{rows:?}: {screen}");
        top.press(&["q"])?;
        ensure!(top.restored()?.0 == 0);
        let plain = memstock(["top", "-b", "-n", "1"])?.finish(SOON)?.stdout;
        ensure!(!plain.contains(|c: char| c.is_control() && c != '\n'), "{plain:?}");
        ensure!(plain.contains(&"x".repeat(255)), "{plain}");
        engine.stop().map(drop)
    })
}
