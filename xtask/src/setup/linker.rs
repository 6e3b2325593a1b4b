//! bpf-linker: finds one that works, or builds it once into the cache.
//!
//! It is installed beside its final place, and renamed once it has printed its version, so that an interrupted install
//! is never used.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustc_version::Version;

use super::{UNFINISHED, apt, unpacked};
use crate::exec::{capture, cargo, logged, say};
use crate::{cache, pins};

/// A bpf-linker that works.
pub struct Linker {
    /// Its directory.
    pub dir: PathBuf,
    version: Version,
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bpf-linker {}, in {}", self.version, self.dir.display())
    }
}

/// The linker to use, if there is one: the cache's, else a recent one on `PATH`.
pub fn find() -> Result<Option<Linker>> {
    if let Some(linker) = probe(&home()?.join("bin/bpf-linker")) {
        return Ok(Some(linker));
    }
    let oldest = Version::parse(pins::LINKER).context("the pinned version of bpf-linker")?;
    let on_path = which::which("bpf-linker").ok().and_then(|program| probe(&program));
    Ok(on_path.filter(|linker| linker.version >= oldest))
}

/// Builds the pinned linker on the system's LLVM; without that LLVM, gets a released linker by cargo-binstall; without
/// cargo-binstall, builds the linker on an LLVM unpacked into the cache.
pub fn install() -> Result<Linker> {
    if apt::usable()
        && let Err(error) = apt::install("LLVM for bpf-linker", pins::DEBIAN_LLVM)
    {
        say("Setup", format_args!("{error}"));
    }
    let cache = cache::dir()?;
    sweep(&cache);
    let place = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(&cache)
        .with_context(|| format!("cannot write to {}; MEMSTOCK_CACHE moves it", cache.display()))?;
    let target = cache.join("build");
    let log = cache::log("bpf-linker")?;
    let what = format!("bpf-linker {} (about two minutes)", pins::LINKER);
    let mut cmd = if let Some(prefix) = llvm_prefix() {
        build(&prefix, &target)?
    } else if which::which("cargo-binstall").is_ok() {
        // A released linker contains an LLVM that is not older than the pinned one.
        let mut cmd = cargo(&["binstall", "--no-confirm"]);
        cmd.arg(format!("bpf-linker@{}", pins::LINKER));
        cmd
    } else if apt::is_there() {
        build_on_unpacked(&unpacked::get_llvm().with_context(remedy)?, &target)?
    } else {
        bail!("{}", remedy());
    };
    // Outside the workspace, whose cargo configuration is not meant for the linker.
    cmd.arg("--root").arg(place.path()).current_dir(&cache);
    logged(&what, &mut cmd, &log)?;
    if probe(&place.path().join("bin/bpf-linker")).is_none() {
        bail!("the bpf-linker just installed does not run: is LLVM {} complete?", pins::LLVM);
    }
    let home = home()?;
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot replace {}", home.display()))?;
    }
    fs::rename(place.path(), &home).with_context(|| format!("cannot make {}", home.display()))?;
    // Half a gigabyte that is not needed again; a failure is harmless.
    let _ = fs::remove_dir_all(target);
    find()?.with_context(|| format!("bpf-linker vanished from {}", home.display()))
}

/// `cargo install` of the pinned version on the LLVM at `prefix`.
fn build(prefix: &Path, target: &Path) -> Result<Command> {
    let mut cmd = cargo(&["install", "bpf-linker", "--locked", "--no-default-features"]);
    cmd.args(["--version", pins::LINKER, "--features"]).arg(format!("llvm-{}", pins::LLVM));
    cmd.arg("--target-dir").arg(target);
    let set: OsString = env::var_os("LIBRARY_PATH").unwrap_or_default();
    let dirs = env::split_paths(&set).filter(|dir| !dir.as_os_str().is_empty());
    let dirs = env::join_paths(std::iter::once(prefix.join("lib")).chain(dirs))
        .with_context(|| format!("LIBRARY_PATH cannot hold {}", prefix.display()))?;
    cmd.env("LLVM_PREFIX", prefix).env("LIBRARY_PATH", dirs);
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cmd.env_remove(flags);
    }
    Ok(cmd)
}

/// The same on an LLVM in the cache, whose libraries are found only by this linker.
fn build_on_unpacked(prefix: &Path, target: &Path) -> Result<Command> {
    let mut cmd = build(prefix, target)?;
    let lib = prefix.parent().context("LLVM's prefix is a folder of libraries")?;
    let dirs = [prefix.join("lib"), lib.join("x86_64-linux-gnu")];
    // RPATH, unlike RUNPATH, also applies to the libraries of its libraries.
    let rpath = format!("-Clink-arg=-Wl,--disable-new-dtags,-rpath,{}", lib.display());
    cmd.env("LIBRARY_PATH", env::join_paths(dirs)?).env("LD_LIBRARY_PATH", lib);
    cmd.env("CARGO_ENCODED_RUSTFLAGS", rpath);
    Ok(cmd)
}

/// The folder of the pinned linker.
fn home() -> Result<PathBuf> {
    Ok(cache::dir()?.join(format!("bpf-linker-{}-llvm{}", pins::LINKER, pins::LLVM)))
}

/// Removes what interrupted installs left. We hold the lock, so no other install is running.
fn sweep(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The prefix of an installed LLVM of the pinned version, with its headers.
fn llvm_prefix() -> Option<PathBuf> {
    pins::LLVM_CONFIG.iter().find_map(|config| {
        let said = capture(Command::new(config).args(["--version", "--prefix"])).ok()?;
        let prefix = parse_llvm_config(&said)?;
        prefix.join("include/llvm-c").exists().then_some(prefix)
    })
}

/// The prefix in the output of `llvm-config --version --prefix`, if it is the pinned version.
fn parse_llvm_config(said: &str) -> Option<PathBuf> {
    let (version, prefix) = said.trim_end().split_once('\n')?;
    let major: u64 = version.split('.').next()?.parse().ok()?;
    (major == pins::LLVM).then(|| prefix.into())
}

fn probe(program: &Path) -> Option<Linker> {
    if !program.exists() {
        return None;
    }
    let said = capture(Command::new(program).arg("--version")).ok()?;
    Some(Linker { dir: program.parent()?.to_owned(), version: parse_version(&said)? })
}

/// Parses `bpf-linker 0.13.0`.
fn parse_version(said: &str) -> Option<Version> {
    Version::parse(said.trim().strip_prefix("bpf-linker ")?).ok()
}

fn remedy() -> String {
    let llvm = pins::DEBIAN_LLVM.join(" ");
    let advice = if which::which("apt-get").is_ok() {
        format!("run `sudo apt-get install {llvm}`")
    } else {
        "run `cargo install cargo-binstall`".to_owned()
    };
    format!("no bpf-linker and nothing to build one from: {advice}, then `cargo xtask setup` again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("bpf-linker 0.13.0\n"), Some(Version::new(0, 13, 0)));
        assert_eq!(parse_version("ld 2.40"), None);
    }

    #[test]
    fn only_the_pinned_llvm_is_built_on() {
        assert_eq!(parse_llvm_config("22.1.8\n/opt/llvm\n"), Some("/opt/llvm".into()));
        assert_eq!(parse_llvm_config("23.1.0\n/opt/llvm\n"), None);
        assert_eq!(parse_llvm_config("22.1.8\n"), None);
    }
}
