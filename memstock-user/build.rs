//! Builds the kernel half for the BPF target, to be embedded in the `memstock` binary.
//!
//! `cargo xtask` says which toolchain to use; a plain `cargo build` takes rustup's nightly.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya_build::{Package, Toolchain, build_ebpf};

/// rustup name of the toolchain that compiles for BPF.
const TOOLCHAIN: &str = "MEMSTOCK_BPF_TOOLCHAIN";
/// `1` when that toolchain is a stable compiler, which needs leave to use unstable features.
const BOOTSTRAP: &str = "MEMSTOCK_BPF_BOOTSTRAP";
/// Instruction set v3 for the BPF build. `aya-build` owns the rustflags, so the flag goes in by the
/// profile, and out again for what the BPF build compiles for this host.
const TARGET_CPU: [(&str, &str); 3] = [
    ("CARGO_UNSTABLE_PROFILE_RUSTFLAGS", "true"),
    ("CARGO_PROFILE_RELEASE_RUSTFLAGS", "-Ctarget-cpu=v3"),
    ("CARGO_PROFILE_RELEASE_BUILD_OVERRIDE_RUSTFLAGS", ""),
];

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo:rerun-if-env-changed={BOOTSTRAP}");
    let toolchain = env::var(TOOLCHAIN).ok().filter(|name| !name.is_empty());
    for (name, value) in TARGET_CPU {
        // SAFETY: a build script has one thread at this point.
        unsafe { env::set_var(name, value) };
    }
    if env::var(BOOTSTRAP).is_ok_and(|value| value == "1") {
        // SAFETY: as above.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    // Its progress would come as warnings of this script's.
    // SAFETY: as above.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
    let package =
        Package { name: "memstock-ebpf", root_dir: "../memstock-ebpf", ..Package::default() };
    build_ebpf([package], toolchain.as_deref().map_or(Toolchain::Nightly, Toolchain::Custom))
        .context("cannot build the BPF object; `cargo xtask build` sets up what it needs")?;
    println!("cargo:rustc-env=MEMSTOCK_BPF_RUSTC={}", compiler(toolchain.as_deref())?);
    Ok(())
}

/// The compiler of the BPF object, as `rustc --version` says it: instruction counts depend on it.
fn compiler(toolchain: Option<&str>) -> Result<String> {
    let with_rustup = Command::new("rustup")
        .args(["run", toolchain.unwrap_or("nightly"), "rustc", "--version"])
        .output();
    let output = match with_rustup {
        Ok(output) => output,
        Err(_) => Command::new("rustc").arg("--version").output().context("cannot run rustc")?,
    };
    ensure!(output.status.success(), "rustc --version failed: {output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
