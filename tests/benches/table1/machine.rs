//! The machine that a bench ran on, for the report.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use memstock::host;
use serde::Serialize;

/// A machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of its CPUs; empty if unknown.
    pub cpu: String,
    /// Online CPUs.
    pub online: usize,
    /// Sockets with online CPUs.
    pub sockets: usize,
    /// Release of its kernel.
    pub kernel: String,
    /// The kernel's mitigation of Speculative Return Stack Overflow, which makes each return of a program expensive;
    /// empty if unknown.
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
        // At least one, if the kernel does not say.
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
