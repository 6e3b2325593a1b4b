//! Prometheus and promtool for the live test of the metrics: Debian's package, unpacked into the cache, because an
//! installed one would start a service on the machine that runs the tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::unpack::{self, Needs};
use crate::exec::capture;
use crate::{cache, pins};

/// The variable that gives the tests the folder with both programs.
pub const VAR: &str = "MEMSTOCK_PROMETHEUS";

/// The folder with both programs; unpacks them if they are missing.
pub fn ensure() -> Result<PathBuf> {
    let home = cache::dir()?.join(pins::DEBIAN_PROMETHEUS);
    unpack::ensure(&[pins::DEBIAN_PROMETHEUS], Needs::Nothing, &home, answers)?;
    Ok(bin(&home))
}

fn bin(home: &Path) -> PathBuf {
    home.join("usr/bin")
}

fn answers(home: &Path) -> bool {
    ["prometheus", "promtool"]
        .iter()
        .all(|name| capture(Command::new(bin(home).join(name)).arg("--version")).is_ok())
}
