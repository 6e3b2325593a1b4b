//! The compiler of the BPF half: a nightly with `rust-src`, or Debian's.
//!
//! Decides which one to use and how to get one. Of bpf-linker it knows only the version of its LLVM.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustc_version::{Channel, Version, VersionMeta, version_meta_for};

use super::{TOOLCHAIN_VAR, apt, unpacked};
use crate::exec::{capture, logged, say};
use crate::{cache, pins};

/// A compiler that works.
pub struct Compiler {
    /// The rustup toolchain; empty for the `rustc` on `PATH` if there is no rustup.
    pub name: String,
    /// Its version.
    pub version: Version,
    channel: Channel,
    llvm: Option<u64>,
    sysroot: PathBuf,
}

impl Compiler {
    /// Whether unstable options need `RUSTC_BOOTSTRAP`.
    pub fn needs_bootstrap(&self) -> bool {
        !matches!(self.channel, Channel::Nightly | Channel::Dev)
    }

    /// Why this compiler cannot build the BPF half, whatever is installed with it.
    fn unfit(&self) -> Option<String> {
        let Version { major, minor, .. } = self.version;
        let (oldest_major, oldest_minor) = pins::OLDEST_RUST;
        if (major, minor) < pins::OLDEST_RUST {
            return Some(format!(
                "rustc {major}.{minor} is older than {oldest_major}.{oldest_minor}"
            ));
        }
        match self.llvm {
            Some(llvm) if llvm <= pins::LLVM => None,
            Some(llvm) => {
                Some(format!("its LLVM {llvm} is newer than bpf-linker's {}", pins::LLVM))
            }
            None => Some("its LLVM is unknown".to_owned()),
        }
    }

    /// Why this compiler cannot build the BPF half as it is.
    fn obstacle(&self) -> Option<String> {
        let core = self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if let Some(unfit) = self.unfit() {
            Some(unfit)
        } else if !core.exists() {
            Some("it has no source of `core` (rust-src)".to_owned())
        } else if !self.sysroot.join("bin/cargo").exists() {
            Some("it has no cargo".to_owned())
        } else {
            None
        }
    }

    fn usable(self) -> Option<Self> {
        self.obstacle().is_none().then_some(self)
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, channel: _, llvm, sysroot } = self;
        let name = if name.is_empty() { "the rustc on PATH" } else { name };
        write!(f, "{name}: rustc {version}, LLVM {}, ", llvm.unwrap_or_default())?;
        write!(f, "in {}", sysroot.display())
    }
}

/// The compiler to use, if there is one.
pub fn find() -> Result<Option<Compiler>> {
    if let Some(name) = env::var(TOOLCHAIN_VAR).ok().filter(|name| !name.is_empty()) {
        return chosen(&name).map(Some);
    }
    if !has_rustup() {
        return Ok(probe("").ok().and_then(Compiler::usable));
    }
    for name in [pins::NIGHTLY, pins::DATED_NIGHTLY, pins::LINKED] {
        if let Some(compiler) = probe(name).ok().and_then(Compiler::usable) {
            return Ok(Some(compiler));
        }
    }
    let sysroot = if debian().and_then(Compiler::usable).is_some() {
        PathBuf::from(pins::DEBIAN_SYSROOT)
    } else if let Some(unpacked) = unpacked::rust()? {
        unpacked
    } else {
        return Ok(None);
    };
    let mut link = Command::new("rustup");
    capture(link.args(["toolchain", "link", pins::LINKED]).arg(&sysroot))?;
    say("Setup", format_args!("{} is now rustup's `{}`", sysroot.display(), pins::LINKED));
    Ok(probe(pins::LINKED)?.usable())
}

/// The toolchain that the user chose: used as it is, or refused with the reason.
fn chosen(name: &str) -> Result<Compiler> {
    let compiler =
        probe(name).with_context(|| format!("{TOOLCHAIN_VAR}={name} does not work; unset it"))?;
    if let Some(obstacle) = compiler.obstacle() {
        bail!("{TOOLCHAIN_VAR}={name} cannot build the BPF half: {obstacle}; choose another");
    }
    Ok(compiler)
}

/// Gets a compiler: Debian's package if we can install it, else rustup's if it can download it, else Debian's, unpacked
/// into the cache.
pub fn install() -> Result<Compiler> {
    if apt::usable()
        && let Err(error) = by_apt()
    {
        say("Setup", format_args!("{error}"));
    }
    if let Some(compiler) = find()? {
        return Ok(compiler);
    }
    if has_rustup()
        && let Err(error) = by_rustup()
    {
        say("Setup", format_args!("{error}"));
    }
    if let Some(compiler) = find()? {
        return Ok(compiler);
    }
    // Only rustup can use a compiler that is in the cache.
    if has_rustup()
        && debian_offers()
        && let Err(error) = unpacked::get_rust()
    {
        say("Setup", format_args!("{error}"));
    }
    find()?.with_context(|| remedy("no compiler for the BPF half"))
}

