//! What a build for another architecture needs: its standard library, and a C compiler to link with. Uses those of the
//! toolchain and the machine, or else unpacks Debian's into the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::rust::Compiler;
use super::unpack::{self, Needs};
use crate::arch::Arch;
use crate::exec::capture;
use crate::{cache, exec, pins};

/// How to cross-build.
pub struct Cross {
    arch: Arch,
    /// The toolchain of Debian's standard library, and the sysroot with the library; `None` if the workspace's toolchain has
    /// its own.
    std: Option<(String, PathBuf)>,
    /// Where the C compiler and its tools are unpacked; `None` if the machine has them.
    gcc: Option<PathBuf>,
}

impl Cross {
    /// Finds or unpacks what is needed.
    pub fn ensure(arch: Arch, bpf: &Compiler) -> Result<Self> {
        let std = if has_std(arch) { None } else { Some(debian_std(arch, bpf)?) };
        let gcc = if which::which(gnu(arch, "gcc")).is_ok() { None } else { Some(gcc(arch)?) };
        Ok(Self { arch, std, gcc })
    }

    /// The architecture to build for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Makes the cargo run by `cmd` build for the architecture.
    pub fn apply(&self, cmd: &mut Command) {
        let triple = self.arch.triple();
        let variable = triple.to_uppercase().replace('-', "_");
        cmd.env("CARGO_BUILD_TARGET", &triple);
        cmd.env(format!("CARGO_TARGET_{variable}_LINKER"), self.program("gcc"));
        let mut flags = Vec::new();
        if let Some((toolchain, sysroot)) = &self.std {
            cmd.env("RUSTUP_TOOLCHAIN", toolchain);
            flags.push(format!("--sysroot={}", sysroot.display()));
        }
        if let Some(root) = &self.gcc {
            cmd.env("LD_LIBRARY_PATH", libraries(root));
            // The linker script of the C library names its parts by their installed paths.
            flags.push(format!("-Clink-arg=--sysroot={}", root.display()));
        }
        cmd.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    }

    /// A GNU tool for the architecture's binaries.
    pub fn tool(&self, name: &str) -> Command {
        let mut cmd = Command::new(self.program(name));
        if let Some(root) = &self.gcc {
            cmd.env("LD_LIBRARY_PATH", libraries(root));
        }
        cmd
    }

    /// A command that emulates a program of the architecture, with the libraries of the C compiler.
    pub fn emulate(&self, program: &Path) -> Result<Command> {
        let name = format!("qemu-{}", self.arch.machine());
        let home = cache::dir()?.join(pins::DEBIAN_QEMU_USER);
        let emulator = |home: &Path| {
            let mut cmd = Command::new(bin(home).join(&name));
            cmd.env("LD_LIBRARY_PATH", libraries(home)).args(["-U", "LD_LIBRARY_PATH"]);
            cmd
        };
        let answers = |home: &Path| capture(emulator(home).arg("--version")).is_ok();
        unpack::ensure(&[pins::DEBIAN_QEMU_USER], Needs::Dependencies, &home, answers)?;
        let mut cmd = emulator(&home);
        let root = self.gcc.as_deref().unwrap_or(Path::new("/"));
        let libraries = root.join(format!("usr/{}-linux-gnu", self.arch.machine()));
        cmd.arg("-L").arg(libraries).arg(program);
        Ok(cmd)
    }

    fn program(&self, name: &str) -> PathBuf {
        let name = gnu(self.arch, name);
        self.gcc.as_ref().map_or_else(|| name.clone().into(), |root| bin(root).join(&name))
    }
}

fn gnu(arch: Arch, tool: &str) -> String {
    format!("{}-linux-gnu-{tool}", arch.machine())
}

fn bin(root: &Path) -> PathBuf {
    root.join("usr/bin")
}

fn libraries(root: &Path) -> PathBuf {
    root.join(format!("usr/lib/{}-linux-gnu", Arch::HOST.machine()))
}

/// Whether the workspace's toolchain has the standard library.
fn has_std(arch: Arch) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", &arch.triple()]).current_dir(exec::root());
    capture(&mut rustc).is_ok_and(|dir| Path::new(dir.trim_end()).exists())
}

/// Debian's standard library, which fits Debian's compiler only; without rustup that toolchain has no name.
fn debian_std(arch: Arch, bpf: &Compiler) -> Result<(String, PathBuf)> {
    let triple = arch.triple();
    if bpf.name.is_empty() {
        bail!("install rustup: without it Debian's standard library for {triple} cannot be used");
    }
    if bpf.name != pins::LINKED {
        bail!("there is no standard library for {triple}: run `rustup target add {triple}`");
    }
    let name = format!("{}-{}-{}", pins::DEBIAN_RUST_STD[0], arch.debian(), bpf.version);
    let is_whole = |home: &Path| home.join(format!("usr/lib/rustlib/{triple}/lib")).exists();
    let home = unpack::foreign(
        pins::DEBIAN_RUST_STD,
        |suite| Needs::NothingOf(suite),
        arch,
        &name,
        is_whole,
    )?;
    Ok((bpf.name.clone(), home.join("usr")))
}

fn gcc(arch: Arch) -> Result<PathBuf> {
    let packages = pins::debian_gcc(arch);
    let home = cache::dir()?.join(&packages[0]);
    let answers = |home: &Path| {
        let mut gcc = Command::new(bin(home).join(gnu(arch, "gcc")));
        capture(gcc.arg("--version")).is_ok()
    };
    let names: Vec<_> = packages.iter().map(String::as_str).collect();
    unpack::ensure(&names, Needs::Dependencies, &home, answers)
        .with_context(|| format!("no C compiler for {}", arch.debian()))?;
    Ok(home)
}
