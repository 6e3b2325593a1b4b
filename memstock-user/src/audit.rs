//! Owns the audit: the proof that what is charged is what is owned, the page-by-page comparison with the kernel, and
//! the repair. Renders nothing.
//!
//! - `conserve`: for each counter, usage = pages owned + pages charged and not in use.
//! - `compare`: each page's owner beside what the kernel says.
//! - `repair`: moves pages to the cgroups that the kernel charges.

pub mod adoption;

mod compare;
mod conserve;
mod repair;

pub use compare::{Agreement, Comparison};
pub use conserve::{Ledger, Ledgers};

use std::collections::BTreeMap;

use anyhow::Result;

use crate::audit::adoption::{CgroupAdopted, by_name};
use crate::engine::Engine;
use crate::engine::kernel_cgroup::{KernelCgroup, KernelCgroups, PageScan, Tracked};
use crate::exit::Failure;
use crate::host::cgroup::CgroupMount;
use crate::host::pages::Kind;
use crate::model::Name;

/// What an audit found, and what it did about it. All figures are pages.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Every tracked and every dying cgroup, by path.
    pub cgroups: Vec<CgroupAudit>,
    /// Pages with an owner.
    pub owned: u64,
    /// Pages owned by, or stocked for, a counter that is not in use.
    pub ownerless: u64,
    /// Pages with an owner that are free or slab in the kernel: frees that the probe missed, which their next
    /// allocation will repair.
    pub stale: u64,
    /// Whether nothing changed while it was read. Otherwise the figures are the best of several readings.
    pub is_exact: bool,
    /// All cgroups that the kernel knows, summed up; none if it knows none.
    pub agreement: Option<Agreement>,
    /// The same by kind of page: pages that the kernel or memstock gives to such a cgroup.
    pub kinds: Vec<(Kind, Agreement)>,
    /// Pages with an owner that are page cache according to memstock, the kernel, or both.
    pub file: Agreement,
    /// What the repair moved, if one was asked for.
    pub repaired: Option<Vec<CgroupAdopted>>,
}

/// What an audit found of one cgroup.
#[derive(Clone, Debug)]
pub struct CgroupAudit {
    /// Which.
    pub name: Name,
    /// Whether it is dying.
    pub is_dying: bool,
    /// Usage and what it consists of, including descendants.
    pub ledger: Ledger,
    /// Whether memory+swap is charged as well.
    pub has_memsw: bool,
    /// Its own user pages, without descendants, on both sides; none if the kernel does not know it.
    pub agreement: Option<Agreement>,
}

impl Audit {
    /// Whether something is certainly wrong.
    pub fn is_off(&self) -> bool {
        let drifts =
            |cgroup: &CgroupAudit| cgroup.ledger.drifts(cgroup.has_memsw).any(|drift| drift != 0);
        self.is_exact && (self.ownerless != 0 || self.cgroups.iter().any(drifts))
    }
}

/// Audits a running engine, and repairs what can be repaired if `does_repair`.
///
/// Returns what was found before the repair.
///
/// # Errors
/// A map or a file in `/proc` cannot be read, a kernel cgroup does not fit, or the engine refuses.
pub fn audit(
    engine: &Engine,
    mount: &CgroupMount,
    named: &[KernelCgroup],
    does_repair: bool,
) -> Result<Audit> {
    let tracked = Tracked::read(engine, mount)?;
    let roots = tracked.roots();
    if roots.len() > 1 && named.iter().any(|named| named.cgroup.is_none()) {
        return Err(Failure::Usage.error(
            "--kernel-cgroup: several cgroups are tracked: say for which, as in CGROUP=PATH",
        ));
    }
    let kernel = KernelCgroups::find(mount, named, &roots)?;
    // Conservation first: the comparison takes longer, and concerns single pages.
    let ledgers = Ledgers::read(engine)?;
    let scan = PageScan::open(engine, kernel.map(&tracked))?;
    let comparison = Comparison::of(&scan)?;
    let repaired = if does_repair {
        let moved = repair::repair(engine, &tracked, &scan, &comparison.different)?;
        Some(by_name(&moved, &tracked))
    } else {
        None
    };
    Ok(put_together(engine, &tracked, &scan, &ledgers, comparison, repaired))
}

fn put_together(
    engine: &Engine,
    tracked: &Tracked,
    scan: &PageScan,
    ledgers: &Ledgers,
    comparison: Comparison,
    repaired: Option<Vec<CgroupAdopted>>,
) -> Audit {
    let mut agreements: BTreeMap<u32, Agreement> = comparison.cgroups;
    let mut cgroups: Vec<_> = ledgers
        .cgroups
        .iter()
        .map(|(&index, &ledger)| CgroupAudit {
            name: tracked.name(index),
            is_dying: tracked.is_dying(index),
            ledger,
            has_memsw: engine.info().memsw == 1,
            agreement: scan
                .map()
                .knows(index)
                .then(|| agreements.remove(&index).unwrap_or_default()),
        })
        .collect();
    cgroups.sort_by(|a, b| (&a.name.path, a.name.id).cmp(&(&b.name.path, b.name.id)));
    let is_compared = !scan.map().is_empty();
    Audit {
        cgroups,
        owned: ledgers.owned,
        ownerless: ledgers.ownerless,
        stale: comparison.stale,
        is_exact: ledgers.is_exact,
        agreement: is_compared.then_some(comparison.all),
        file: comparison.file,
        kinds: if is_compared { comparison.kinds } else { Vec::new() },
        repaired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_no_counter_are_wrong_if_nothing_moved() {
        let is_off = |ownerless, is_exact| {
            let audit = Audit {
                cgroups: Vec::new(),
                owned: 0,
                ownerless,
                stale: 0,
                is_exact,
                agreement: None,
                kinds: Vec::new(),
                file: Agreement::default(),
                repaired: None,
            };
            audit.is_off()
        };
        assert!(is_off(1, true) && !is_off(1, false) && !is_off(0, true));
    }
}
