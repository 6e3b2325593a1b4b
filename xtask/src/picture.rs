//! `cargo xtask picture`: makes the picture of `memstock top` for the README, from a real run.

use anyhow::Result;

use crate::setup::{self, apt};
use crate::{build, exec, pins};

/// The file of the picture.
const PICTURE: &str = "docs/top.svg";

/// Runs `cargo xtask picture`.
pub fn run() -> Result<()> {
    let bpf = setup::ensure()?;
    if apt::usable() {
        apt::install("the terminal of the picture", pins::DEBIAN_LIVE)?;
    }
    // The example starts `memstock` and the workload from the release directory.
    build::workspace(&bpf, true)?;
    let mut cmd =
        exec::cargo(&["run", "-p", "memstock-tests", "--release", "--example", "picture"]);
    cmd.arg("--").arg(exec::root().join(PICTURE));
    exec::replace(bpf.apply(&mut cmd)?)
}
