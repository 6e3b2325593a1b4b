//! `cargo xtask build`: builds the whole workspace; memstock's build script builds the BPF half.

use anyhow::Result;

use crate::arch::Arch;
use crate::exec;
use crate::setup::{self, BpfToolchain};

/// Runs `cargo xtask build`.
pub fn run(release: bool, target: Arch) -> Result<()> {
    workspace(&setup::ensure_for(target)?, release)
}

/// Builds the default members, or for another architecture those that run there.
pub fn workspace(bpf: &BpfToolchain, release: bool) -> Result<()> {
    let mut cmd = exec::cargo(&["build"]);
    if release {
        cmd.arg("--release");
    }
    if bpf.arch() != Arch::HOST {
        cmd.args(["--package", "memstock", "--package", "memstock-tests"]);
    }
    exec::stream(bpf.apply(&mut cmd)?)
}
