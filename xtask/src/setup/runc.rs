//! runc for the live tests of names: Debian's package, unpacked into the cache. runc needs no daemon, so the tests do
//! not touch a container runtime of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::unpack::{self, Needs};
use crate::exec::capture;
use crate::{cache, pins};

/// The variable that gives the tests the folder with the program.
pub const VAR: &str = "MEMSTOCK_RUNC";

/// The folder with the program; unpacks it if it is missing.
pub fn ensure() -> Result<PathBuf> {
    let home = cache::dir()?.join(pins::DEBIAN_RUNC);
    unpack::ensure(&[pins::DEBIAN_RUNC], Needs::Nothing, &home, answers)?;
    Ok(bin(&home))
}

fn bin(home: &Path) -> PathBuf {
    home.join("usr/sbin")
}

fn answers(home: &Path) -> bool {
    capture(Command::new(bin(home).join("runc")).arg("--version")).is_ok()
}
