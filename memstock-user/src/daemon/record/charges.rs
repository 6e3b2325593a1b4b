//! Records charges: each one, and the cgroups they belong to. Does not know how they are reported.

use std::collections::HashSet;
use std::io::{self, Write};

use anyhow::Result;
use memstock_common::record::{Charged, RecordKind};
use memstock_common::{NO_INDEX, index_of};

use crate::engine::Engine;
use crate::engine::charged::Charges;
use crate::host::cgroup::CgroupMount;
use crate::recording::{Charge, ChargeKind, Charger, Writer};

/// Stated in the header of each recording that has charges.
const ASSUMES: &str = "Charges: not recorded are pages stocked before the first, pages that memstock itself drained, \
    adopted, repaired or moved to another cgroup, and pages that the kernel migrated or collapsed.";
/// Records read before anything else is done.
const MUCH: usize = 50_000;

/// The charges that are being recorded.
pub(super) struct Charging {
    of: Charges,
    /// Counter indices that the file already describes.
    known: HashSet<u32>,
}

impl Charging {
    pub(super) fn begin(engine: &Engine) -> Result<Self> {
        Ok(Self { of: Charges::watch(engine)?, known: HashSet::new() })
    }

    /// What the header must say about them.
    pub(super) fn assumes(&self) -> Vec<String> {
        let missing = self.of.missing();
        let lacks = (!missing.is_empty())
            .then(|| format!("Charges: this kernel lacks the tracepoints {}.", missing.join(", ")));
        [ASSUMES.to_owned()].into_iter().chain(lacks).collect()
    }

    /// Records what was reported, at most [`MUCH`] records; returns whether there is more.
    pub(super) fn poll(
        &mut self,
        engine: &Engine,
        mount: &CgroupMount,
        to: &mut Writer<impl Write>,
    ) -> Result<bool> {
        for _ in 0..MUCH {
            let Some((kind, charged)) = self.of.read()? else { return Ok(false) };
            let Charged { cpu, owner, nr_pages, .. } = charged;
            let index = index_of(owner);
            let kind = match kind {
                RecordKind::Fault => ChargeKind::Fault,
                RecordKind::Charged => ChargeKind::Charged(nr_pages),
                RecordKind::Uncharged => ChargeKind::Uncharged(nr_pages),
                _ => ChargeKind::Drained,
            };
            let index = if kind == ChargeKind::Drained { 0 } else { index };
            if kind != ChargeKind::Drained && !self.known.contains(&index) {
                self.introduce(index, engine, mount, to)?;
            }
            to.charge(Charge { cpu, index, kind })?;
        }
        Ok(true)
    }

    /// Writes which cgroup a counter belongs to, after its ancestors.
    fn introduce(
        &mut self,
        index: u32,
        engine: &Engine,
        mount: &CgroupMount,
        to: &mut Writer<impl Write>,
    ) -> Result<()> {
        let counter = engine.counter(index)?;
        let above = index_of(counter.parent as u32);
        let parent = (above != NO_INDEX).then_some(above);
        if let Some(parent) = parent.filter(|parent| !self.known.contains(parent)) {
            self.introduce(parent, engine, mount, to)?;
        }
        self.known.insert(index);
        Ok(to.charger(&Charger { index, parent, path: mount.path_of(counter.id) })?)
    }

    /// Records that found no room in the ring.
    pub(super) fn lost(&self) -> Result<u64> {
        self.of.lost()
    }
}

/// Writes the settings under which they were made.
pub(super) fn begin(engine: &Engine, to: &mut Writer<impl Write>) -> io::Result<()> {
    to.charges(engine.info().batch, engine.info().slots)
}
