//! Debian's compiler and LLVM for users who may not install packages: unpacked into the cache with their dependencies.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::unpack::{self, Needs};
use crate::{cache, pins};

/// Folders in which packages have most of their libraries.
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// The sysroot of the unpacked compiler, if it is there.
pub fn rust() -> Result<Option<PathBuf>> {
    let usr = cache::dir()?.join("debian-rust/usr");
    Ok(is_sysroot(&usr).then_some(usr))
}

/// Unpacks the compiler. The caller holds the cache's lock.
pub fn get_rust() -> Result<()> {
    let packages = [pins::DEBIAN_RUST, pins::DEBIAN_RUST_STD].concat();
    get("debian-rust", &packages, |home| is_sysroot(&home.join("usr")))
}

fn is_sysroot(usr: &Path) -> bool {
    ["bin/rustc", "bin/cargo", "lib/rustlib/src/rust/library"]
        .iter()
        .all(|path| usr.join(path).exists())
}

/// The prefix of LLVM; unpacks it if it is missing. The caller holds the cache's lock.
pub fn get_llvm() -> Result<PathBuf> {
    let prefix = |home: &Path| home.join(format!("usr/lib/llvm-{}", pins::LLVM));
    get("debian-llvm", pins::DEBIAN_LLVM, |home| prefix(home).join("include/llvm-c").exists())?;
    Ok(prefix(&cache::dir()?.join("debian-llvm")))
}

fn get(name: &str, packages: &[&str], is_whole: impl Fn(&Path) -> bool) -> Result<()> {
    let home = cache::dir()?.join(name);
    if !is_whole(&home) {
        unpack::unpack(packages, Needs::Dependencies, &home, is_whole)?;
    }
    gather(&home).with_context(|| format!("the libraries in {}", home.display()))
}

/// Links all libraries into `usr/lib`, where rustup makes a toolchain look for them, and the RPATH bpf-linker.
fn gather(home: &Path) -> Result<()> {
    let all = home.join("usr/lib");
    for dir in LIBRARIES.map(|dir| home.join(dir)) {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let file = entry?.path();
            let name = file.file_name().context("a library without a name")?;
            let link = all.join(name);
            if name.to_string_lossy().contains(".so") && link.symlink_metadata().is_err() {
                symlink(&file, link)?;
            }
        }
    }
    Ok(())
}
