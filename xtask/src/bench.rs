//! `cargo xtask bench NAME`: builds the workspace for release and runs the benchmark, or all of them.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Result, bail};

use crate::setup;
use crate::{build, exec};

/// The benchmarks of the `tests` package.
pub const NAMES: [&str; 8] =
    ["fault", "page", "table1", "limit", "scale", "read", "record", "rehearsal"];

/// Runs the benchmark `name`, or `all`, which goes on after a failure.
pub fn run(name: &str, args: &[OsString]) -> Result<()> {
    let names = match name {
        "all" => &NAMES[..],
        name => match NAMES.iter().position(|known| *known == name) {
            Some(n) => &NAMES[n..=n],
            None => bail!("there is no benchmark {name}: {}, all", NAMES.join(", ")),
        },
    };
    let bpf = setup::ensure()?;
    // The benchmark starts `memstock` and the workload from the release directory.
    build::workspace(&bpf, true)?;
    if let [name] = names {
        return exec::replace(bpf.apply(cargo(name).args(args))?);
    }
    let mut failed = Vec::new();
    for name in names {
        exec::say("Bench", name);
        if let Err(error) = exec::stream(bpf.apply(cargo(name).args(args))?) {
            exec::say("Bench", format_args!("{error:#}"));
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn cargo(name: &str) -> Command {
    exec::cargo(&["bench", "-p", "memstock-tests", "--bench", name, "--"])
}
