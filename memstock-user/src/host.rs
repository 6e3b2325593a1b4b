//! Owns the questions about the host: may we, and does it have what we need? Must not load programs
//! or make cgroups; all that it may change is to mount bpffs where it is missing.
//!
//! Facilities are looked for, versions are never compared. Nothing here looks for tracefs or debugfs:
//! raw tracepoints are attached by name through bpf(2) and need neither.

use crate::exit::{Classify as _, Failure};
use crate::mountinfo;
use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{CapabilitySet, MembarrierCommand, capabilities, membarrier};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Where bpffs belongs.
pub const BPFFS: &str = "/sys/fs/bpf";
/// `statfs` type of bpffs (`linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// What the kernel itself puts into each new bpffs (`CONFIG_BPF_PRELOAD`).
const PRELOADED: [&str; 2] = ["maps.debug", "progs.debug"];
/// `PROC_USER_INIT_INO`: the inode of the first user namespace, the same on every kernel.
const INIT_USER_NS: u64 = 0xefff_fffd;

/// Whether this process ignores a signal, as one started by `nohup` does SIGHUP.
pub fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: a sigaction of zeroes is a valid one, and it lives until the call returns, which only fills it.
    let (asked, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut action), action)
    };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Checks that we may load programs, mount bpffs, and read page frame numbers.
///
/// # Errors
///
/// [`Failure::Permission`] when we may not.
pub fn require_privilege() -> Result<()> {
    let effective = capabilities(None).context("cannot read our capabilities")?.effective;
    let user_ns = fs::metadata("/proc/self/ns/user").context("cannot stat /proc/self/ns/user")?;
    privilege(effective, user_ns.ino())
}

fn privilege(effective: CapabilitySet, user_ns: u64) -> Result<()> {
    // CAP_SYS_ADMIN is needed by itself, for pagemap, kpagecgroup and mount(2); where the
    // kernel asks for CAP_BPF or CAP_PERFMON it is enough, too.
    if !effective.contains(CapabilitySet::SYS_ADMIN) {
        return Err(Failure::Permission.error(
            "memstock needs root (CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN): run it with sudo",
        ));
    }
    // There all capabilities are listed, and the kernel grants none of them for BPF.
    if user_ns != INIT_USER_NS {
        return Err(Failure::Permission.error(
            "memstock needs root on the host, and this is root of a user namespace only: run it \
             outside the container",
        ));
    }
    Ok(())
}

/// The source that our mounts name: it tells them from others' for as long as they are there.
const OUR_SOURCE: &str = "memstock";

/// The BPF file system; unmounted on drop when memstock mounted it and it is empty.
#[derive(Debug)]
pub struct Bpffs {
    /// Its mount point.
    pub dir: &'static Path,
    /// Whether memstock mounted it, now or in a run that died.
    pub mounted_by_us: bool,
}

/// Makes sure that bpffs is mounted.
///
/// # Errors
///
/// [`Failure::Host`] when it is not and cannot be.
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
    let text = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let mounts = mountinfo::parse(&text);
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

/// Whether bpffs is what is on top at `dir`.
///
/// # Errors
///
/// There is no such directory, or we may not look.
pub fn is_bpffs(dir: &Path) -> io::Result<bool> {
    let magic = rustix::fs::statfs(dir)?.f_type;
    // Signed and 32 bits wide on some machines.
    Ok(magic as u32 == BPF_FS_MAGIC as u32)
}

/// Waits until every program that is running now, on any CPU, has returned.
///
/// BPF programs run inside RCU read sections, and this membarrier is a `synchronize_rcu()`. With one CPU
/// online the kernel leaves that out: then our running at all means that no program is, as long as
/// tracepoints keep preemption off.
///
/// # Errors
///
/// [`Failure::Host`] on kernels that refuse it, as those with `nohz_full` CPUs do.
pub fn membarrier_grace_period() -> Result<()> {
    membarrier(MembarrierCommand::Global).classify(Failure::Host, || {
        "the kernel offers no membarrier(MEMBARRIER_CMD_GLOBAL), so running programs cannot be \
         waited for: boot without nohz_full"
            .into()
    })
}

