//! Probes of everything but BPF: privilege, mounts, /proc, system calls, and a running engine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};
use rustix::thread::CapabilitySet;

use super::Finding;
use super::probe::Host;
use crate::engine::Engine;
use crate::engine::kernel_cgroup::v1_memory;
use crate::engine::pins::Pins;
use crate::host;
use crate::host::cgroup::{CgroupMount, display};
use crate::host::lock;
use crate::host::pages::{KernelPages, end_pfn};

pub(super) fn privilege() -> Finding {
    match host::require_privilege() {
        Ok(()) => Finding::found(""),
        Err(error) => Finding::absent(format!("{error:#}")),
    }
}

pub(super) fn capability(host: &Host, capability: CapabilitySet) -> Finding {
    match host.capabilities {
        Some(has) if has.contains(capability) => Finding::found(""),
        Some(_) => Finding::absent("not in our effective set"),
        None => Finding::unknown("our capabilities cannot be read"),
    }
}

pub(super) fn bpffs_folder(host: &Host) -> Finding {
    match fs::metadata(host::BPFFS) {
        Ok(_) => Finding::found(host::BPFFS),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::absent(format!("there is no {}", host::BPFFS))
        }
        Err(error) => host.failed(&error.into()),
    }
}

pub(super) fn bpffs(host: &Host) -> Finding {
    match host::is_bpffs(host::BPFFS.as_ref()) {
        Ok(true) => Finding::found(host::BPFFS),
        Ok(false) => Finding::absent("not mounted"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::absent(format!("there is no {}", host::BPFFS))
        }
        Err(error) => host.failed(&error.into()),
    }
}

/// Anybody can read the list of mounts, so that absent does not depend on privilege.
pub(super) fn cgroup2(host: &Host) -> Finding {
    match &host.cgroup2 {
        Ok(mount) => Finding::found(display(mount.dir())),
        Err(error) => Finding::absent(format!("{error:#}")),
    }
}

pub(super) fn cgroup2_memory(host: &Host) -> Finding {
    let Ok(mount) = &host.cgroup2 else { return Finding::absent("cgroup v2 is not mounted") };
    let file = mount.dir().join("cgroup.controllers");
    match fs::read_to_string(&file) {
        Ok(text) if text.split_ascii_whitespace().any(|name| name == "memory") => {
            Finding::found("")
        }
        Ok(_) => Finding::absent("not among cgroup.controllers of cgroup v2"),
        Err(error) => Finding::unknown(format!("{}: {error}", display(&file))),
    }
}

pub(super) fn cgroup1_memory(_: &Host) -> Finding {
    match v1_memory() {
        Ok(Some(dir)) => Finding::found(display(dir)),
        Ok(None) => Finding::absent("not mounted"),
        Err(error) => Finding::unknown(format!("{error:#}")),
    }
}

pub(super) fn memory_reclaim(host: &Host) -> Finding {
    match cgroup2_memory(host) {
        controller if controller.state != super::State::Found => controller,
        _ => file_of_cgroups(host, "memory.reclaim"),
    }
}

pub(super) fn cgroup_freeze(host: &Host) -> Finding {
    file_of_cgroups(host, "cgroup.freeze")
}

pub(super) fn cgroup_kill(host: &Host) -> Finding {
    file_of_cgroups(host, "cgroup.kill")
}

/// Either every cgroup but the root has the file, or none has.
fn file_of_cgroups(host: &Host, name: &str) -> Finding {
    let Ok(mount) = &host.cgroup2 else { return Finding::absent("cgroup v2 is not mounted") };
    match some_cgroup(mount) {
        Ok(Some(dir)) if dir.join(name).exists() => Finding::found(""),
        Ok(Some(dir)) => Finding::absent(format!("not in {}", display(dir))),
        Ok(None) => Finding::unknown_before(
            "there is no cgroup but the root",
            format!("mkdir {}", display(mount.dir().join("example"))),
        ),
        Err(error) => Finding::unknown(format!("{}: {error}", display(mount.dir()))),
    }
}

/// The first cgroup below the root.
fn some_cgroup(mount: &CgroupMount) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(mount.dir())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

pub(super) fn kpageflags(host: &Host) -> Finding {
    host.of(KernelPages::flags(), |_| String::new())
}

pub(super) fn kpagecgroup(host: &Host) -> Finding {
    match KernelPages::cgroups() {
        Ok(Some(_)) => Finding::found(""),
        Ok(None) => Finding::absent("there is no /proc/kpagecgroup"),
        Err(error) => host.failed(&error),
    }
}

