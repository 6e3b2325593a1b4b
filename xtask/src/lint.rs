//! `cargo xtask lint`: formatting, clippy on both halves, documentation, licences and sources of dependencies.
//!
//! Repository policy (length of files, module docs) is an ordinary test, `xtask/tests/tidy.rs`.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::exec::{capture, cargo, logged, root, say, stream, target_dir};
use crate::setup::{self, BpfToolchain, apt, deny};
use crate::{cache, pins};

const FORMATTING: &str = "formatting";

const BPF_CLIPPY: &[&str] = &[
    "clippy",
    "--package=memstock-ebpf",
    "--release",
    "--target=bpfel-unknown-none",
    "-Zbuild-std=core",
];

/// Runs every check, even if others fail.
pub fn run() -> Result<()> {
    let bpf = setup::ensure()?;
    tools(&bpf)?;

    let mut clippy = cargo(&["clippy", "--all-targets", "--", "-Dwarnings"]);
    bpf.apply(&mut clippy)?;
    let mut doc = cargo(&["doc", "--no-deps"]);
    bpf.apply(&mut doc)?.env("RUSTDOCFLAGS", "-Dwarnings");
    let mut checks = vec![
        (FORMATTING, cargo(&["fmt", "--all", "--check"])),
        ("clippy, host", clippy),
        ("clippy, BPF", bpf_clippy(&bpf)?),
        ("documentation", doc),
    ];
    match deny::ensure() {
        Ok(mut cmd) => {
            cmd.args(["--offline", "check", "licenses", "bans", "sources"]).current_dir(root());
            // cargo-deny checks the dependencies of every platform; a build fetches only those of this one.
            checks.push(("dependencies, fetched", cargo(&["fetch", "--locked"])));
            checks.push(("dependencies", cmd));
        }
        Err(error) => say("Lint", format_args!("dependencies are not checked: {error:#}")),
    }

    let mut broken = Vec::new();
    for (name, cmd) in &mut checks {
        say("Lint", &name);
        if let Err(error) = stream(cmd) {
            say("Lint", format_args!("{name}: {error:#}"));
            broken.push(*name);
        }
    }
    if !broken.is_empty() {
        let fmt = if broken.contains(&FORMATTING) { "; run `cargo fmt --all`" } else { "" };
        bail!("lint found something, shown above, in: {}{fmt}", broken.join("; "));
    }
    say("Lint", "all clean");
    Ok(())
}

/// Clippy with the flags of aya-build, in a target directory of its own.
fn bpf_clippy(bpf: &BpfToolchain) -> Result<Command> {
    let mut cmd = bpf.cargo(BPF_CLIPPY)?;
    cmd.arg("--target-dir").arg(target_dir().join("lint-bpf")).args(["--", "-Dwarnings"]);
    let arch = std::env::consts::ARCH;
    cmd.env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{arch}\""));
    Ok(cmd)
}

/// Installs rustfmt, and clippy for both halves, if they are missing.
fn tools(bpf: &BpfToolchain) -> Result<()> {
    let rustup = !bpf.toolchain.is_empty();
    if capture(&mut bpf.cargo(&["clippy", "--version"])?).is_err() {
        let debian = bpf.bootstrap && apt::usable();
        if debian {
            apt::install("clippy for the BPF half", pins::DEBIAN_CLIPPY)?;
        } else if rustup {
            let mut cmd = Command::new("rustup");
            cmd.args(["component", "add", "clippy", "--toolchain", &bpf.toolchain]);
            let what = format!("clippy for {} (rustup)", bpf.toolchain);
            logged(&what, &mut cmd, &cache::log("rustup")?)?;
        }
    }
    if !rustup && capture(&mut cargo(&["fmt", "--version"])).is_err() && apt::usable() {
        apt::install("rustfmt", pins::DEBIAN_RUSTFMT)?;
    }
    let missing = |tool: &'static str, rust: &str| {
        format!("no {tool} for {rust}: add it with rustup or apt-get, then lint again")
    };
    capture(&mut bpf.cargo(&["clippy", "--version"])?)
        .with_context(|| missing("clippy", "the BPF compiler"))?;
    for tool in ["clippy", "fmt"] {
        capture(&mut cargo(&[tool, "--version"])).with_context(|| missing(tool, "the host"))?;
    }
    Ok(())
}
