//! Where the programs under test are.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The environment variable that names another folder with both programs.
pub const BIN_DIR: &str = "MEMSTOCK_BIN_DIR";

/// The `memstock` binary.
///
/// # Errors
/// When it has not been built: this package does not depend on it, so cargo does not build it.
pub fn memstock() -> Result<PathBuf> {
    find("memstock", "`cargo build --package memstock`, or `cargo xtask test`, which does it")
}

/// The `memstock-workload` binary.
///
/// # Errors
/// When it has not been built.
pub fn workload() -> Result<PathBuf> {
    find("memstock-workload", "`cargo build --package memstock-tests`")
}

/// The `xtask` binary: what `cargo xtask` starts.
///
/// # Errors
/// When it has not been built.
pub fn xtask() -> Result<PathBuf> {
    find("xtask", "`cargo build --package xtask`")
}

fn find(name: &str, remedy: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    ensure!(path.is_file(), "{} is missing: build it with {remedy}", path.display());
    Ok(path)
}

/// The profile folder of the target directory: programs are in it, tests in its `deps`.
fn folder() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os(BIN_DIR) {
        return Ok(dir.into());
    }
    let test = std::env::current_exe().context("where this test is")?;
    let folder = test.parent().and_then(|deps| deps.parent());
    Ok(folder.with_context(|| format!("{} is in no target folder", test.display()))?.into())
}
