//! Owns the BPF file system: finds it, and mounts it where it is missing. Must not know what is pinned in it.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::exit::{Classify as _, Failure};
use crate::host::mountinfo;

/// The mount point of bpffs.
pub const BPFFS: &str = "/sys/fs/bpf";
/// `statfs` type of bpffs (`linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// What the kernel itself puts into each new bpffs (`CONFIG_BPF_PRELOAD`).
const PRELOADED: [&str; 2] = ["maps.debug", "progs.debug"];
/// The source that our mounts name, to tell them from those of others.
const OUR_SOURCE: &str = "memstock";

/// The BPF file system; unmounted on drop when memstock mounted it and it is empty.
#[derive(Debug)]
pub struct Bpffs {
    /// Its mount point.
    pub dir: &'static Path,
    /// Whether memstock mounted it, now or in a run that died.
    pub mounted_by_us: bool,
}

/// Finds bpffs, or mounts it.
///
/// # Errors
///
/// [`Failure::Host`] when it is not mounted and cannot be.
pub fn bpffs() -> Result<Bpffs> {
    let dir = Path::new(BPFFS);
    if is_bpffs(dir).classify(Failure::Host, || {
        format!("there is no {BPFFS}: memstock needs a kernel with CONFIG_BPF_SYSCALL and sysfs")
    })? {
        return Ok(Bpffs { dir, mounted_by_us: is_ours(dir)? });
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(OUR_SOURCE, dir, "bpf", flags, c"mode=0700").classify(Failure::Host, || {
        format!("bpffs is not mounted and mounting it failed: try \"mount -t bpf bpf {BPFFS}\"")
    })?;
    Ok(Bpffs { dir, mounted_by_us: true })
}

/// Unmounts the BPF file system if memstock mounted it and nothing is pinned in it.
///
/// # Errors
///
/// When the kernel refuses.
pub fn unmount_our_bpffs() -> Result<()> {
    let dir = Path::new(BPFFS);
    Bpffs { dir, mounted_by_us: is_ours(dir)? }.release().map(drop)
}

/// Whether the topmost mount on `dir` is one of memstock's.
fn is_ours(dir: &Path) -> Result<bool> {
    let mounts = mountinfo::read()?;
    let top = mounts.iter().rfind(|mount| mount.point == dir);
    Ok(top.is_some_and(|mount| mount.fs_type == "bpf" && mount.source == OUR_SOURCE.as_bytes()))
}

impl Bpffs {
    /// Unmounts it if we mounted it and nothing is pinned in it; says whether it was unmounted.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, as it does while something is open there.
    pub fn release(mut self) -> Result<bool> {
        self.unmount()
    }

    fn unmount(&mut self) -> Result<bool> {
        let ours = std::mem::take(&mut self.mounted_by_us);
        // Pins live as long as the mount: with one left it has to stay, whoever pinned it.
        if !ours || !is_bpffs(self.dir)? || holds_pins(self.dir)? {
            return Ok(false);
        }
        unmount(self.dir, UnmountFlags::empty())
            .with_context(|| format!("cannot unmount {}", self.dir.display()))?;
        Ok(true)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            log::warn!("{error:#}");
        }
    }
}

fn holds_pins(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if PRELOADED.iter().all(|preloaded| name != *preloaded) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the topmost mount at `dir` is bpffs.
///
/// # Errors
///
/// There is no such directory, or we may not look.
pub fn is_bpffs(dir: &Path) -> io::Result<bool> {
    let magic = rustix::fs::statfs(dir)?.f_type;
    // Signed and 32 bits wide on some machines.
    Ok(magic as u32 == BPF_FS_MAGIC as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Mounts, so it runs itself again in a mount namespace of its own.
    #[test]
    fn bpffs_is_mounted_when_missing() {
        if memstock_tests::live::is_refused() {
            return;
        }
        if std::env::var_os("MEMSTOCK_UNIT_UNSHARED").is_none() {
            let output = Command::new("unshare")
                .args(["--mount", "--propagation", "private"])
                .arg(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "host::bpffs::tests::bpffs_is_mounted_when_missing",
                    "--nocapture",
                ])
                .env("MEMSTOCK_UNIT_UNSHARED", "1")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
            return;
        }
        let dir = Path::new(BPFFS);
        while is_bpffs(dir).unwrap() {
            unmount(dir, UnmountFlags::DETACH).unwrap();
        }
        let ours = bpffs().unwrap();
        assert!(ours.mounted_by_us && is_bpffs(ours.dir).unwrap());
        // Not empty: it stays.
        fs::create_dir(dir.join("pins")).unwrap();
        drop(ours);
        assert!(is_bpffs(dir).unwrap());
        fs::remove_dir(dir.join("pins")).unwrap();
        // Still known as ours.
        assert!(bpffs().unwrap().release().unwrap());
        assert!(!is_bpffs(dir).unwrap());
        // Somebody else's stays.
        mount("bpf", dir, "bpf", MountFlags::empty(), c"mode=0700").unwrap();
        assert!(!bpffs().unwrap().release().unwrap());
        unmount_our_bpffs().unwrap();
        assert!(is_bpffs(dir).unwrap());
    }
}
