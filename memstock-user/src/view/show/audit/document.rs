//! An audit as JSON: what its numbers are called, and what they are, is declared here.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::audit::adoption::CgroupAdopted;
use crate::audit::{Agreement, Audit, Book, CgroupAudit};
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
    /// All cgroups that the kernel knows together; null when it knows none.
    kernel: Option<KernelRow>,
    /// Pages with an owner that are page cache by memstock, by the kernel, or both.
    file: Sides,
    /// The comparison with the kernel by kind of page; none without one.
    kinds: BTreeMap<&'static str, Counts>,
    /// What the repair moved; null unless one was asked for.
    repaired: Option<Repaired>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Sums {
    /// Pages in use that have an owner.
    owned_pages: u64,
    /// Owned by or stocked for no counter in use: 0, or a defect.
    ownerless_pages: u64,
    /// Owned, but free or slab: their frees were lost, their next allocation heals them.
    stale_pages: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CgroupRow {
    #[serde(flatten)]
    name: record::Cgroup,
    /// Whether it is charged no more.
    dying: bool,
    #[serde(flatten)]
    book: BookRow,
    /// Its own user pages, without descendants, on both sides; null when the kernel does not know it.
    kernel: Option<KernelRow>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct BookRow {
    /// Charged to the cgroup and its descendants.
    usage_pages: u64,
    /// Pages in use that have an owner.
    owned_pages: u64,
    /// Stocked, pending, or in an uncharge batch.
    unused_pages: u64,
    /// Usage less owned and unused pages: 0, or a defect.
    drift_pages: i64,
    /// Owned pages that are page cache.
    file_pages: u64,
    /// Page cache that is told of less that of the owned pages: 0, or a defect.
    file_drift_pages: i64,
    /// The drift of memory+swap; null when that is not counted.
    memsw_drift_pages: Option<i64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct KernelRow {
    #[serde(flatten)]
    counts: Counts,
    /// Percent of the pages that either side gives to a cgroup that both give to the same one. Null when there are none.
    agreement_percent: Option<f64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Counts {
    #[serde(flatten)]
    sides: Sides,
    /// Both do, to different cgroups.
    other_cgroup_pages: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Sides {
    /// Memstock and the kernel give them to the same cgroup.
    both_pages: u64,
    /// Only memstock gives them to a cgroup.
    only_ours_pages: u64,
    /// Only the kernel gives them to a cgroup.
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
    /// Had no owner and were charged to the cgroup.
    pub adopted_pages: u64,
    /// Were taken from the cgroup and uncharged.
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
        book: book(&cgroup.book, cgroup.has_memsw),
        kernel: cgroup.agreement.as_ref().map(kernel),
    }
}

pub(super) fn book(book: &Book, has_memsw: bool) -> BookRow {
    BookRow {
        usage_pages: book.usage,
        owned_pages: book.owned,
        unused_pages: book.unused,
        drift_pages: book.drift(),
        file_pages: book.owned_file,
        file_drift_pages: book.file_drift(),
        memsw_drift_pages: has_memsw.then(|| book.memsw_drift()),
    }
}

fn kernel(agreement: &Agreement) -> KernelRow {
    let percent = agreement.millipercent().map(|milli| milli as f64 / 1000.0);
    KernelRow { counts: counts(agreement), agreement_percent: percent }
}

pub(super) fn counts(agreement: &Agreement) -> Counts {
    Counts { sides: sides(agreement), other_cgroup_pages: agreement.other }
}

/// Of pages with an owner by memstock none is another cgroup's.
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

/// Names and values, without what is null.
pub(super) fn members(row: impl Serialize) -> impl Iterator<Item = (String, Value)> {
    let members = serde_json::to_value(row).ok().and_then(|row| row.as_object().cloned());
    members.unwrap_or_default().into_iter().filter(|(_, value)| !value.is_null())
}
