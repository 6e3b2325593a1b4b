//! Which machine a bench ran on, as a report has to say.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use memstock::host;
use serde::Serialize;

/// A machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of its CPUs; empty where the kernel does not tell.
    pub cpu: String,
    /// CPUs that run.
    pub online: usize,
    /// Sockets they are in.
    pub sockets: usize,
    /// Release of its kernel.
    pub kernel: String,
    /// What the kernel does about Speculative Return Stack Overflow, which makes each return of a program
    /// dear; empty where it does not tell.
    pub srso: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let release = "/proc/sys/kernel/osrelease";
        let kernel =
            fs::read_to_string(release).with_context(|| format!("cannot read {release}"))?;
        let srso =
            fs::read_to_string("/sys/devices/system/cpu/vulnerabilities/spec_rstack_overflow");
        let online = host::cpus()?.online;
        let package = |cpu: &u32| {
            let topology = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
            fs::read_to_string(topology + "/physical_package_id")
        };
        // One where the kernel does not tell.
        let sockets = online.iter().flat_map(package).collect::<BTreeSet<_>>().len().max(1);
        Ok(Self {
            cpu: model.unwrap_or_default().trim_start_matches(['\t', ' ', ':']).to_owned(),
            online: online.len(),
            sockets,
            kernel: kernel.trim().to_owned(),
            srso: srso.unwrap_or_default().trim().to_owned(),
        })
    }
}
