//! The guest's disk: an ext4 file system with a shell, the test binaries, and the libraries that they load.
//!
//! The kernels have NVMe and ext4 built in, so they can mount it as root. It is a disk and not an initramfs because the
//! tests need page cache that can be written back and reclaimed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::kernel::Kernel;
use super::{Cgroups, Guest, LIVE, Work, emulator, systemd};
use crate::arch::Arch;
use crate::exec::{self, capture};
use crate::package::package;
use crate::pins;
use crate::setup::BpfToolchain;

/// Size of the disk. The file is sparse: only what is written takes room on the host.
const SIZE: u64 = 8 << 30;
/// The guest's init.
const INIT: &str = include_str!("init.sh");
/// Prefix of the names of benchmarks in the guest.
pub const BENCH: &str = "bench_";
/// Seconds that one module of the live tests may take.
const BOUND: u32 = 3600;
/// Programs that the live tests start, copied if the host has them; tests that lack one are skipped, with the reason.
const PROGRAMS: &[&str] = &[
    // busybox's shell would run its own applets instead of the other programs.
    "sh",
    "unshare",
    "nsenter",
    "pivot_root",
    "setpriv",
    "mkswap",
    "swapon",
    "swapoff",
    "dd",
    "mount",
    "umount",
    "true",
    "flock",
    "mkfs.ext4",
    "stress-ng",
    "fio",
    // Programs of the benchmark of rehearsals that are one file and its libraries.
    "awk",
    "cp",
    "grep",
    "gzip",
    "head",
    "perl",
    "sort",
    "sqlite3",
    "sync",
    "tar",
    "xz",
    "zstd",
];
/// The module that installs the package: on the host for its own architecture, in a guest for others.
const PACKAGE: &str = "package";
/// Files of the project that the tests read, at the same path as on the host.
const DOCUMENTS: &[&str] = &["README.md", "contrib", "docs"];
/// Modules that the live tests need; a kernel package lacks those that are built in.
const MODULES: &[&str] = &["kernel/drivers/block/loop.ko"];

