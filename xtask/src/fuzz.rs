//! `cargo xtask fuzz`: recordings that nobody's memstock has written, as many as are asked for, in release.

use anyhow::Result;

use crate::exec;
use crate::setup;

/// The verb.
pub fn run(inputs: u64, first: u64) -> Result<()> {
    let bpf = setup::ensure()?;
    let mut test = exec::cargo(&[
        "test",
        "-p",
        "memstock",
        "--release",
        "--test",
        "hostile",
        "--",
        "--nocapture",
    ]);
    test.env("MEMSTOCK_INPUTS", inputs.to_string()).env("MEMSTOCK_FIRST_INPUT", first.to_string());
    exec::replace(bpf.apply(test)?)
}