/// The CPUs of this host, each list sorted; numbers may have holes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cpus {
    /// Those that can ever be; per-CPU maps have a value for each.
    pub possible: Vec<u32>,
    /// Those that are plugged in.
    pub present: Vec<u32>,
    /// Those that run now.
    pub online: Vec<u32>,
}

/// Reads the three CPU lists from sysfs.
///
/// # Errors
///
/// [`Failure::Host`] when sysfs does not have them.
pub fn cpus() -> Result<Cpus> {
    let list = |name: &str| {
        let path = format!("/sys/devices/system/cpu/{name}");
        fs::read_to_string(&path)
            .map_err(anyhow::Error::from)
            .and_then(|text| {
                cpu_list(text.trim())
                    .with_context(|| format!("{:?} is not a CPU list", text.trim()))
            })
            .classify(Failure::Host, || format!("cannot read {path}: is sysfs mounted?"))
    };
    Ok(Cpus { possible: list("possible")?, present: list("present")?, online: list("online")? })
}

/// Sockets that CPUs which run are in; 1 where the kernel does not tell.
///
/// # Errors
///
/// As [`cpus`].
pub fn sockets() -> Result<usize> {
    let package = |cpu: &u32| {
        fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"))
    };
    let packages: BTreeSet<_> = cpus()?.online.iter().flat_map(package).collect();
    Ok(packages.len().max(1))
}

/// The kernel's `%*pbl`: `0-1,4,8-11`, ascending; empty for no CPU.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus: Vec<u32> = Vec::new();
    for range in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        // No kernel has more than 16 bits of CPUs; a wrong text must not fill the memory.
        if first > last || last > 0xffff || cpus.last().is_some_and(|&before| before >= first) {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The time of the clock that the kernel half's events are stamped with (`bpf_ktime_get_ns`): since boot,
/// without what was slept, ns.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Bytes in a page.
pub fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// Whether any swap is in use on this host.
///
/// # Errors
///
/// When `/proc/swaps` is there and cannot be read.
pub fn has_swap() -> Result<bool> {
    match fs::read_to_string("/proc/swaps") {
        // The first line is a heading.
        Ok(text) => Ok(text.lines().count() > 1),
        // A kernel without swap.
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(false),
        Err(error) => Err(error).context("cannot read /proc/swaps"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::exit_code;
    use std::process::Command;

    #[test]
    fn privilege_is_told_apart() {
        require_privilege().unwrap();
        let bpf_only = CapabilitySet::BPF | CapabilitySet::PERFMON;
        let error = privilege(bpf_only, INIT_USER_NS).unwrap_err();
        assert_eq!(exit_code(&error), 120);
        assert_eq!(
            error.to_string(),
            "memstock needs root (CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN): run it with sudo"
        );
        privilege(CapabilitySet::SYS_ADMIN, INIT_USER_NS).unwrap();
        let error = privilege(CapabilitySet::all(), 4_026_532_000).unwrap_err();
        assert_eq!(exit_code(&error), 120);
    }

    #[test]
    fn cpu_lists_may_have_holes() {
        for (text, expected) in [
            ("0", Some(vec![0])),
            ("0-3", Some(vec![0, 1, 2, 3])),
            ("0-1,4,8-9", Some(vec![0, 1, 4, 8, 9])),
            ("", Some(vec![])),
            ("3-1", None),
            ("1,0", None),
            ("1,1", None),
            ("0-4294967295", None),
            ("a", None),
            ("0,", None),
        ] {
            assert_eq!(cpu_list(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_hosts_cpus_nest() {
        let cpus = cpus().unwrap();
        assert!(cpus.online.contains(&0) || !cpus.online.is_empty());
        assert!(cpus.online.iter().all(|cpu| cpus.present.contains(cpu)));
        assert!(cpus.present.iter().all(|cpu| cpus.possible.contains(cpu)));
    }

    #[test]
    fn small_facts() {
        assert!(page_size().is_power_of_two() && page_size() >= 4096);
        has_swap().unwrap();
        membarrier_grace_period().unwrap();
    }

    /// Mounts, so it runs itself again in a mount namespace of its own.
    #[test]
    fn bpffs_is_mounted_when_missing() {
        if std::env::var_os("MEMSTOCK_UNIT_UNSHARED").is_none() {
            let output = Command::new("unshare")
                .args(["--mount", "--propagation", "private"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "host::tests::bpffs_is_mounted_when_missing", "--nocapture"])
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
