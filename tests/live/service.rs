//! memstock as a service: its messages to the service manager, which a socket simulates, and whether its unit grants
//! all capabilities it needs. `systemd.rs` tests with systemd itself.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::{Process, Program, memstock};
use memstock_tests::show::Show;
use memstock_tests::skip::skip;
use memstock_tests::{TestCgroup, binaries, leftovers, live};
use rustix::process::Signal;
use tempfile::TempDir;

/// The watchdog's timeout, in us. A sign of life is due after half of it.
const WATCHDOG_USEC: u64 = 200_000;
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/systemd/memstock.service");
const NOBODY: &str = "65534";

/// The service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: TempDir,
}

impl Manager {
    fn listen() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).context("binding a socket")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path, _dir: dir })
    }

    /// Starts `memstock run --quiet` with these arguments as a service.
    fn start(&self, args: &[&str]) -> Result<Process> {
        let mut command = Command::new(binaries::memstock()?);
        command.args(["run", "--quiet"]).args(args);
        command.env("NOTIFY_SOCKET", &self.path);
        command.env("WATCHDOG_USEC", WATCHDOG_USEC.to_string());
        Program::from(command).start()
    }

    /// The next message, if one has come.
    fn heard(&self) -> Result<Option<String>> {
        let mut message = [0; 1024];
        match self.socket.recv(&mut message) {
            Ok(length) => Ok(Some(String::from_utf8(message[..length].to_vec())?)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("reading what the service says"),
        }
    }

    /// Waits for a message with this line, ignoring others.
    fn hear(&self, line: &str) -> Result<String> {
        try_poll_until(SOON, line, || {
            let message = self.heard()?;
            Ok(message.filter(|message| message.lines().any(|said| said == line)))
        })
    }
}

fn show() -> Result<Show> {
    let show = memstock(["show", "--json"])?.finish(SOON)?;
    ensure!(show.code() == 0, "{show:?}");
    Show::parse(&show.stdout)
}

