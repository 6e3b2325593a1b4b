//! `cargo xtask setup`: finds or installs the toolchain of the BPF half.
//!
//! Finding takes a fraction of a second and changes at most one link in rustup. Installing holds the cache's lock.
//! `pins` has the versions and names to look for.

pub mod apt;
mod cross;
pub mod deny;
mod linker;
pub mod prometheus;
pub mod runc;
mod rust;
pub mod suite;
pub mod unpack;
mod unpacked;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use self::cross::Cross;
use self::linker::Linker;
use self::rust::Compiler;
use crate::arch::Arch;
use crate::cache;
use crate::exec::{self, say};

/// Prefix of the folders of unfinished installs.
const UNFINISHED: &str = "unfinished-";
/// Tells `memstock-user/build.rs` the toolchain; if the user sets it, xtask does not search.
pub const TOOLCHAIN_VAR: &str = "MEMSTOCK_BPF_TOOLCHAIN";
/// Tells `memstock-user/build.rs` that the compiler is not a nightly.
pub const BOOTSTRAP_VAR: &str = "MEMSTOCK_BPF_BOOTSTRAP";

/// What builds the BPF half; for another architecture, the other half as well.
pub struct BpfToolchain {
    /// The rustup toolchain; empty if there is no rustup.
    pub toolchain: String,
    /// The directory of bpf-linker.
    pub linker_dir: PathBuf,
    /// Whether the compiler needs `RUSTC_BOOTSTRAP`.
    pub bootstrap: bool,
    cross: Option<Cross>,
}

impl BpfToolchain {
    /// Makes the builds that `cmd` starts use this toolchain.
    pub fn apply<'a>(&self, cmd: &'a mut Command) -> Result<&'a mut Command> {
        if self.toolchain.is_empty() {
            cmd.env_remove(TOOLCHAIN_VAR);
        } else {
            cmd.env(TOOLCHAIN_VAR, &self.toolchain);
        }
        if self.bootstrap {
            cmd.env(BOOTSTRAP_VAR, "1");
        } else {
            cmd.env_remove(BOOTSTRAP_VAR);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(self.linker_dir.clone()).chain(env::split_paths(&path));
        let path = env::join_paths(dirs)
            .with_context(|| format!("PATH cannot hold {}", self.linker_dir.display()))?;
        if let Some(cross) = &self.cross {
            cross.apply(cmd);
        }
        Ok(cmd.env("PATH", path))
    }

    /// What it builds for.
    pub fn arch(&self) -> Arch {
        self.cross.as_ref().map_or(Arch::HOST, Cross::arch)
    }

    /// The `strip` that knows what it builds.
    pub fn strip(&self) -> Command {
        self.cross.as_ref().map_or_else(|| Command::new("strip"), |cross| cross.tool("strip"))
    }

    /// A program that it has built.
    pub fn start(&self, program: &Path) -> Result<Command> {
        self.cross
            .as_ref()
            .map_or_else(|| Ok(Command::new(program)), |cross| cross.emulate(program))
    }

    /// The toolchain's own cargo, in the workspace, for builds *of* the BPF half.
    pub fn cargo(&self, args: &[&str]) -> Result<Command> {
        let mut cmd = if self.toolchain.is_empty() {
            exec::cargo(args)
        } else {
            let mut cmd = Command::new("rustup");
            cmd.args(["run", &self.toolchain, "cargo"]).args(args).current_dir(exec::root());
            cmd
        };
        if self.bootstrap {
            cmd.env("RUSTC_BOOTSTRAP", "1");
        }
        self.apply(&mut cmd)?;
        Ok(cmd)
    }
}

/// Finds or installs the toolchain, and prints what was found.
pub fn run() -> Result<()> {
    let (compiler, linker) = find_or_install()?;
    say("Compiler", &compiler);
    say("Linker", &linker);
    Ok(())
}

/// Finds or installs the toolchain for this host; silent when everything is there.
pub fn ensure() -> Result<BpfToolchain> {
    ensure_for(Arch::HOST)
}

/// The same for any architecture.
pub fn ensure_for(arch: Arch) -> Result<BpfToolchain> {
    let (compiler, linker) = find_or_install()?;
    let is_other = arch != Arch::HOST;
    Ok(BpfToolchain {
        cross: is_other.then(|| Cross::ensure(arch, &compiler)).transpose()?,
        bootstrap: compiler.needs_bootstrap(),
        toolchain: compiler.name,
        linker_dir: linker.dir,
    })
}

fn find_or_install() -> Result<(Compiler, Linker)> {
    if let (Some(compiler), Some(linker)) = (rust::find()?, linker::find()?) {
        return Ok((compiler, linker));
    }
    let _lock = cache::lock()?;
    // Another set-up may have installed either while we waited.
    let compiler = match rust::find()? {
        Some(compiler) => compiler,
        None => rust::install()?,
    };
    let linker = match linker::find()? {
        Some(linker) => linker,
        None => linker::install()?,
    };
    Ok((compiler, linker))
}
