//! Owns what memstock asks of the host: privilege, CPUs, page size, swap, bpffs. Must not load programs or make
//! cgroups; the only change that it makes is to mount bpffs where it is missing (`bpffs`).
//!
//! Looks for facilities, and never compares versions. Needs neither tracefs nor debugfs: raw tracepoints are attached
//! by name through bpf(2).

pub mod cgroup;
pub(crate) mod disks;
pub(crate) mod inode;
pub mod launch;
pub mod lock;
pub mod mapping;
pub mod memory;
pub(crate) mod mountinfo;
pub mod notify;
pub(crate) mod pace;
pub mod pages;
pub mod process;
pub mod protect;
pub mod workload;

mod bpffs;

pub use self::bpffs::{BPFFS, Bpffs, bpffs, is_bpffs, unmount_our_bpffs};

use crate::exit::{Classify as _, Failure};
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

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
    // CAP_SYS_ADMIN is needed for pagemap, kpagecgroup and mount(2), and includes CAP_BPF and CAP_PERFMON.
    if !effective.contains(CapabilitySet::SYS_ADMIN) {
        return Err(Failure::Permission.error(
            "memstock needs root (CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN): run it with sudo",
        ));
    }
    // In a user namespace all capabilities appear set, but BPF checks them in the initial one.
    if user_ns != INIT_USER_NS {
        return Err(Failure::Permission.error(
            "memstock needs root on the host, and this is root of a user namespace only: run it \
             outside the container",
        ));
    }
    Ok(())
}

/// The CPUs of this host, each list sorted; numbers may have holes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cpus {
    /// CPUs that can ever exist; per-CPU maps have a value for each.
    pub possible: Vec<u32>,
    /// CPUs that are plugged in.
    pub present: Vec<u32>,
    /// CPUs that are online now.
    pub online: Vec<u32>,
    /// CPUs that are online and whose tasks are not to be disturbed: isolated from the scheduler (`isolcpus=`), or
    /// without a tick (`nohz_full=`).
    pub isolated: Vec<u32>,
}

/// Reads the CPU lists from sysfs.
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
    let [possible, present, online] = ["possible", "present", "online"].map(list);
    let online = online?;
    // Not every kernel has these, and without such CPUs the second may say "(null)".
    let [isolated, nohz_full] =
        ["isolated", "nohz_full"].map(|name| list(name).unwrap_or_default());
    let is_isolated = |cpu: &u32| isolated.contains(cpu) || nohz_full.contains(cpu);
    let isolated = online.iter().copied().filter(is_isolated).collect();
    Ok(Cpus { possible: possible?, present: present?, online, isolated })
}

/// Parses the kernel's `%*pbl`: `0-1,4,8-11`, ascending; empty for no CPU.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus: Vec<u32> = Vec::new();
    for range in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        // No kernel has CPU numbers of more than 16 bits; malformed text must not exhaust memory.
        if first > last || last > 0xffff || cpus.last().is_some_and(|&before| before >= first) {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The time in ns of the clock that stamps the kernel half's events (`bpf_ktime_get_ns`): since boot, without suspended
/// time.
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
/// When `/proc/swaps` exists and cannot be read.
pub fn has_swap() -> Result<bool> {
    match fs::read_to_string(SWAPS) {
        // The first line is a heading.
        Ok(text) => Ok(text.lines().count() > 1),
        // A kernel without swap.
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read {SWAPS}")),
    }
}

const SWAPS: &str = "/proc/swaps";

/// Tells when swap is turned on or off; never on a kernel without swap.
#[derive(Debug)]
pub(crate) struct SwapChanges(Option<File>);

impl SwapChanges {
    /// From now on.
    pub(crate) fn watch() -> Self {
        Self(File::open(SWAPS).ok())
    }

    /// Whether it was since the last call (`swaps_poll` in `mm/swapfile.c`).
    pub(crate) fn any(&self) -> bool {
        let Some(file) = &self.0 else { return false };
        let mut asked = [PollFd::new(file, PollFlags::PRI)];
        let answered = poll(&mut asked, Some(&Timespec::default()));
        answered.is_ok() && asked[0].revents().contains(PollFlags::PRI)
    }
}

/// The number after this name in a file of names and numbers, such as `memory.stat`.
pub(crate) fn number(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(other, _)| *other == name)?.1.trim().parse().ok()
}

/// A figure of `/proc/meminfo`, in pages; 0 if it is not there.
pub(crate) fn meminfo(name: &str) -> u64 {
    figure(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), name)
}

/// A figure of a file of names and kB, such as `/proc/PID/status`, in pages; 0 if it is not there.
pub(crate) fn figure(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024 / page_size()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::exit_code;

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let events = "low 0\nmax 7\noom_kill 2\noom_group_kill x\n";
        let all = ["max", "oom_kill", "oom", "oom_group_kill"].map(|name| number(events, name));
        assert_eq!(all, [Some(7), Some(2), None, None]);
    }

    #[test]
    fn this_process_has_it() {
        if !memstock_tests::live::is_refused() {
            require_privilege().unwrap();
        }
    }

    #[test]
    fn privilege_is_told_apart() {
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
        let text = "SwapCached2: 4 kB\nSwapCached:     8192 kB\n";
        assert_eq!(figure(text, "SwapCached") * page_size(), 8192 * 1024);
        assert_eq!(figure("", "SwapCached"), 0);
    }
}
