//! Bad input gets one clear line and the documented exit code, and leaves nothing behind.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use memstock_tests::cgroup::{PREFIX, mount, mount_v1_memory};
use memstock_tests::live::name;
use memstock_tests::poll::SOON;
use memstock_tests::process::{Finished, Program, memstock};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, TestCgroup, leftovers, live};

const USAGE: i32 = 2;
const CGROUP: i32 = 122;
const RUNNING: i32 = 123;
const NOT_RUNNING: i32 = 124;
const OTHER: i32 = 125;
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Checks for one line on standard error with all of `words`, and nothing on standard output.
fn check_line(finished: &Finished, code: i32, words: &[&str]) -> Result<()> {
    let Finished { stdout, stderr, .. } = finished;
    ensure!(finished.code() == code, "exit code {code} expected: {finished:?}");
    ensure!(stdout.is_empty(), "something on standard output: {finished:?}");
    ensure!(stderr.lines().count() == 1 && stderr.ends_with('\n'), "not one line: {finished:?}");
    ensure!(stderr.starts_with("memstock: "), "no `memstock: ` in front: {finished:?}");
    for word in words {
        ensure!(stderr.contains(word), "no {word:?} in the message: {finished:?}");
    }
    ensure!(!stderr.contains('\u{1b}'), "it would reach the terminal: {finished:?}");
    ensure!(!stderr.contains("panicked") && !stderr.contains(".rs:"), "a bug shows: {finished:?}");
    Ok(())
}

/// Checks that a command is refused with one line and changes nothing.
fn refused(args: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let before = leftovers::find()?;
    let row = || format!("memstock {}", args.join(" "));
    let finished = memstock(args)?.finish(SOON).with_context(row)?;
    check_line(&finished, code, words).with_context(row)?;
    let after = leftovers::find()?;
    ensure!(before == after, "{}: left {after:?}, found {before:?}", row());
    Ok(())
}

/// Runs a program as an unprivileged user until it ends.
fn as_nobody(program: &str, args: &[&str]) -> Result<Finished> {
    const NOBODY: u32 = 65534;
    let mut command = Command::new(program);
    command.args(args).uid(NOBODY).gid(NOBODY);
    Program::from(command).finish(SOON)
}

/// Neither while an engine runs nor after its daemon was killed, when its files remain.
#[test]
fn nobody_can_lock_it_out_or_read_what_it_knows() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let run = ["--cgroup", cgroup.path()];
        let mut engine = Engine::start(run)?;
        let refused = |when: &str| -> Result<()> {
            // If it got the lock, the verbs below would wait or fail.
            let locked = as_nobody("flock", &[leftovers::LOCK, "sleep", "60"])?;
            ensure!(locked.code() != 0, "{when}: {locked:?}");
            let read = as_nobody("cat", &["/run/memstock.events"])?;
            ensure!(read.code() != 0 && read.stdout.is_empty(), "{when}: {read:?}");
            Ok(())
        };
        refused("while it runs")?;
        engine.kill()?;
        refused("after its daemon")?;
        engine.adopt(run)?;
        refused("while it goes on")?;
        engine.kill()?;
        let stopped = memstock(["stop"])?.finish(SOON)?;
        ensure!(stopped.code() == 0, "{stopped:?}");
        let left = leftovers::pins_and_lock();
        ensure!(left.is_empty(), "{left:?} is left");
        Ok(())
    })
}

#[test]
fn wrong_cgroups() -> Result<()> {
    live(|| {
        let mount = mount()?;
        let missing = format!("/{PREFIX}no-such");
        let missing_dir = format!("{}{missing}", mount.display());
        refused(&["run", "--cgroup", &missing], CGROUP, &[&missing])?;
        refused(&["run", "--cgroup", &missing_dir], CGROUP, &[&missing])?;
        refused(&["run", "--cgroup", ""], USAGE, &["--cgroup"])?;
        // One line even if the name has several, and no escape sequence reaches the terminal.
        refused(&["run", "--cgroup", "/two\nlines\u{1b}[31m"], CGROUP, &["two"])?;
        refused(&["run", "--cgroup", "/"], CGROUP, &["root"])?;
        refused(&["run", "--cgroup", &mount.display().to_string()], CGROUP, &["root"])?;
        refused(&["run", "--cgroup", &format!("{}/", mount.display())], CGROUP, &["root"])?;
        refused(&["run", "--cgroup", &format!("{missing}/..")], CGROUP, &[])?;
        refused(&["run", "--cgroup", "/proc/self"], CGROUP, &["/proc/self"])?;
        // A file in the hierarchy is not a cgroup.
        refused(&["run", "--cgroup", "/cgroup.procs"], CGROUP, &["cgroup.procs"])
    })
}

#[test]
fn a_v1_cgroup() -> Result<()> {
    let Some(v1) = mount_v1_memory()? else {
        skip(&name(), "the v1 memory controller is not mounted");
        return Ok(());
    };
    live(|| {
        let root = v1.display().to_string();
        refused(&["run", "--cgroup", &root], CGROUP, &[&root, "v1"])?;
        let below = v1.join(format!("{PREFIX}v1-{}", std::process::id()));
        fs::create_dir(&below).with_context(|| below.display().to_string())?;
        let result = refused(&["run", "--cgroup", &below.display().to_string()], CGROUP, &["v1"]);
        fs::remove_dir(&below).with_context(|| below.display().to_string())?;
        result
    })
}

