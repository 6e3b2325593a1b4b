//! `cargo xtask build`: builds the whole workspace; memstock's build script builds the BPF half.

use anyhow::Result;

use crate::exec;
use crate::setup::{self, BpfToolchain};

/// Runs `cargo xtask build`.
pub fn run(release: bool) -> Result<()> {
    workspace(&setup::ensure()?, release)
}

/// Builds the default members.
pub fn workspace(bpf: &BpfToolchain, release: bool) -> Result<()> {
    let mut cmd = exec::cargo(&["build"]);
    if release {
        cmd.arg("--release");
    }
    exec::stream(bpf.apply(&mut cmd)?)
}
