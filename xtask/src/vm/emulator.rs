//! The programs that guests take from Debian: QEMU, if the machine has none, and a static shell. They are unpacked into
//! the cache, so nothing on the machine is installed or removed.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::exec::capture;
use crate::setup::unpack::{self, Needs};
use crate::{cache, pins};

/// Folders with the libraries of an unpacked program.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// QEMU, and how to start it.
pub struct Emulator {
    /// What it is.
    pub arch: Arch,
    program: PathBuf,
    /// `LD_LIBRARY_PATH` of an unpacked one.
    libraries: Option<OsString>,
}

impl Emulator {
    /// The machine's QEMU, or else Debian's, unpacked if it is not there yet.
    ///
    /// # Errors
    /// If there is neither.
    pub fn ensure(arch: Arch) -> Result<Self> {
        if let Ok(program) = which::which(qemu(arch)) {
            return Ok(Self { arch, program, libraries: None });
        }
        let package = pins::debian_qemu(arch);
        let home = cache::dir()?.join(package);
        let answers = |home: &Path| {
            Self::unpacked(arch, home)
                .is_ok_and(|qemu| capture(qemu.mortal().arg("--version")).is_ok())
        };
        unpack::ensure(&[package], Needs::Dependencies, &home, answers)
            .with_context(|| format!("no {}: install it, or see above", qemu(arch)))?;
        Self::unpacked(arch, &home)
    }

    fn unpacked(arch: Arch, home: &Path) -> Result<Self> {
        let program = home.join("usr/bin").join(qemu(arch));
        Ok(Self { arch, program, libraries: Some(libraries(home)?) })
    }

    /// A command that runs QEMU and is killed when we end, however we end.
    pub fn mortal(&self) -> Command {
        let mut cmd = Command::new("setpriv");
        cmd.args(["--pdeathsig", "KILL"]).arg(&self.program);
        if let Some(libraries) = &self.libraries {
            cmd.env("LD_LIBRARY_PATH", libraries);
        }
        cmd
    }
}

fn qemu(arch: Arch) -> String {
    format!("qemu-system-{}", arch.machine())
}

/// The path of a program of the machine. Also searches root's folders, which an ordinary user's `PATH` may lack.
pub fn program(name: &str) -> Option<PathBuf> {
    let found = which::which(name).or_else(|_| which::which_in(name, Some("/usr/sbin:/sbin"), "/"));
    found.ok()
}

/// The machine's program `name`, or that of a package, unpacked if it is not there yet.
///
/// # Errors
/// If there is neither.
pub fn tool(name: &str, package: &str) -> Result<Command> {
    if let Some(found) = program(name) {
        return Ok(Command::new(found));
    }
    let home = cache::dir()?.join(package);
    let find = |home: &Path| {
        let dirs = ["usr/bin", "bin", "usr/sbin", "sbin"].map(|dir| home.join(dir).join(name));
        dirs.into_iter().find(|file| file.exists())
    };
    unpack::ensure(&[package], Needs::Dependencies, &home, |home| find(home).is_some())
        .with_context(|| format!("no {name}: install {package}, or see above"))?;
    let mut cmd = Command::new(find(&home).context("what was unpacked is gone")?);
    cmd.env("LD_LIBRARY_PATH", libraries(&home)?);
    Ok(cmd)
}

/// `LD_LIBRARY_PATH` for programs unpacked into `home`.
fn libraries(home: &Path) -> Result<OsString> {
    env::join_paths(LIBRARIES.map(|dir| home.join(dir)))
        .with_context(|| format!("no path of libraries can hold {}", home.display()))
}

/// The shell of the guests, unpacked if it is not there yet.
///
/// # Errors
/// If the package cannot be downloaded.
pub fn busybox() -> Result<PathBuf> {
    let home = cache::dir()?.join(pins::DEBIAN_SHELL);
    unpack::ensure(&[pins::DEBIAN_SHELL], Needs::Nothing, &home, |home| shell(home).is_some())?;
    shell(&home).context("the cache's busybox is gone")
}

fn shell(home: &Path) -> Option<PathBuf> {
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| home.join(place));
    places.into_iter().find(|place| capture(Command::new(place).arg("true")).is_ok())
}

/// The folder with the programs of a guest of another architecture, unpacked if they are missing.
///
/// # Errors
/// The packages cannot be downloaded.
pub fn foreign(arch: Arch) -> Result<PathBuf> {
    let name = format!("guest-{}", arch.debian());
    let is_whole = |home: &Path| {
        ["bin/sh", "usr/bin/stress-ng"].iter().all(|program| home.join(program).exists())
    };
    unpack::foreign(
        pins::DEBIAN_FOREIGN,
        |suite| Needs::DependenciesOf(suite),
        arch,
        &name,
        is_whole,
    )
}