#[test]
fn wrong_new_names() -> Result<()> {
    live(|| {
        let there = TestCgroup::new()?;
        refused(&["run", "--new", there.path(), "--", "true"], CGROUP, &[there.path()])?;
        ensure!(there.dir().exists(), "somebody else's cgroup was removed");
        refused(&["run", "--new", "/", "--", "true"], CGROUP, &[])?;
        refused(&["run", "--new", "", "--", "true"], USAGE, &["--new"])?;
        refused(&["run", "--new", "..", "--", "true"], CGROUP, &[])?;
        let orphan = format!("{PREFIX}no-such/below");
        refused(&["run", "--new", &orphan, "--", "true"], CGROUP, &["no-such"])
    })
}

#[test]
fn wrong_numbers() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        // Only the number is wrong.
        let check = |more: &[&str], words: &[&str]| {
            refused(&[&["run", "--cgroup", cgroup.path()], more].concat(), USAGE, words)
        };
        check(&["--batch", "0"], &["--batch", "0", "1..=1024"])?;
        check(&["--batch", "5000"], &["--batch", "5000", "1..=1024"])?;
        check(&["--batch", "1025"], &["--batch"])?;
        check(&["--batch", "-1"], &["-1"])?;
        check(&["--batch", "many"], &["--batch", "many"])?;
        check(&["--limit", "12Q"], &["--limit", "12Q"])?;
        check(&["--limit", ""], &["--limit"])?;
        check(&["--limit", "99999999999999999999"], &["--limit"])?;
        check(&["--limit", "/a=12Q"], &["--limit", "12Q"])?;
        check(&["--seconds", "0"], &["--seconds"])?;
        check(&["--slots", "65"], &["--slots", "1..=64"])
    })
}

#[test]
fn wrong_usage_of_verbs() -> Result<()> {
    live(|| {
        refused(&["fly"], USAGE, &["fly"])?;
        refused(&["show", "--yaml"], USAGE, &["--yaml"])?;
        refused(&["drain", "--cpu", "x"], USAGE, &["--cpu"])?;
        refused(&["drain", "--repeat", "0"], USAGE, &["--repeat"])?;
        refused(&["stop", "now"], USAGE, &["now"])?;
        refused(&["run"], USAGE, &["--cgroup", "--new", "COMMAND"])
    })
}

#[test]
fn limits_of_others() -> Result<()> {
    live(|| {
        let (tracked, other) = (TestCgroup::new()?, TestCgroup::new()?);
        let limit = format!("{}=1M", other.path());
        refused(
            &["run", "--cgroup", tracked.path(), "--limit", &limit],
            CGROUP,
            &["--limit", other.path()],
        )?;
        let missing = format!("/{PREFIX}no-such=1M");
        refused(&["run", "--cgroup", tracked.path(), "--limit", &missing], CGROUP, &["no-such"])
    })
}

#[test]
fn nothing_runs() -> Result<()> {
    live(|| {
        for verb in [&["show"][..], &["show", "--json"], &["drain"], &["drain", "--cpu", "0"]] {
            refused(verb, NOT_RUNNING, &["no engine", "memstock run"])?;
        }
        refused(&["stop"], NOT_RUNNING, &["no engine"])
    })
}

#[test]
fn one_runs_already() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
        refused(&["run", "--cgroup", cgroup.path()], RUNNING, &["running", "memstock stop"])?;
        let new = format!("{PREFIX}second");
        refused(&["run", "--new", &new, "--", "true"], RUNNING, &["running"])?;
        // The first engine is not affected.
        ensure!(engine.process().ended()?.is_none(), "the first engine has ended");
        engine.show()?.cgroup(cgroup.path())?;

        let other = TestCgroup::new()?;
        refused(&["drain", "--cgroup", other.path()], CGROUP, &[other.path()])?;
        refused(&["drain", "--cgroup", "/no/such"], CGROUP, &["/no/such"])?;
        refused(&["drain", "--cpu", "9999"], OTHER, &["9999"])?;
        engine.stop().map(drop)
    })
}

#[test]
fn wrong_commands() -> Result<()> {
    live(|| {
        let new = format!("{PREFIX}command");
        let run = ["run", "--new", &new, "--"];
        let with = |command| [&run[..], &[command]].concat();
        refused(&with("memstock-no-such"), NOT_FOUND, &["memstock-no-such", "not found"])?;
        refused(&with("/no/such/file"), NOT_FOUND, &["/no/such/file"])?;
        refused(&with("/etc/passwd"), CANNOT_EXECUTE, &["/etc/passwd"])?;
        refused(&with("/etc"), CANNOT_EXECUTE, &["/etc"])?;
        // The same without `--new`.
        refused(&["run", "--", "memstock-no-such"], NOT_FOUND, &["memstock-no-such"])?;
        // And in an existing cgroup, which stays.
        let cgroup = TestCgroup::new()?;
        refused(&["run", "--cgroup", cgroup.path(), "--", "/etc"], CANNOT_EXECUTE, &["/etc"])?;
        ensure!(cgroup.dir().exists(), "somebody else's cgroup was removed");
        Ok(())
    })
}
