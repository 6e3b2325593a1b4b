//! Owns how COMMAND is started inside a cgroup, and how its end becomes an exit code; `running` owns it in between.
//! Must not make or remove cgroups, nor signal any process but the child.

mod running;

use self::running::Origin;
pub use self::running::{Ended, Running};

use crate::exit::{Failure, SIGNALED, printable};
use crate::host::notify;
use crate::host::protect::Protection;
use anyhow::{Context as _, Result};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus};

/// Marks an errno of joining the cgroup: a child can report only one number about a failure before its exec, and ENOENT
/// of the cgroup must not read as "command not found". It is above the kernel's largest errno, 4095.
const ENTERING: i32 = 1 << 16;

/// Starts `command` with `args`, inside the cgroup whose opened `cgroup.procs` is `procs`.
///
/// The child joins before its exec, so that every page of COMMAND itself is charged there. It inherits our standard
/// streams and environment, but neither our `protection` nor our service manager; std starts it with no signal blocked
/// and SIGPIPE at its default, and exec resets the handlers. It lives on if we die, as accounting does. Call it inside
/// a tokio runtime.
///
/// # Errors
///
/// [`Failure::NotFound`], [`Failure::CannotExecute`], [`Failure::Cgroup`] when it cannot join the cgroup, and
/// [`Failure::Other`] when the host cannot start a process at all.
pub fn start(
    command: &OsStr,
    args: &[OsString],
    procs: impl AsFd,
    protection: &Protection,
) -> Result<Running> {
    let procs = procs.as_fd().try_clone_to_owned().context("cannot keep cgroup.procs open")?;
    let protection = protection.clone();
    let mut child = Command::new(command);
    child.args(args);
    for variable in notify::VARIABLES {
        child.env_remove(variable);
    }
    // SAFETY: between fork and exec the closure makes system calls only, on descriptors that were opened
    // before or by itself; it does not allocate, lock or panic.
    unsafe {
        child.pre_exec(move || {
            protection.undo_in_child()?;
            match rustix::io::write(&procs, b"0") {
                Ok(_) => Ok(()),
                Err(errno) => Err(io::Error::from_raw_os_error(ENTERING | errno.raw_os_error())),
            }
        });
    }
    let origin = Origin::now().context("cannot read /proc/self/stat")?;
    let child = child.spawn().map_err(|error| not_started(command, &error))?;
    Running::take(child, origin)
}

fn not_started(command: &OsStr, error: &io::Error) -> anyhow::Error {
    let name = printable(&command.to_string_lossy());
    let Some(errno) = error.raw_os_error() else {
        return Failure::Other.error(format!("{name}: cannot be started: {error}"));
    };
    if errno & ENTERING != 0 {
        let reason = io::Error::from_raw_os_error(errno & !ENTERING);
        return Failure::Cgroup.error(format!("{name}: cannot be put into the cgroup: {reason}"));
    }
    match errno {
        // A script whose interpreter is missing gives ENOENT as well.
        libc::ENOENT if has_slash(command) && Path::new(command).exists() => Failure::NotFound
            .error(format!("{name}: its interpreter was not found: check its first line")),
        libc::ENOENT => Failure::NotFound.error(format!("{name}: command not found")),
        // No process could be created, which says nothing about COMMAND.
        libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE => {
            Failure::Other.error(format!("{name}: cannot be started: {error}"))
        }
        _ => Failure::CannotExecute.error(format!("{name}: cannot be executed: {error}")),
    }
}

fn has_slash(command: &OsStr) -> bool {
    command.as_encoded_bytes().contains(&b'/')
}