#[test]
fn it_is_ready_alive_and_stopping() -> Result<()> {
    live(|| {
        let (manager, cgroup) = (Manager::listen()?, TestCgroup::new()?);
        let below = cgroup.child("below")?;
        let mut service = manager.start(&["--cgroup", cgroup.path()])?;
        let ready = try_poll_until(SOON, "the first message", || manager.heard())?;
        ensure!(ready == "READY=1\nSTATUS=cgroups tracked: 2\n", "{ready:?}");
        // It is ready only when everything named is charged.
        show()?.cgroup(below.path())?;
        manager.hear("WATCHDOG=1")?;
        manager.hear("WATCHDOG=1")?;

        service.signal(Signal::TERM)?;
        manager.hear("STOPPING=1")?;
        let finished = service.wait(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        // With `--quiet` it prints events, but no tables.
        ensure!(finished.stdout.is_empty() && finished.stderr.is_empty(), "{finished:?}");
        ensure!(manager.heard()?.is_none(), "it speaks after its end");
        leftovers::find().and_then(|left| {
            let engine = left.iter().find(|left| !left.contains(cgroup.path()));
            ensure!(engine.is_none(), "left behind: {engine:?}");
            Ok(())
        })
    })
}

#[test]
fn a_daemon_that_hangs_gives_no_sign_of_life() -> Result<()> {
    live(|| {
        let (manager, cgroup) = (Manager::listen()?, TestCgroup::new()?);
        let service = manager.start(&["--cgroup", cgroup.path()])?;
        manager.hear("WATCHDOG=1")?;
        service.signal(Signal::STOP)?;
        let stat = format!("/proc/{}/stat", service.id());
        try_poll_until(SOON, "the daemon's standstill", || {
            // proc_pid_stat(5): the state follows the name in parentheses.
            let text = fs::read_to_string(&stat)?;
            Ok(text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')).then_some(()))
        })?;
        while manager.heard()?.is_some() {}
        // The length does not matter: a stopped daemon sends nothing.
        std::thread::sleep(std::time::Duration::from_micros(5 * WATCHDOG_USEC));
        ensure!(manager.heard()?.is_none(), "a daemon that is stopped speaks");
        service.signal(Signal::CONT)?;
        manager.hear("WATCHDOG=1")?;
        service.signal(Signal::TERM)?;
        manager.hear("STOPPING=1")?;
        let finished = service.finish(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        Ok(())
    })
}

/// COMMAND does not inherit the service manager's socket.
#[test]
fn command_does_not_speak_for_the_daemon() -> Result<()> {
    live(|| {
        let manager = Manager::listen()?;
        let script = "env | grep -c -e NOTIFY_SOCKET -e WATCHDOG";
        let finished = manager.start(&["--", "sh", "-c", script])?.finish(SOON)?;
        ensure!(finished.stdout == "0\n", "{finished:?}");
        Ok(())
    })
}

/// Without a listener, the daemon still does its work, and reports that once.
#[test]
fn a_manager_that_is_gone_is_no_error() -> Result<()> {
    live(|| {
        let manager = Manager::listen()?;
        fs::remove_file(&manager.path)?;
        let finished = manager.start(&["--", "sh", "-c", "sleep 1; exit 7"])?.finish(SOON)?;
        ensure!(finished.code() == 7, "{finished:?}");
        let told = finished.stderr.lines().filter(|line| line.contains("NOTIFY_SOCKET"));
        ensure!(told.count() == 1, "{finished:?}");
        Ok(())
    })
}

/// The values of a setting in all its lines of the unit.
fn setting(name: &str) -> Result<Vec<String>> {
    let unit = fs::read_to_string(UNIT).context(UNIT)?;
    let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let values: Vec<_> = values.flat_map(str::split_whitespace).map(str::to_owned).collect();
    ensure!(!values.is_empty(), "no {name}= in {UNIT}");
    Ok(values)
}

/// Runs a program in the cgroup as an unprivileged user.
fn as_nobody(cgroup: &TestCgroup, program: &str) -> Result<Process> {
    let script = format!("echo $$ > \"$0\" && exec setpriv --reuid=$1 --clear-groups {program}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(cgroup.dir().join("cgroup.procs")).arg(NOBODY);
    Program::from(command).start()
}

/// With only the unit's capabilities, the daemon does all its work: it adopts the memory of another user's task,
/// follows cgroups, reclaims, and kills at a limit.
#[test]
fn the_capabilities_of_the_unit_are_enough() -> Result<()> {
    live(|| {
        let manager = Manager::listen()?;
        let cgroup = TestCgroup::new()?;
        let _other = as_nobody(&cgroup, "sleep 600")?;
        let comm = || fs::read_to_string(cgroup.dir().join("cgroup.procs"));
        try_poll_until(SOON, "another user's task", || {
            let pid = comm()?.trim().to_owned();
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Ok((name == "sleep\n").then_some(()))
        })?;

        let capabilities: Vec<_> = setting("CapabilityBoundingSet")?
            .iter()
            .map(|name| name.to_lowercase().replace("cap_", "+"))
            .collect();
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set=-all,{}", capabilities.join(",")));
        command.args(["--inh-caps=-all", "--no-new-privs"]).arg(binaries::memstock()?);
        command.args(["run", "--quiet", "--cgroup", cgroup.path(), "--limit", "16M"]);
        command.env("NOTIFY_SOCKET", &manager.path);
        let mut service = Program::from(command).start()?;
        manager.hear("READY=1").with_context(|| service.stderr().unwrap_or_default())?;
        let adopted = show()?.cgroup(cgroup.path())?.memory.usage;
        ensure!(adopted > 0, "nothing of another user's task was adopted");

        let below = cgroup.child("below")?;
        try_poll_until(SOON, "a cgroup that was made", || {
            Ok(show()?.cgroup(below.path()).is_ok().then_some(()))
        })?;
        // Another user's memory, to be reclaimed by `MADV_PAGEOUT` before any task is killed.
        let workload = binaries::workload()?;
        let lazy = format!("{} grow --first 1000 --lazyfree", workload.display());
        let lazy = as_nobody(&below, &format!("sh -c 'sleep 600 | {lazy}'"))?;
        try_poll_until(SOON, "pages that were given back", || {
            Ok(lazy.stdout()?.contains("ready").then_some(()))
        })?;
        let mut hog = as_nobody(
            &below,
            "sh -c 'head -c 103809024 /dev/zero | tail -c 102760448 > /dev/null'",
        )?;
        let ended = hog.wait(SOON)?;
        ensure!(ended.code() == 128 + 9, "{ended:?}; {}", service.stderr()?);
        try_poll_until(SOON, "the events", || {
            let said = service.stderr()?;
            // Where the kernel's own controller has the cgroup, that comes first.
            let means = ["means=lazyfree", "means=memory-reclaim"];
            let is_back = means.iter().any(|means| said.contains(means));
            Ok((is_back && said.contains("event: oom-kill")).then_some(()))
        })
        .with_context(|| service.stderr().unwrap_or_default())?;
        service.signal(Signal::TERM)?;
        let finished = service.wait(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        // Nothing was refused.
        let warned = finished.stderr.lines().find(|line| !line.starts_with("event: "));
        ensure!(warned.is_none(), "{warned:?}");
        Ok(())
    })
}

/// systemd's own check of the unit, and its exposure score.
#[test]
fn systemd_accepts_the_unit() -> Result<()> {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        skip(&name(), "systemd-analyze is not installed (Debian package systemd)");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let unit = dir.path().join("memstock.service");
    // The unit's program must exist.
    let memstock = binaries::memstock()?.display().to_string();
    let text = fs::read_to_string(UNIT).context(UNIT)?;
    fs::write(&unit, text.replace("/usr/bin/memstock", &memstock))?;
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&unit);
    let verified = Program::from(verify).finish(SOON)?;
    ensure!(verified.code() == 0 && verified.stderr.is_empty(), "{verified:?}");
    // The threshold is in tenths; an unconfined service scores 10.0. Most of our score is due to running as root.
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold=35"]).arg(&unit);
    let judged = Program::from(security).finish(SOON)?;
    ensure!(judged.code() == 0, "{judged:?}");
    Ok(())
}
