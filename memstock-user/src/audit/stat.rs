//! The numbers of an audit: name, unit and help, written once for table and JSON.

use memstock_common::stat::{Stat, Trend, Unit};

const fn pages(name: &'static str, help: &'static str) -> Stat {
    Stat { name, unit: Unit::Pages, trend: Trend::Gauge, help }
}

/// Charged to the cgroup and its descendants.
pub const USAGE: Stat = pages("usage_pages", "Charged to the cgroup and its descendants.");
/// Pages with an owner.
pub const OWNED: Stat = pages("owned_pages", "Pages in use that have an owner.");
/// Charged and not in use.
pub const UNUSED: Stat = pages("unused_pages", "Stocked, pending, or in an uncharge batch.");
/// What does not add up.
pub const DRIFT: Stat = pages("drift_pages", "Usage less owned and unused pages: 0, or a defect.");
/// Page cache of the owned pages.
pub const FILE: Stat = pages("file_pages", "Owned pages that are page cache.");
/// What does not add up in page cache.
pub const FILE_DRIFT: Stat = pages(
    "file_drift_pages",
    "Page cache that is told of less that of the owned pages: 0, or a defect.",
);
/// What does not add up in memory+swap.
pub const MEMSW_DRIFT: Stat = pages("memsw_drift_pages", "The drift of memory+swap.");
/// Owned by no living counter.
pub const OWNERLESS: Stat =
    pages("ownerless_pages", "Owned by or stocked for no counter in use: 0, or a defect.");
/// Owned, and cannot be.
pub const STALE: Stat = pages(
    "stale_pages",
    "Owned, but free or slab: their frees were lost, their next allocation heals them.",
);
/// Both sides agree.
pub const BOTH: Stat = pages("both_pages", "Memstock and the kernel give them to the same cgroup.");
/// Only memstock's.
pub const ONLY_OURS: Stat = pages("only_ours_pages", "Only memstock gives them to a cgroup.");
/// Only the kernel's.
pub const ONLY_KERNELS: Stat =
    pages("only_kernels_pages", "Only the kernel gives them to a cgroup.");
/// Different cgroups.
pub const OTHER: Stat = pages("other_cgroup_pages", "Both do, to different cgroups.");
/// Charged by adoption or repair.
pub const ADOPTED: Stat = pages("adopted_pages", "Had no owner and were charged to the cgroup.");
/// Uncharged by adoption or repair.
pub const DISOWNED: Stat = pages("disowned_pages", "Were taken from the cgroup and uncharged.");
/// How much both sides agree.
pub const AGREEMENT: Stat = Stat {
    name: "agreement_percent",
    unit: Unit::Count,
    trend: Trend::Gauge,
    help: "Percent of the pages that either side gives to a cgroup that both give to the same one.",
};