/// COMMAND's own exit code, or 128+N when signal N killed it.
pub fn exit_code_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        // The kernel keeps 8 bits of an exit code, and signals end at 64.
        (Some(code), _) => code.to_le_bytes()[0],
        (None, Some(signal)) => SIGNALED.saturating_add(signal.to_le_bytes()[0]),
        (None, None) => Failure::Other.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::exit_code;
    use crate::host::cgroup::CgroupMount;
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, Instant};

    fn args(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    /// Ignores what is written: for tests that need no cgroup.
    fn sink() -> File {
        File::options().write(true).open("/dev/null").unwrap()
    }

    /// Starts a child of a process without protection.
    fn start(command: &OsStr, args: &[OsString], procs: impl AsFd) -> Result<Running> {
        super::start(command, args, procs, &Protection::default())
    }

    /// Anybody may raise a score, so this needs no privilege to show that it is put back.
    #[tokio::test]
    async fn the_child_is_not_protected() {
        let script = args(&["-c", "grep -qx 345 /proc/self/oom_score_adj"]);
        let protection = Protection::after("345\n");
        let mut child = super::start(OsStr::new("sh"), &script, sink(), &protection).unwrap();
        assert!(child.wait().await.unwrap().status.success());
    }

    #[tokio::test]
    async fn the_command_runs_inside_the_cgroup() {
        if memstock_tests::live::has_no_cgroups() {
            return;
        }
        let mount = CgroupMount::find().unwrap();
        let cgroup = mount.create("memstock-unit-launch").unwrap();
        let script = args(&["-c", "grep -qx 0::/memstock-unit-launch /proc/self/cgroup"]);
        let procs = cgroup.cgroup().procs().unwrap();
        let mut child = start(OsStr::new("sh"), &script, &procs).unwrap();
        assert!(child.wait().await.unwrap().status.success());
        cgroup.remove().unwrap();
        // The cgroup is gone: the error is about it and not about the command.
        let error = start(OsStr::new("true"), &[], &procs).unwrap_err();
        assert_eq!(exit_code(&error), 122, "{error}");
        assert!(error.to_string().starts_with("true: cannot be put into the cgroup"), "{error}");
    }

    #[tokio::test]
    async fn the_child_starts_with_clean_signals() {
        let script = args(&["-c", "grep -q '^SigBlk:.0*$' /proc/self/status"]);
        let old = std::thread::spawn(|| {
            // SAFETY: the sets are local, and the mask is that of this short-lived thread.
            unsafe {
                let mut set = std::mem::zeroed();
                libc::sigfillset(&raw mut set);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            }
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut child = start(OsStr::new("sh"), &script, sink()).unwrap();
                // SIGCHLD stays deliverable to the other threads, so tokio sees the end.
                child.wait().await.unwrap()
            })
        });
        assert!(old.join().unwrap().status.success());
    }

    #[tokio::test]
    async fn failures_have_their_codes() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode| {
            let path = dir.path().join(name);
            // Not written by this process: a thread that forks meanwhile would keep it open, and so busy (ETXTBSY).
            let mut shell = std::process::Command::new("sh");
            let written = shell.args(["-c", "printf %s \"$1\" >\"$2\"", "sh", text]).arg(&path);
            assert!(written.status().unwrap().success());
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.into_os_string()
        };
        let code = |command: &OsStr| exit_code(&start(command, &[], sink()).unwrap_err());
        let missing = start(OsStr::new("memstock-no\nsuch"), &[], sink()).unwrap_err();
        assert_eq!(missing.to_string(), "memstock-no\\x0asuch: command not found");
        assert_eq!(exit_code(&missing), 127);
        assert_eq!(code(OsStr::new("")), 127);
        assert_eq!(code(OsStr::new("./no/such")), 127);
        assert_eq!(code(&file("plain", "#!/bin/sh\n", 0o644)), 126);
        assert_eq!(code(dir.path().as_os_str()), 126);
        assert_eq!(code(OsStr::new("/etc/passwd/x")), 126);
        assert_eq!(code(&file("script", "#!/no/such/shell\n", 0o755)), 127);
        // A bad ELF header is ENOEXEC, and execvp then asks sh, which refuses it with 126 or 127, too.
        let bad = file("elf", "\x7fELF", 0o755);
        let status = match start(&bad, &[], sink()) {
            Ok(mut child) => exit_code_of(child.wait().await.unwrap().status),
            Err(error) => exit_code(&error),
        };
        assert!(matches!(status, 126 | 127), "{status}");
    }

    #[tokio::test]
    async fn exit_codes_are_the_commands() {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 3", 3),
            ("exit 255", 255),
            ("kill -9 $$", 137),
            ("kill -15 $$", 143),
            ("kill -PIPE $$", 141),
        ] {
            let mut child = start(OsStr::new("sh"), &args(&["-c", script]), sink()).unwrap();
            assert_eq!(exit_code_of(child.wait().await.unwrap().status), code, "{script}");
        }
    }

    #[tokio::test]
    async fn terminate_asks_first_and_then_insists() {
        let mut polite = start(OsStr::new("sleep"), &args(&["60"]), sink()).unwrap();
        let ended = polite.terminate(Duration::from_secs(10)).await.unwrap();
        assert_eq!(exit_code_of(ended.status), 143);
        // Once reaped, its status is given again.
        let again = polite.terminate(Duration::ZERO).await.unwrap();
        assert_eq!(again, ended);

        let script = args(&["-c", "trap '' TERM; exec sleep 60"]);
        let mut deaf = start(OsStr::new("sh"), &script, sink()).unwrap();
        let comm = format!("/proc/{}/comm", deaf.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read_to_string(&comm).unwrap() != "sleep\n" {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ended = deaf.terminate(Duration::from_millis(50)).await.unwrap();
        assert_eq!(exit_code_of(ended.status), 137);
    }

    /// Not the sum over all children, which would hide that the second child is smaller than the first.
    #[tokio::test]
    async fn what_a_child_used_is_its_own() {
        let mut used = Vec::new();
        for script in ["x=$(head -c 120000000 /dev/zero | tr '\\0' x); exit 4", ":"] {
            let mut child = start(OsStr::new("sh"), &args(&["-c", script]), sink()).unwrap();
            used.push(child.wait().await.unwrap());
        }
        let [large, small] = used[..] else { panic!("{used:?}") };
        assert_eq!((large.status.code(), small.status.code()), (Some(4), Some(0)));
        // A peak below our own resident set is not reported, and other tests in this process may raise ours. SAFETY:
        // all bits of it may be 0, and it is written to.
        let own = unsafe {
            let mut own: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &raw mut own);
            own.ru_maxrss.cast_unsigned() * 1024
        };
        let is_lost = own > 120_000_000;
        assert!(large.max_rss.map_or(is_lost, |bytes| bytes > 120_000_000), "{used:?}, {own}");
        assert!(small.max_rss.is_none_or(|bytes| bytes < 120_000_000), "{used:?}");
        assert!(large.user + large.system > small.user + small.system, "{used:?}");
        assert!(large.wall > Duration::ZERO, "{used:?}");
    }
}
