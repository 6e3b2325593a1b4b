//! `cargo xtask bench NAME`: builds the workspace for release and becomes the benchmark.

use std::ffi::OsString;

use anyhow::Result;

use crate::{build, exec, setup};

/// The verb.
pub fn run(name: &str, args: &[OsString]) -> Result<()> {
    let bpf = setup::ensure()?;
    // The benchmark starts `memstock` and the workload from the release directory.
    build::workspace(&bpf, true)?;
    let mut cmd = exec::cargo(&["bench", "-p", "memstock-tests", "--bench", name, "--"]);
    cmd.args(args);
    exec::replace(bpf.apply(&mut cmd)?)
}
