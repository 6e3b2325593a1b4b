//! Probes of everything but BPF: privilege, mounts, /proc, and a running engine.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use super::Finding;
use super::probe::Host;
use crate::engine::Engine;
use crate::engine::kernel_cgroup::v1_memory;
use crate::engine::pins::Pins;
use crate::host;
use crate::host::cgroup::display;
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