/// Installs Debian's packages.
fn by_apt() -> Result<()> {
    if !debian_offers() {
        apt::update();
    }
    if !debian_offers() {
        bail!("Debian has no compiler that is new enough");
    }
    apt::install("the BPF compiler (Debian's)", pins::DEBIAN_RUST)
}

/// Adds `rust-src` to an installed nightly, or installs the dated one.
fn by_rustup() -> Result<()> {
    let fit = |name: &str| probe(name).is_ok_and(|compiler| compiler.unfit().is_none());
    let present = [pins::NIGHTLY, pins::DATED_NIGHTLY].into_iter().find(|name| fit(name));
    let mut cmd = Command::new("rustup");
    let what = match present {
        Some(name) => {
            cmd.args(["component", "add", "rust-src", "--toolchain", name]);
            format!("rust-src for {name} (rustup)")
        }
        None => {
            cmd.args(["toolchain", "install", pins::DATED_NIGHTLY, "--no-self-update"]);
            cmd.args(["--profile", "minimal", "--component", "rust-src,clippy"]);
            format!("{} (rustup)", pins::DATED_NIGHTLY)
        }
    };
    logged(&what, &mut cmd, &cache::log("rustup")?)
}

/// Whether the package lists have a compiler that is new enough.
fn debian_offers() -> bool {
    apt::offers(pins::DEBIAN_RUST[0], pins::OLDEST_RUST)
}

/// What the user can do, after set-up has tried everything that it can do itself.
fn remedy(problem: &str) -> String {
    let advice = if debian_offers() {
        format!("sudo apt-get install {}", pins::DEBIAN_RUST.join(" "))
    } else if has_rustup() {
        format!("rustup toolchain install {} -c rust-src -c clippy", pins::DATED_NIGHTLY)
    } else {
        return format!("{problem}: install rustup, then run `cargo xtask setup` again");
    };
    format!("{problem}: run `{advice}`, then `cargo xtask setup` again")
}

/// Whether toolchains have names, as only rustup's do.
pub fn has_rustup() -> bool {
    which::which("rustup").is_ok()
}

/// Finds out about the toolchain `name`.
fn probe(name: &str) -> Result<Compiler> {
    if name.is_empty() || !has_rustup() {
        return ask(name, &["rustc"]);
    }
    ask(name, &["rustup", "run", name, "rustc"])
}

/// Debian's installed compiler, if there is one.
fn debian() -> Option<Compiler> {
    let rustc = Path::new(pins::DEBIAN_SYSROOT).join("bin/rustc");
    ask(pins::LINKED, &[rustc.to_str()?]).ok()
}

fn ask(name: &str, rustc: &[&str]) -> Result<Compiler> {
    let run = |args: &[&str]| {
        let mut cmd = Command::new(rustc[0]);
        // Asking for a version must not start a download.
        capture(cmd.args(&rustc[1..]).args(args).env("RUSTUP_AUTO_INSTALL", "0"))
    };
    let VersionMeta { semver, channel, llvm_version, .. } =
        version_meta_for(&run(&["-vV"])?).with_context(|| format!("the version of `{name}`"))?;
    Ok(Compiler {
        name: name.to_owned(),
        version: semver,
        channel,
        llvm: llvm_version.map(|llvm| llvm.major),
        sysroot: run(&["--print", "sysroot"])?.trim_end().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(release: &str, llvm: &str) -> Compiler {
        let text = format!(
            "rustc {release} (0123456 2026-05-25)\nbinary: rustc\ncommit-hash: 0123456\n\
             commit-date: 2026-05-25\nhost: x86_64-unknown-linux-gnu\nrelease: {release}\n{llvm}"
        );
        let meta = version_meta_for(&text).unwrap();
        Compiler {
            name: String::new(),
            version: meta.semver,
            channel: meta.channel,
            llvm: meta.llvm_version.map(|llvm| llvm.major),
            sysroot: PathBuf::from("/nowhere"),
        }
    }

    #[test]
    fn llvm_not_newer_than_the_linkers_is_fit() {
        let nightly = compiler("1.97.0-nightly", "LLVM version: 22.1.4\n");
        assert_eq!(nightly.llvm, Some(22));
        assert_eq!(nightly.unfit(), None);
        assert!(!nightly.needs_bootstrap());
        assert_eq!(compiler("1.95.0", "LLVM version: 21.1\n").unfit(), None);
    }

    #[test]
    fn what_is_unfit_says_why() {
        let newer = compiler("1.99.0-nightly", "LLVM version: 23.1.0\n").unfit().unwrap();
        assert!(newer.contains("LLVM 23"), "{newer}");
        let older = compiler("1.63.0", "LLVM version: 14.0\n").unfit().unwrap();
        assert!(older.contains("1.63"), "{older}");
        assert!(compiler("1.96.0", "").unfit().is_some());
    }

    #[test]
    fn a_stable_compiler_needs_bootstrap_and_source() {
        let stable = compiler("1.96.0", "LLVM version: 22.1.8\n");
        assert!(stable.needs_bootstrap());
        assert!(stable.obstacle().unwrap().contains("rust-src"));
    }
}
