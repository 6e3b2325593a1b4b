//! By what events of the kernel an engine sees faults: its tracepoints for them or, where it has none, a software
//! event of perf on each CPU. Attaches either, tells which an engine has, and sees to CPUs that come back. What
//! is done at a fault is the kernel half's (`docs/adr/0017-faults-by-perf-event.md`).
//!
//! Which it is, the pins say: the events have a folder of their own among the links. An event goes with its CPU,
//! its pin stays; the CPU needs another event when it is back.

use std::fs;
use std::io;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::perf_event::{
    PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{PerfEvent, ProgramError};
use aya::sys::SyscallError;

use super::link::{link_to, pin_link};
use super::object::{
    EVENT_PROBE, FAULT_TRACEPOINTS, PROBE, program as tracepoint_program, refused,
};
use super::pins::Pins;
use crate::exit::{Classify as _, Failure};
use crate::host;
use crate::model::faults::Source;

/// That of a pinned engine.
pub fn source_of(pins: &Pins) -> Source {
    if pins.cpu_links(EVENT_PROBE).exists() { Source::Perf } else { Source::Tracepoints }
}

/// Attaches what sees faults and pins its links: what is wanted, else what the kernel has.
pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins, wanted: Option<Source>) -> Result<()> {
    if wanted != Some(Source::Perf) {
        let Some(missing) = attach_tracepoints(ebpf, pins)? else { return Ok(()) };
        if wanted.is_some() {
            return Err(Failure::Host.error(format!(
                "this kernel has no tracepoint {missing}: leave out \"--faults tracepoints\" to have faults \
                 seen by perf's event"
            )));
        }
        log::info!("this kernel has no tracepoint {missing}: faults are seen by perf's event");
    }
    let folder = pins.cpu_links(EVENT_PROBE);
    fs::create_dir(&folder)
        .with_context(|| format!("cannot create the pin folder {}", folder.display()))?;
    for (cpu, link) in open_events(ebpf)? {
        pin_event(link, pins, cpu)?;
    }
    Ok(())
}

/// Attaches the program to an event on each CPU. They end when they are dropped.
pub(super) fn open_events(ebpf: &mut Ebpf) -> Result<Vec<(u32, PerfEventLink)>> {
    let program = program(ebpf)?;
    let mut links = Vec::new();
    for cpu in host::cpus()?.online {
        links.extend(open_event(program, cpu)?.map(|link| (cpu, link)));
    }
    Ok(links)
}

/// All of them or none; the one that the kernel does not have, if there is one.
fn attach_tracepoints(ebpf: &mut Ebpf, pins: &Pins) -> Result<Option<&'static str>> {
    let program = tracepoint_program(ebpf, PROBE)?;
    let mut links = Vec::new();
    for tracepoint in FAULT_TRACEPOINTS {
        match link_to(program, tracepoint)? {
            Some(id) => links.push((tracepoint, program.take_link(id)?)),
            None => return Ok(Some(tracepoint)),
        }
    }
    for (tracepoint, link) in links {
        pin_link(FdLink::from(link), pins, PROBE, tracepoint)?;
    }
    Ok(None)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut PerfEvent> {
    Ok(ebpf
        .program_mut(EVENT_PROBE)
        .with_context(|| format!("no program {EVENT_PROBE} in the object"))?
        .try_into()?)
}

fn pin_event(link: PerfEventLink, pins: &Pins, cpu: u32) -> Result<()> {
    FdLink::try_from(link)
        .context("perf's events have no links (Linux 5.15)")?
        .pin(pins.cpu_link(EVENT_PROBE, cpu))
        .map(drop)
        .with_context(|| format!("cannot pin the page-fault event of CPU {cpu}"))
}

/// None if the CPU is not there.
fn open_event(program: &mut PerfEvent, cpu: u32) -> Result<Option<PerfEventLink>> {
    let attached = program.attach(
        PerfEventConfig::Software(SoftwareEvent::PageFaults),
        PerfEventScope::AllProcessesOneCpu { cpu },
        // Each of them. With any other period the kernel would throttle it as well.
        SamplePolicy::Period(1),
        false,
    );
    let error = match attached {
        Ok(id) => return Ok(Some(program.take_link(id)?)),
        Err(error) => error,
    };
    let code = match &error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        _ => None,
    };
    let why = || format!("cannot have perf's page-fault event on CPU {cpu}");
    match code {
        Some(libc::ENODEV) => Ok(None),
        Some(libc::EACCES | libc::EPERM) => Err(error).classify(Failure::Permission, || {
            format!("{}: it takes CAP_PERFMON or CAP_SYS_ADMIN, and perf_event_open(2)", why())
        }),
        _ => Err(error).classify(Failure::Host, why),
    }
}

/// Attaches the program to the events, and detaches it again.
///
/// # Errors
/// The kernel does not have it, or refuses.
pub fn try_event(ebpf: &mut Ebpf) -> Result<()> {
    let program = program(ebpf)?;
    if program.fd().is_err() {
        program.load().map_err(|error| refused(EVENT_PROBE, error))?;
    }
    open_events(ebpf).map(drop)
}

/// The events of a pinned engine.
pub struct FaultEvents {
    program: PerfEvent,
    pins: Pins,
}

impl FaultEvents {
    /// None if the engine sees faults by tracepoints.
    ///
    /// # Errors
    /// The program's pin cannot be opened.
    pub fn of(pins: &Pins) -> Result<Option<Self>> {
        if source_of(pins) != Source::Perf {
            return Ok(None);
        }
        let path = pins.program(EVENT_PROBE);
        let program = PerfEvent::from_pin(&path)
            .with_context(|| format!("cannot open the pinned program {}", path.display()))?;
        Ok(Some(Self { program, pins: pins.clone() }))
    }

    /// Gives CPUs another event in the place of what they have, which may be dead: nothing tells. Faults between
    /// the two are not seen, and charged by what they allocate. Waits for CPUs that are on their way: until they
    /// have arrived the kernel opens no event.
    pub fn renew(&mut self, cpus: impl IntoIterator<Item = u32>) {
        for cpu in cpus {
            if let Err(error) = self.renew_one(cpu) {
                log::warn!("faults on CPU {cpu} are charged by what they allocate only: {error:#}");
            }
        }
    }

    fn renew_one(&mut self, cpu: u32) -> Result<()> {
        match PinnedLink::from_pin(self.pins.cpu_link(EVENT_PROBE, cpu)) {
            // Held while its pin goes, the old one ends with this and not some time later.
            Ok(old) => drop(old.unpin().context("cannot remove the pin of the event before")?),
            Err(LinkError::SyscallError(SyscallError { io_error, .. }))
                if io_error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("cannot open the event before"),
        }
        match open_event(&mut self.program, cpu)? {
            Some(link) => pin_event(link, &self.pins, cpu),
            None => Ok(()),
        }
    }
}
