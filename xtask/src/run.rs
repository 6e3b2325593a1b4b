//! `cargo xtask run`: builds memstock and becomes it, so that Ctrl-C and the exit code are its own.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::{build, exec, setup};

/// The verb.
pub fn run(args: &[OsString]) -> Result<()> {
    build::workspace(&setup::ensure()?, true)?;
    let release = exec::target_dir().join("release");
    let memstock = release.join("memstock");
    // Without root or sudo memstock itself says what it needs.
    let root = rustix::process::geteuid().is_root();
    let mut cmd = if root || which::which("sudo").is_err() {
        Command::new(memstock)
    } else {
        let mut cmd = Command::new("sudo");
        cmd.arg(memstock);
        cmd
    };
    cmd.arg("run");
    if args.is_empty() {
        cmd.args(["--new", "memstock-demo", "--seconds", "10", "--"]);
        cmd.arg(release.join("memstock-workload")).args(["--cpus", "all"]);
    } else {
        cmd.args(args);
    }
    exec::replace(&mut cmd)
}
