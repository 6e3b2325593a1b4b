//! Where the kernel refuses BPF: what tests and xtask report. Needs no BPF, and drops capabilities if there are any.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use memstock_tests::live::name;
use memstock_tests::poll::SOON;
use memstock_tests::process::{Finished, Program};
use memstock_tests::skip::{SKIPS, in_guest, skip};
use memstock_tests::{binaries, live, refusal};

/// Runs `program` without the capabilities; `None` if they cannot be dropped.
fn without(program: &Path, args: &[&str], skips: &Path) -> Result<Option<Finished>> {
    let taken = "-bpf,-perfmon,-sys_admin";
    let mut command = if refusal().is_some() {
        Command::new(program)
    } else if Command::new("setpriv").arg("--version").output().is_ok() {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", taken, "--inh-caps", taken]).arg(program);
        command
    } else {
        skip(&name(), "setpriv is not installed (Debian package util-linux)");
        return Ok(None);
    };
    command.args(args).env(SKIPS, skips);
    Program::from(command).finish(SOON).map(Some)
}

fn is_a_reason(line: &str) -> bool {
    line.contains("the kernel refuses") && line.contains("os error")
}

#[test]
fn one_line_says_what_is_refused() -> Result<()> {
    if in_guest() {
        skip(&name(), "needs cargo xtask, which a guest does not have");
        return Ok(());
    }
    let skips = tempfile::NamedTempFile::new()?;
    let Some(said) = without(&binaries::xtask()?, &["refusal"], skips.path())? else {
        return Ok(());
    };
    ensure!(said.code() == 0 && said.stdout.lines().count() == 1, "{said:?}");
    ensure!(is_a_reason(&said.stdout) && said.stderr.is_empty(), "{said:?}");
    Ok(())
}

/// Needs what every live test needs; [`a_live_test_is_skipped`] starts it.
#[test]
fn alone_on_the_host() -> Result<()> {
    live(|| Ok(()))
}

#[test]
fn a_live_test_is_skipped() -> Result<()> {
    let skips = tempfile::NamedTempFile::new()?;
    let test = std::env::current_exe().context("where this test is")?;
    let args = ["--exact", "refusal::alone_on_the_host"];
    let Some(said) = without(&test, &args, skips.path())? else { return Ok(()) };
    ensure!(said.code() == 0 && said.stdout.contains("1 passed"), "{said:?}");
    let noted = fs::read_to_string(skips.path())?;
    let reason =
        noted.strip_prefix("refusal::alone_on_the_host: ").with_context(|| noted.clone())?;
    ensure!(noted.lines().count() == 1 && is_a_reason(reason), "{noted}");
    Ok(())
}
