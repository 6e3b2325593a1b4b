//! `cargo xtask fuzz`: tests memstock with many damaged and hostile recordings.

use anyhow::Result;

use crate::exec;
use crate::setup;

/// Tests `inputs` recordings, beginning with the one numbered `first`.
pub fn run(inputs: u64, first: u64) -> Result<()> {
    let bpf = setup::ensure()?;
    let mut test =
        exec::cargo(&["test", "-p", "memstock", "--profile", "fuzz", "--test", "hostile"]);
    test.args(["--", "--nocapture"]);
    test.env("MEMSTOCK_INPUTS", inputs.to_string()).env("MEMSTOCK_FIRST_INPUT", first.to_string());
    exec::replace(bpf.apply(&mut test)?)
}
