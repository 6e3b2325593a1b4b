//! An audit as JSON: the names and meanings of its members.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::audit::adoption::CgroupAdopted;
use crate::audit::{Agreement, Audit, CgroupAudit, Ledger};
use crate::journal::record;
use crate::view::show::json::named;

/// What `memstock audit --json` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document {
    /// Every tracked and every dying cgroup, by path.
    cgroups: Vec<CgroupRow>,
    /// Whether nothing moved while it was read; else nothing is proved.
    exact: bool,
    #[serde(flatten)]
    sums: Sums,
    /// The sum over all cgroups that the kernel knows; null if it knows none.
    kernel: Option<KernelRow>,
    /// Owned pages that are page cache according to memstock, the kernel, or both.
    file: Sides,
    /// The comparison with the kernel by kind of page; empty if there was none.
    kinds: BTreeMap<&'static str, Counts>,
    /// What the repair moved; null unless a repair was requested.
    repaired: Option<Repaired>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Sums {
    /// Pages in use that have an owner.
    owned_pages: u64,
    /// Pages owned by, or stocked for, a counter that is not in use; anything but 0 is a defect.
    ownerless_pages: u64,
    /// Owned pages that are free or slab: their free was missed, and their next allocation repairs it.
    stale_pages: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CgroupRow {
    #[serde(flatten)]
    name: record::Cgroup,
    /// Whether it was removed, and is no longer charged.
    dying: bool,
    #[serde(flatten)]
    ledger: LedgerRow,
    /// Comparison of its own user pages, without descendants; null if the kernel does not know it.
    kernel: Option<KernelRow>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LedgerRow {
    /// Charged to the cgroup and its descendants.
    usage_pages: u64,
    /// Pages in use that have an owner.
    owned_pages: u64,
    /// Stocked, pending, or in an uncharge batch.
    unused_pages: u64,
    /// Usage less owned and unused pages; anything but 0 is a defect.
    drift_pages: i64,
    /// Owned pages that are page cache.
    file_pages: u64,
    /// The counter of page cache less `file_pages`; anything but 0 is a defect.
    file_drift_pages: i64,
    /// The drift of memory+swap; null when that is not counted.
    memsw_drift_pages: Option<i64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct KernelRow {
    #[serde(flatten)]
    counts: Counts,
    /// Of the pages that either side charges to a cgroup, the percentage that both charge to the same one; null without
    /// any.
    agreement_percent: Option<f64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Counts {
    #[serde(flatten)]
    sides: Sides,
    /// Pages that both count, for different cgroups.
    other_cgroup_pages: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Sides {
    /// Pages that both charge to the same cgroup; of page cache, that both count as such.
    both_pages: u64,
    /// Pages that only memstock counts.
    only_ours_pages: u64,
    /// Pages that only the kernel counts.
    only_kernels_pages: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Repaired {
    #[serde(flatten)]
    sums: Moved,
    /// By cgroup.
    cgroups: Vec<RepairedRow>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RepairedRow {
    #[serde(flatten)]
    name: record::Cgroup,
    #[serde(flatten)]
    moved: Moved,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Moved {
    /// Pages that had no owner and were charged to the cgroup.
    pub adopted_pages: u64,
    /// Pages that were uncharged from the cgroup.
    pub disowned_pages: u64,
}

/// The document that `memstock audit --json` prints.
pub fn document(audit: &Audit) -> Value {
    json!(Document {
        cgroups: audit.cgroups.iter().map(cgroup).collect(),
        exact: audit.is_exact,
        sums: sums(audit),
        kernel: audit.agreement.as_ref().map(kernel),
        file: sides(&audit.file),
        kinds: audit.kinds.iter().map(|(kind, of)| (kind.name(), counts(of))).collect(),
        repaired: audit.repaired.as_deref().map(repaired),
    })
}

pub(super) fn sums(audit: &Audit) -> Sums {
    let Audit { owned, ownerless, stale, .. } = *audit;
    Sums { owned_pages: owned, ownerless_pages: ownerless, stale_pages: stale }
}

fn cgroup(cgroup: &CgroupAudit) -> CgroupRow {
    CgroupRow {
        name: named(&cgroup.name),
        dying: cgroup.is_dying,
        ledger: ledger(&cgroup.ledger, cgroup.has_memsw),
        kernel: cgroup.agreement.as_ref().map(kernel),
    }
}

pub(super) fn ledger(ledger: &Ledger, has_memsw: bool) -> LedgerRow {
    LedgerRow {
        usage_pages: ledger.usage,
        owned_pages: ledger.owned,
        unused_pages: ledger.unused,
        drift_pages: ledger.drift(),
        file_pages: ledger.owned_file,
        file_drift_pages: ledger.file_drift(),
        memsw_drift_pages: has_memsw.then(|| ledger.memsw_drift()),
    }
}

fn kernel(agreement: &Agreement) -> KernelRow {
    let percent = agreement.millipercent().map(|milli| milli as f64 / 1000.0);
    KernelRow { counts: counts(agreement), agreement_percent: percent }
}

pub(super) fn counts(agreement: &Agreement) -> Counts {
    Counts { sides: sides(agreement), other_cgroup_pages: agreement.other }
}

/// Without `other`, which [`Counts`] adds and page cache does not have.
fn sides(agreement: &Agreement) -> Sides {
    let Agreement { both, only_ours, only_kernels, other: _ } = *agreement;
    Sides { both_pages: both, only_ours_pages: only_ours, only_kernels_pages: only_kernels }
}

fn repaired(cgroups: &[CgroupAdopted]) -> Repaired {
    let row = |cgroup: &CgroupAdopted| RepairedRow {
        name: named(&cgroup.name),
        moved: moved(std::slice::from_ref(cgroup)),
    };
    Repaired { sums: moved(cgroups), cgroups: cgroups.iter().map(row).collect() }
}

pub(super) fn moved(cgroups: &[CgroupAdopted]) -> Moved {
    let sum = |part: fn(&CgroupAdopted) -> u64| cgroups.iter().map(part).sum();
    Moved {
        adopted_pages: sum(|cgroup| cgroup.adopted),
        disowned_pages: sum(|cgroup| cgroup.disowned),
    }
}

/// Names and values of all members that are not null.
pub(super) fn members(row: impl Serialize) -> impl Iterator<Item = (String, Value)> {
    let members = serde_json::to_value(row).ok().and_then(|row| row.as_object().cloned());
    members.unwrap_or_default().into_iter().filter(|(_, value)| !value.is_null())
}
