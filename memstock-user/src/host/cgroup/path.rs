//! Paths of cgroups, as given and as shown.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::exit::{Failure, is_plain, printable};

/// `path` reduced to its names.
///
/// # Errors
/// [`Failure::Cgroup`] when it contains "..".
pub fn names(path: &Path) -> Result<PathBuf> {
    let mut names = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Failure::Cgroup.error(format!(
                    "{}: \"..\" is not allowed in the path of a cgroup: name it from the root",
                    display(path)
                )));
            }
        }
    }
    Ok(names)
}

/// A path for display: bytes that are not UTF-8, and characters that could disturb a terminal, are escaped as `\xNN`.
pub fn display(path: impl AsRef<OsStr>) -> String {
    if let Some(text) = path.as_ref().to_str() {
        return printable(text);
    }
    let mut out = String::new();
    for chunk in path.as_ref().as_bytes().utf8_chunks() {
        out.push_str(&printable(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// The bytes of a path in hexadecimal, if [`display`] escapes any: the escaped form can be the real name of another
/// cgroup.
pub fn hex_unless_plain(path: impl AsRef<OsStr>) -> Option<String> {
    let bytes = path.as_ref().as_bytes();
    (!is_plain(bytes) && display(&path).as_bytes() != bytes)
        .then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
