//! How a run ends (by COMMAND, a signal, a closed pipe, or by force), and what it then leaves.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use memstock::engine::pins::Pins;
use memstock_tests::cgroup::PREFIX;
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, poll_until, times, try_poll_until};
use memstock_tests::process::{Program, memstock};
use memstock_tests::skip::{in_guest, skip};
use memstock_tests::{Engine, Show, Task, TestCgroup, binaries, leftovers, live};
use rustix::process::Signal;

/// The arguments of `memstock run --new` with a shell as COMMAND.
fn run_shell(script: &str) -> [String; 7] {
    let name = format!("{PREFIX}new-{}", std::process::id());
    ["run", "--new", &name, "--", "sh", "-c", script].map(str::to_owned)
}

#[test]
fn the_exit_code_is_commands() -> Result<()> {
    live(|| {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 7", 7),
            ("exit 255", 255),
            ("kill -TERM $$", 128 + 15),
            ("kill -KILL $$", 128 + 9),
            // What COMMAND leaves running is killed with the cgroup.
            ("sleep 600 & exit 3", 3),
        ] {
            let finished = memstock(run_shell(script))?.finish(SOON)?;
            ensure!(finished.code() == code, "{script} is {code}: {finished:?}");
            leftovers::none().context(script)?;
        }
        // Of a parent that lets the kernel reap its children, memstock and COMMAND among them.
        let mut ignores = Command::new("sh");
        ignores.args(["-c", "trap '' CHLD; exec \"$@\"", "sh"]).arg(binaries::memstock()?);
        ignores.args(run_shell("exit 7"));
        let finished = Program::from(ignores).finish(SOON)?;
        ensure!(finished.code() == 7, "{finished:?}");
        leftovers::none()
    })
}

/// The demonstration of `cargo xtask run`.
#[test]
#[ignore = "long"]
fn the_demonstration_meets_its_limit() -> Result<()> {
    if in_guest() {
        skip(&name(), "the file has to be on a disk, and a guest has none");
        return Ok(());
    }
    live(|| {
        let demo = format!("{PREFIX}demo-{}", std::process::id());
        let (workload, seconds) = (binaries::workload()?, "7");
        let args = ["run", "--observe", "--limit", "96M", "--new", &demo, "--seconds", seconds];
        let args = args.map(OsString::from).into_iter();
        let finished = memstock(args.chain(["--".into(), workload.into(), "demo".into()]))?
            .finish(2 * SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        for part in ["/web", "/batch", "96.0MiB: reclaims (", "would have killed nobody"] {
            ensure!(finished.stderr.contains(part), "{part}: {finished:?}");
        }
        leftovers::none()
    })
}

#[test]
fn command_runs_in_the_cgroup_and_owns_the_output() -> Result<()> {
    live(|| {
        let show = binaries::memstock()?;
        // Two seconds are enough for a table, which must be on standard error.
        let script = format!("cat /proc/self/cgroup; sleep 2; {} show --json", show.display());
        let finished = memstock(run_shell(&script))?.finish(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        let path = format!("/{PREFIX}new-{}", std::process::id());
        let json = finished.stdout.find('{').context("no JSON")?;
        let (before, json) = finished.stdout.split_at(json);
        ensure!(before.lines().any(|line| line == format!("0::{path}")), "{finished:?}");
        let show = Show::parse(json)?;
        ensure!(show.cgroup(&path)?.faults() > 100, "COMMAND's faults: {show:#?}");
        ensure!(finished.stderr.contains(&path), "the table: {finished:?}");
        Ok(())
    })
}

#[test]
fn the_table_is_for_people_and_ends_in_time() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let args = ["run", "--cgroup", cgroup.path(), "--seconds", "2"];
        let finished = memstock(args)?.finish(SOON)?;
        ensure!(finished.code() == 0 && finished.stderr.is_empty(), "{finished:?}");
        // The documented columns; headings may be in capitals.
        let table = finished.stdout.to_lowercase();
        for word in
            ["cached cgroup", "stocked", "charged_pages", "from_stock_pages", "refills", "drains"]
                .into_iter()
                .chain([
                    "usage",
                    "needed",
                    "limit",
                    "watermark",
                    "failcnt",
                    "faults",
                    cgroup.path(),
                ])
        {
            ensure!(table.contains(word), "no {word} in the table: {finished:?}");
        }
        leftovers_of_engine()
    })
}

fn leftovers_of_engine() -> Result<()> {
    let left = leftovers::pins_and_lock();
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(())
}

#[test]
fn signals_leave_nothing() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        for signal in [Signal::INT, Signal::TERM] {
            let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
            engine.process().signal(signal)?;
            let finished = engine.process().wait(SOON)?;
            // A signal is the normal end of a run without COMMAND.
            ensure!(finished.code() == 0, "{signal:?}: {finished:?}");
            leftovers_of_engine().with_context(|| format!("{signal:?}"))?;
        }
        Ok(())
    })
}

/// The folder of a complete engine.
fn pins() -> String {
    Pins::on(Path::new(leftovers::PINS)).root().display().to_string()
}