pub(super) fn zoneinfo(host: &Host) -> Finding {
    host.of(end_pfn(), |end| format!("page frames end at {end}"))
}

pub(super) fn swap(_: &Host) -> Finding {
    match host::has_swap() {
        Ok(true) => Finding::found(""),
        Ok(false) => Finding::absent("none is in use"),
        Err(error) => Finding::unknown(format!("{error:#}")),
    }
}

pub(super) fn cpus(host: &Host) -> Finding {
    host.of(host::cpus(), |cpus| {
        let [possible, present, online] =
            [&cpus.possible, &cpus.present, &cpus.online].map(Vec::len);
        format!("{possible} possible, {present} present, {online} online")
    })
}

pub(super) fn pidfd(_: &Host) -> Finding {
    of_errno(pidfd_open(getpid(), PidfdFlags::empty()).map(drop))
}

pub(super) fn process_madvise(_: &Host) -> Finding {
    use std::os::fd::AsRawFd as _;
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else {
        return Finding::absent("there are no pidfds");
    };
    // SAFETY: advice about no memory at all: the kernel reads nothing behind the null pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            own.as_raw_fd(),
            std::ptr::null::<libc::iovec>(),
            0,
            libc::MADV_PAGEOUT,
            0,
        )
    };
    if result >= 0 {
        return Finding::found("");
    }
    of_errno(Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::NOSYS)))
}

fn of_errno(result: Result<(), Errno>) -> Finding {
    match result {
        Ok(()) => Finding::found(""),
        Err(Errno::NOSYS) => Finding::absent("the kernel does not know it"),
        Err(error) => Finding::unknown(error.to_string()),
    }
}

pub(super) fn memlock(host: &Host) -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let is_free = host.capabilities.is_some_and(|has| has.contains(CapabilitySet::IPC_LOCK));
    match limit {
        None => Finding::found("unlimited"),
        Some(bytes) if is_free => {
            Finding::found(format!("{bytes} bytes, but CAP_IPC_LOCK exempts us"))
        }
        Some(bytes) => Finding::absent(format!("{bytes} bytes")),
    }
}

pub(super) fn run_folder(host: &Host) -> Finding {
    match access(lock::RUN_DIR, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::found(lock::RUN_DIR),
        Err(Errno::NOENT) => Finding::absent(format!("there is no {}", lock::RUN_DIR)),
        Err(error) => host.failed(&io::Error::from(error).into()),
    }
}

pub(super) fn no_other_version(host: &Host) -> Finding {
    match Pins::on(host::BPFFS.as_ref()).of_other_versions() {
        Ok(others) => match others.first() {
            None => Finding::found("none is pinned"),
            Some(other) => Finding::absent(format!("{} exists", other.root().display())),
        },
        Err(error) => host.failed(&error),
    }
}

/// Describes the engine of this version.
pub(super) fn engine() -> String {
    let pins = Pins::on(host::BPFFS.as_ref());
    let daemon = lock::holder();
    match pins.root().try_exists() {
        Err(error) => return format!("unknown: {}: {error}", pins.root().display()),
        Ok(false) => {
            return match daemon {
                Ok(Some(pid)) => format!("starting or ending (pid {pid})"),
                Ok(None) if pins.unfinished().exist() => {
                    "none; the start or end of one was cut short: \"memstock stop\" cleans up"
                        .into()
                }
                Ok(None) => "none".into(),
                Err(error) => format!("unknown: {error:#}"),
            };
        }
        Ok(true) => {}
    }
    let daemon = match daemon {
        Ok(Some(pid)) => format!("running (pid {pid})"),
        Ok(None) => "charging without a daemon: \"memstock run\" adopts it".into(),
        Err(error) => format!("charging ({error:#})"),
    };
    match Engine::open(&pins) {
        Ok(engine) => {
            let info = engine.info();
            let faults = if engine.sees_faults() { "" } else { ", faults not counted" };
            format!(
                "{daemon}, layout {}, batch {}, slots {}{faults}",
                info.layout, info.batch, info.slots
            )
        }
        Err(error) => format!("{daemon}, unreadable: {error:#}"),
    }
}

/// Whether procfs is there at all.
pub(super) fn procfs(_: &Host) -> Finding {
    if Path::new("/proc/self/maps").exists() {
        Finding::found("/proc")
    } else {
        Finding::absent("there is no /proc/self/maps")
    }
}
