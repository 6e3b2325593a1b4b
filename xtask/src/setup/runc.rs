//! runc, for the live tests of names: Debian's package, in the cache. It needs no daemon, so what runs containers on the
//! machine, if anything does, is not touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::unpack::{self, Needs};
use crate::exec::capture;
use crate::{cache, pins};

/// Names the folder with the program to the tests.
pub const VAR: &str = "MEMSTOCK_RUNC";

/// The folder with the program, unpacked if it is not there yet.
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