/// A signal can end a run at any moment of its start. These moments can be seen from outside: started, locked, being
/// pinned, attached.
#[test]
#[ignore = "long"]
fn signals_during_the_start_leave_nothing() -> Result<()> {
    live(|| {
        let [unfinished, links] = ["", "/links"].map(|of| format!("{}-unfinished{of}", pins()));
        for moment in ["", leftovers::LOCK, &unfinished, &links, &pins()] {
            // Some last only milliseconds and may be missed.
            try_poll_until(SOON, moment, || {
                let mut run = memstock(run_shell("sleep 600"))?.start()?;
                let was_seen = is_seen(moment)?;
                run.signal(Signal::TERM)?;
                let finished = run.wait(SOON)?;
                let code = finished.code();
                // 143 if memstock did not yet catch signals, or from COMMAND; 0 if there was no COMMAND yet.
                ensure!(code == 143 || code == 0, "at {moment:?}: {finished:?}");
                leftovers::none().with_context(|| format!("at {moment:?}"))?;
                Ok(was_seen.then_some(()))
            })?;
        }
        Ok(())
    })
}

/// Busy-waits for a moment of a start; false if the start is over.
fn is_seen(moment: &str) -> Result<bool> {
    let end = Instant::now() + SOON * times();
    while Instant::now() < end {
        // The start may want this CPU, and its grace periods may wait for a task that never gives one away.
        std::thread::yield_now();
        if moment.is_empty() || Path::new(moment).exists() {
            return Ok(true);
        }
        if Path::new(&pins()).exists() {
            return Ok(false);
        }
    }
    anyhow::bail!("timed out waiting for {moment} or the end of the start")
}

#[test]
fn a_signal_ends_command_and_what_it_started() -> Result<()> {
    live(|| {
        let mut run = memstock(run_shell("sleep 600 & echo up; wait"))?.start()?;
        let up = || Ok((run.stdout()? == "up\n").then_some(()));
        try_poll_until(SOON, "COMMAND", up)?;
        run.signal(Signal::TERM)?;
        let finished = run.wait(SOON)?;
        ensure!(finished.code() == 143, "COMMAND ends by SIGTERM: {finished:?}");
        leftovers::none()
    })
}

#[test]
fn stop_ends_a_run_from_outside() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
        let stop = memstock(["stop"])?.finish(SOON)?;
        ensure!(stop.code() == 0 && stop.stderr.is_empty(), "{stop:?}");
        // Nothing is left when `stop` returns.
        leftovers_of_engine()?;
        ensure!(engine.process().wait(SOON)?.code() == 0, "the run itself");
        Ok(())
    })
}

/// A killed run cannot clean up: the kernel half goes on.
#[test]
fn a_killed_run_goes_on_charging_until_stop() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, Some(1))?;
        let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
        task.touch(10)?;
        engine.process().signal(Signal::KILL)?;
        engine.process().wait(SOON)?;
        task.touch(100)?;
        let show = engine.show()?;
        ensure!(show.cgroup(cgroup.path())?.faults() == 110, "charging has ended: {show:#?}");
        show.check()?;

        let stop = memstock(["stop"])?.finish(SOON)?;
        ensure!(stop.code() == 0 && stop.stderr.is_empty(), "{stop:?}");
        leftovers_of_engine()?;
        // Then a new engine can start.
        Engine::start(["--cgroup", cgroup.path()])?.stop().map(drop)
    })
}

/// The same with a cgroup that the killed run made, and COMMAND in it. Refused runs in between must not make `stop`
/// forget the cgroup.
#[test]
fn stop_removes_the_cgroup_of_a_killed_run() -> Result<()> {
    live(|| {
        for refused in [0, 1, 2] {
            let mut run = memstock(run_shell("echo up; exec sleep 600"))?.start()?;
            let up = || Ok((run.stdout()? == "up\n").then_some(()));
            try_poll_until(SOON, "COMMAND", up)?;
            run.signal(Signal::KILL)?;
            run.wait(SOON)?;
            for _ in 0..refused {
                let mut other = run_shell("true").to_vec();
                other.splice(1..1, ["--batch", "7"].map(str::to_owned));
                let next = memstock(other)?.finish(SOON)?;
                ensure!(next.code() == 123 && next.stderr.lines().count() == 1, "{next:?}");
            }
            let stop = memstock(["stop"])?.finish(SOON)?;
            ensure!(stop.code() == 0, "{stop:?}");
            leftovers::none().with_context(|| format!("after {refused} refused runs"))?;
        }
        Ok(())
    })
}

/// A pipe whose reader is gone before the first byte, like `| head -1` but deterministic.
fn closed_pipe() -> Result<Stdio> {
    let (reader, writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe()?;
    drop(reader);
    Ok(writer.into())
}

#[test]
fn a_closed_pipe_is_no_error() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        for args in [&["show"][..], &["show", "--json"], &["drain"], &["--help"]] {
            let mut command = Command::new(binaries::memstock()?);
            let output = command.args(args).stdout(closed_pipe()?).output()?;
            ensure!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
        }
        engine.stop()?;
        // A run whose table has no reader ends cleanly.
        let mut command = Command::new(binaries::memstock()?);
        command.args(["run", "--cgroup", cgroup.path(), "--seconds", "60"]);
        let mut run = command.stdout(closed_pipe()?).stderr(Stdio::piped()).spawn()?;
        let ended =
            poll_until(SOON, "the end of a run that nobody reads", || run.try_wait().transpose());
        if ended.is_err() {
            let _ = run.kill();
        }
        let output = run.wait_with_output()?;
        std::io::stderr().write_all(&output.stderr)?;
        ensure!(ended??.success() && output.stderr.is_empty(), "{output:?}");
        leftovers_of_engine()
    })
}
