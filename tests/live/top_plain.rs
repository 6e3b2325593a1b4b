//! `memstock top` without colours, into a pipe, and with strange names of cgroups.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use memstock::model::size::human;
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::{Finished, memstock};
use memstock_tests::tmux::Terminal;
use memstock_tests::top::{SIZE, Tree, in_tmux, top};
use memstock_tests::{Engine, Task, TestCgroup, binaries, live};
use rustix::process::Signal;

/// Whether a text has escape sequences that set a colour; modifiers do not count.
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
#[ignore = "long"]
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
        // On a terminal that cannot move the cursor, it prints plain samples.
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
            let usage = human(tree.engine.show()?.cgroup(tree.api.path())?.memory.usage);
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
fn in_batch_mode_a_closed_pipe_and_an_interrupt_are_a_good_end() -> Result<()> {
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
