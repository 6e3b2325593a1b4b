//! The kinds of probes, and what they share.

use std::io;

use anyhow::Result;
use aya::Ebpf;
use rustix::thread::{CapabilitySet, capabilities};

use super::{Finding, bpf, system};
use crate::engine::attach::probing;
use crate::exit::{Failure, exit_code};
use crate::host;
use crate::host::cgroup::CgroupMount;

/// What the probes share about the host.
#[derive(Debug)]
pub struct Host {
    pub(super) capabilities: Option<CapabilitySet>,
    /// Whether we may load programs at all.
    pub(super) is_privileged: bool,
    pub(super) cgroup2: Result<CgroupMount>,
    /// The program that is attached to find out whether a tracepoint exists.
    pub(super) probing: Result<Ebpf>,
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            capabilities: capabilities(None).ok().map(|sets| sets.effective),
            is_privileged: host::require_privilege().is_ok(),
            cgroup2: CgroupMount::find(),
            probing: probing(),
        }
    }

    /// Turns a failure into a finding: with privilege the host lacks what failed; without, that is unknown.
    pub(super) fn failed(&self, error: &anyhow::Error) -> Finding {
        let is_denied = exit_code(error) == Failure::Permission.code()
            || error.chain().any(|cause| {
                cause
                    .downcast_ref::<io::Error>()
                    .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            });
        let detail = format!("{error:#}");
        match (self.is_privileged, is_denied) {
            (false, _) => Finding::unknown(detail),
            (true, true) => Finding::unknown_before(detail, DENIED_TO_ROOT),
            (true, false) => Finding::absent(detail),
        }
    }

    /// Turns the result of a function that `run` uses as well into a finding.
    pub(super) fn of<T>(&self, answer: Result<T>, detail: impl FnOnce(T) -> String) -> Finding {
        match answer {
            Ok(answer) => Finding::found(detail(answer)),
            Err(error) => self.failed(&error),
        }
    }
}

const DENIED_TO_ROOT: &str =
    "run it where root may do this: a container, an LSM or a seccomp filter denies it here";

/// A way to look for a facility.
#[derive(Clone, Copy, Debug)]
pub enum Probe {
    /// Whether we are root in the first user namespace.
    Privilege,
    /// Whether we have a capability.
    Capability(CapabilitySet),
    /// Whether the kernel has a tracepoint.
    Tracepoint(&'static str),
    /// Anything else.
    Of(fn(&Host) -> Finding),
}

impl Probe {
    pub(super) fn ask(self, host: &mut Host) -> Finding {
        match self {
            Self::Privilege => system::privilege(),
            Self::Capability(capability) => system::capability(host, capability),
            Self::Tracepoint(name) => bpf::tracepoint(host, name),
            Self::Of(probe) => probe(host),
        }
    }

    /// Whether it is about our privilege and not about the host.
    pub fn is_privilege(self) -> bool {
        matches!(self, Self::Privilege | Self::Capability(_))
    }
}
