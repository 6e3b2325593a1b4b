//! Hosts that lack something, simulated by a user or a mount namespace without it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use memstock_tests::poll::SOON;
use memstock_tests::process::{Finished, Program};
use memstock_tests::{Show, TestCgroup, binaries, live};

const PERMISSION: i32 = 120;
const HOST: i32 = 121;
const NOBODY: u32 = 65534;

fn one_line(finished: &Finished, code: i32, words: &[&str]) -> Result<()> {
    let Finished { stdout, stderr, .. } = finished;
    ensure!(finished.code() == code && stdout.is_empty(), "{code} expected: {finished:?}");
    ensure!(stderr.lines().count() == 1, "not one line: {finished:?}");
    for word in words {
        ensure!(stderr.contains(word), "no {word:?} in the message: {finished:?}");
    }
    Ok(())
}

#[test]
fn not_root() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        // The build folder may be closed to other users.
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let copy = dir.path().join("memstock");
        fs::copy(binaries::memstock()?, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        let run = ["run", "--cgroup", cgroup.path()];
        for args in [&run[..], &["run", "--", "true"], &["show"], &["drain"], &["stop"]] {
            let mut command = Command::new(&copy);
            command.args(args).current_dir("/").uid(NOBODY).gid(NOBODY);
            let finished = Program::from(command).finish(SOON)?;
            one_line(&finished, PERMISSION, &["root"]).with_context(|| format!("{args:?}"))?;
        }
        // Help needs no privilege.
        let mut command = Command::new(&copy);
        command.arg("--help").current_dir("/").uid(NOBODY).gid(NOBODY);
        let help = Program::from(command).finish(SOON)?;
        ensure!(help.code() == 0 && help.stdout.contains("run"), "{help:?}");
        Ok(())
    })
}

#[test]
fn root_of_a_user_namespace_only() -> Result<()> {
    live(|| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]).arg(binaries::memstock()?);
        command.args(["run", "--", "true"]);
        one_line(&Program::from(command).finish(SOON)?, PERMISSION, &["namespace"])
    })
}

/// As in a container: process ids there differ from those that the kernel half sees.
#[test]
fn a_pid_namespace_of_its_own() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let memstock = binaries::memstock()?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]).arg(&memstock);
        command.args(["run", "--cgroup", cgroup.path(), "--"]).arg(&memstock);
        command.args(["show", "--json"]);
        worked(&Program::from(command).finish(SOON)?, &cgroup)
    })
}

/// In a mount namespace of its own, runs the shell script `prepare`, then `memstock run` with a COMMAND of
/// `memstock show --json`, then `after`, whose status counts if all went well.
fn in_namespace(cgroup: &TestCgroup, prepare: &str, after: &str) -> Result<Finished> {
    let script = format!(
        r#"set -e
        {prepare}
        "$MEMSTOCK" run --cgroup "$CGROUP" -- "$MEMSTOCK" show --json
        {after}"#
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    command.env("MEMSTOCK", binaries::memstock()?).env("CGROUP", cgroup.path());
    Program::from(command).finish(SOON)
}

/// Checks that it ran and charged COMMAND.
fn worked(finished: &Finished, cgroup: &TestCgroup) -> Result<()> {
    ensure!(finished.code() == 0, "{finished:?}");
    let show = Show::parse(&finished.stdout)?;
    ensure!(show.cgroup(cgroup.path())?.faults() > 0, "{show:#?}");
    Ok(())
}

#[test]
fn no_bpffs() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let finished = in_namespace(
            &cgroup,
            "while umount -l /sys/fs/bpf 2> /dev/null; do :; done",
            // It unmounts what it has mounted.
            "! grep ' /sys/fs/bpf ' /proc/self/mountinfo",
        )?;
        worked(&finished, &cgroup)
    })
}

/// A run that mounts bpffs and is killed leaves it behind; `memstock stop` unmounts it.
#[test]
fn bpffs_of_a_killed_run() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let finished = in_namespace(
            &cgroup,
            "while umount -l /sys/fs/bpf 2> /dev/null; do :; done
            \"$MEMSTOCK\" run --cgroup \"$CGROUP\" > /dev/null 2>&1 & killed=$!
            until \"$MEMSTOCK\" show > /dev/null 2>&1; do kill -0 $killed; done
            kill -KILL $killed
            grep -q ' /sys/fs/bpf ' /proc/self/mountinfo
            \"$MEMSTOCK\" stop
            ! grep ' /sys/fs/bpf ' /proc/self/mountinfo",
            "",
        )?;
        worked(&finished, &cgroup)
    })
}

#[test]
fn bpffs_is_there_already() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let finished = in_namespace(
            &cgroup,
            "mount -t bpf bpf /sys/fs/bpf",
            // What it has not mounted stays mounted, and empty.
            "grep -q ' /sys/fs/bpf ' /proc/self/mountinfo; ! ls -d /sys/fs/bpf/memstock*",
        )?;
        worked(&finished, &cgroup)
    })
}

#[test]
fn no_tracefs() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let finished = in_namespace(
            &cgroup,
            "for dir in /sys/kernel/tracing /sys/kernel/debug/tracing /sys/kernel/debug; do
                while umount -l $dir 2> /dev/null; do :; done
            done",
            "! grep -e ' - tracefs ' /proc/self/mountinfo",
        )?;
        worked(&finished, &cgroup)
    })
}

/// Without BTF, the size of `struct page` and the flags of charged allocations are unknown.
#[test]
fn no_btf() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let empty = tempfile::tempdir()?;
        let prepare = format!("mount --bind {} /sys/kernel/btf", empty.path().display());
        let finished = in_namespace(&cgroup, &prepare, ":")?;
        one_line(&finished, HOST, &["BTF"])
    })
}

#[test]
fn no_cgroup_v2() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let finished = in_namespace(
            &cgroup,
            "awk '/ - cgroup2 / { print $5 }' /proc/self/mountinfo | while read -r dir; do
                umount -l \"$dir\"
            done",
            ":",
        )?;
        one_line(&finished, HOST, &["cgroup v2"])
    })
}
