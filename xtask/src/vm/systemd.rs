//! What a guest needs to boot a Debian with systemd in it: the archive of its root, and two versions of the package.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::package::{package, root};

/// The module of the live tests that needs it.
pub const MODULE: &str = "systemd";
/// The folder in the guest, where `tests/live/package.rs` looks for it.
const FOLDER: &str = "memstock/debian";

/// Adds it to the tree of a guest of this host's architecture.
///
/// # Errors
/// If there is no debootstrap or no server to make the root from; the guest can do without.
pub fn put(tree: &Path, binary: &Path) -> Result<()> {
    let archive = root::ensure(true)?;
    let folder = tree.join(FOLDER);
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    fs::copy(&archive, folder.join("root.tar"))
        .with_context(|| format!("cannot copy {}", archive.display()))?;
    for (revision, name) in [(1, "memstock.deb"), (2, "newer.deb")] {
        let made = package(Some(binary), Some(&folder), revision, Arch::HOST)?;
        fs::rename(made, folder.join(name))?;
    }
    Ok(())
}