/// Makes the disk in `place`.
pub fn make(
    place: &Path,
    bpf: &BpfToolchain,
    kernel: &Kernel,
    tests: &[PathBuf],
    guest: &Guest,
    work: &Work,
) -> Result<PathBuf> {
    let mut tree = Tree { root: place.join("root"), libraries: BTreeSet::new() };
    for dir in [
        "bin",
        "dev",
        "etc",
        "lib/modules",
        "mnt",
        "proc",
        "run",
        "sys",
        "tmp",
        "var/tmp",
        "memstock/release/deps",
    ] {
        fs::create_dir_all(tree.root.join(dir))?;
    }
    tree.programs(guest.arch)?;
    let built = guest.arch.target_dir().join(if work.dev { "debug" } else { "release" });
    for name in ["memstock", "memstock-workload"] {
        tree.stripped(bpf, &built.join(name), &Path::new("memstock/release").join(name))?;
    }
    for test in tests {
        let name = name_inside(test).context("a binary without a name")?;
        tree.stripped(bpf, test, &Path::new("memstock/release/deps").join(name))?;
    }
    let is_wanted = |module| work.tests.is_empty() || work.tests.iter().any(|test| test == module);
    let (is_host, binary) = (guest.arch == Arch::HOST, built.join("memstock"));
    if !is_host && is_wanted(PACKAGE) {
        package(Some(&binary), Some(&tree.root.join("memstock")), 1, guest.arch)?;
    }
    if is_host
        && !tests.is_empty()
        && is_wanted(systemd::MODULE)
        && let Err(error) = systemd::put(&tree.root, &binary)
    {
        exec::say("Guest", format_args!("without systemd: {error:#}"));
    }
    tree.libraries()?;
    tree.modules(kernel)?;
    let budget = exec::root().join("tests/verifier-budget.json");
    let inside = inside(&budget)?;
    tree.copy(&budget, &inside)?;
    for document in DOCUMENTS {
        tree.copy_all(&exec::root().join(document))?;
    }
    tree.write("init", INIT, 0o755)?;
    tree.write("memstock/run.env", &environment(guest, work, &inside)?, 0o644)?;
    tree.write(
        "etc/passwd",
        "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        0o644,
    )?;
    tree.write("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)?;
    image(place, &tree.root)
}

/// A file system of [`SIZE`] that holds `root`.
fn image(place: &Path, root: &Path) -> Result<PathBuf> {
    let disk = place.join("disk");
    File::create(&disk)?.set_len(SIZE).context("cannot make the guest's disk")?;
    let mut mkfs = emulator::tool("mkfs.ext4", pins::DEBIAN_DISK)?;
    // Owned by root, whoever made the tree; without lazy initialisation, which would write while tests count.
    mkfs.args(["-q", "-F", "-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0", "-d"]);
    capture(mkfs.arg(root).arg(&disk))?;
    fs::remove_dir_all(root).with_context(|| root.display().to_string())?;
    Ok(disk)
}

/// The name of a binary in the guest: without the hash that cargo has added, and with [`BENCH`] before a benchmark.
fn name_inside(binary: &Path) -> Option<String> {
    let (name, _) = binary.file_name()?.to_str()?.rsplit_once('-')?;
    Some(if name == LIVE { name.to_owned() } else { format!("{BENCH}{name}") })
}

/// The path in the tree of a file that has the same path on the host.
fn inside(path: &Path) -> Result<PathBuf> {
    Ok(path.strip_prefix("/").with_context(|| path.display().to_string())?.to_path_buf())
}

/// The file that `init.sh` reads: variables, and the arguments of the test binaries.
fn environment(guest: &Guest, work: &Work, budget: &Path) -> Result<String> {
    let cgroups = match guest.cgroups {
        Cgroups::V2 => "v2",
        Cgroups::Hybrid => "hybrid",
        Cgroups::None => "none",
    };
    let budget = budget.to_str().context("the project's path is not UTF-8")?;
    let mut text = format!(
        "CGROUPS={cgroups} BOUND={BOUND} BUDGET={} MODULES={}\n\
         export MEMSTOCK_GUEST=1 RUST_BACKTRACE=0 MEMSTOCK_SKIPS=/memstock/skips MEMSTOCK_PATIENCE={} MEMSTOCK_LOAD={}\n",
        quoted(&format!("/{budget}")),
        quoted(&work.tests.join(" ")),
        work.patience,
        work.load,
    );
    if work.bless {
        text.push_str("export MEMSTOCK_BLESS=1\n");
    }
    if work.shows {
        text.push_str("SHOWS=1\n");
    }
    text.push_str("set --");
    for arg in &work.args {
        let arg = arg.to_str().context("an argument that is not UTF-8")?;
        write!(text, " {}", quoted(arg))?;
    }
    text.push('\n');
    Ok(text)
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The files of the disk, collected in a folder.
struct Tree {
    root: PathBuf,
    libraries: BTreeSet<PathBuf>,
}

impl Tree {
    fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.root.join(path);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(mode))?)
    }

    /// The path of a file in the tree; makes its folder.
    fn place(&self, path: &Path) -> Result<PathBuf> {
        let place = self.root.join(path);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        Ok(place)
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let place = self.place(to)?;
        fs::copy(from, &place).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    }

    /// Copies a file or folder of the host to the same path.
    fn copy_all(&self, from: &Path) -> Result<()> {
        if !from.is_dir() {
            return self.copy(from, &inside(from)?);
        }
        let entries = fs::read_dir(from).with_context(|| from.display().to_string())?;
        entries.into_iter().try_for_each(|entry| self.copy_all(&entry?.path()))
    }

    /// Adds this host's programs, or Debian's for the guest's architecture.
    fn programs(&mut self, arch: Arch) -> Result<()> {
        let busybox = emulator::busybox()?;
        if arch == Arch::HOST {
            self.copy(&busybox, Path::new("bin/busybox"))?;
            for program in PROGRAMS {
                if let Some(found) = emulator::program(program) {
                    self.program(&found, &Path::new("bin").join(program))?;
                }
            }
        } else {
            let all = emulator::foreign(arch)?.join(".");
            capture(Command::new("cp").arg("-a").arg(all).arg(&self.root))?;
        }
        // busybox stands in for each program that is missing.
        for applet in capture(Command::new(&busybox).arg("--list"))?.lines() {
            let place = self.root.join("bin").join(applet);
            if place.symlink_metadata().is_err() {
                symlink("busybox", place)?;
            }
        }
        Ok(())
    }

    /// Adds a program of the host and its libraries.
    fn program(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.needs(from)?;
        self.copy(from, to)
    }

    /// Adds one of our binaries without debug information, which is nine tenths of it and of no use in the guest.
    fn stripped(&mut self, bpf: &BpfToolchain, from: &Path, to: &Path) -> Result<()> {
        self.needs(from)?;
        let place = self.place(to)?;
        capture(bpf.strip().arg("--strip-debug").arg("-o").arg(place).arg(from)).map(drop)
    }

    fn needs(&mut self, program: &Path) -> Result<()> {
        // For a static program, which has no libraries, ldd fails.
        let said = capture(Command::new("ldd").arg(program)).unwrap_or_default();
        self.libraries.extend(parse_ldd(&said));
        Ok(())
    }

    fn libraries(&self) -> Result<()> {
        self.libraries.iter().try_for_each(|library| self.copy(library, &inside(library)?))
    }

    fn modules(&self, kernel: &Kernel) -> Result<()> {
        for module in MODULES {
            let file = kernel.modules.join(module);
            let name = file.file_name().context("a module without a name")?;
            let place = self.root.join("lib/modules").join(name);
            let packed = file.with_extension("ko.xz");
            if file.exists() {
                fs::copy(&file, &place)?;
            } else if packed.exists() {
                let mut xz = emulator::tool("xz", pins::DEBIAN_XZ)?;
                xz.arg("-dc").arg(&packed).stdin(Stdio::null()).stdout(File::create(&place)?);
                if !xz.status().context("cannot start xz")?.success() {
                    bail!("xz cannot unpack {}", packed.display());
                }
            }
        }
        Ok(())
    }
}

/// The files in the output of `ldd`.
fn parse_ldd(said: &str) -> Vec<PathBuf> {
    let words =
        said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read() {
        let said = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(parse_ldd(said), ["/lib/x/libc.so.6", "/lib64/ld.so"].map(PathBuf::from));
    }

    #[test]
    fn arguments_stay_one_word_each() {
        assert_eq!(quoted("it's *"), r"'it'\''s *'");
        assert_eq!(name_inside("/deps/live-0f".as_ref()).unwrap(), LIVE);
        assert_eq!(name_inside("/deps/page-0f".as_ref()).unwrap(), "bench_page");
    }
}
