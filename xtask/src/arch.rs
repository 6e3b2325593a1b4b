//! The architectures that memstock is built for, and their names.

use std::path::PathBuf;

use crate::exec;

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    /// x86-64.
    #[value(name = "x86_64", aliases = ["x86_64-unknown-linux-gnu", "amd64"])]
    Amd64,
    /// 64-bit Arm.
    #[value(name = "aarch64", aliases = ["aarch64-unknown-linux-gnu", "arm64"])]
    Arm64,
}

impl Arch {
    /// The architecture of this host.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    /// Debian's name.
    pub fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The name used by `uname -m`, QEMU and the GNU tools.
    pub fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Rust's name.
    pub fn triple(self) -> String {
        format!("{}-unknown-linux-gnu", self.machine())
    }

    /// The folder in which cargo builds for it.
    pub fn target_dir(self) -> PathBuf {
        let dir = exec::target_dir();
        if self == Self::HOST { dir } else { dir.join(self.triple()) }
    }
}
