//! `cargo xtask build`: the whole workspace, the BPF half by way of memstock's build script.

use anyhow::Result;

use crate::exec;
use crate::setup::{self, BpfToolchain};

/// The verb.
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
