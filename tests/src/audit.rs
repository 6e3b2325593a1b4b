//! The JSON of `memstock audit`, as a test reads it. All figures are pages.
//!
//! As in `show`, every documented key is a field, so a missing key fails every test.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::poll::{SOON, try_poll_until};
use crate::process::memstock;
use crate::{Engine, KernelCgroup, TestCgroup, free_lists, lru};

/// What an audit found.
#[derive(Clone, Debug, Deserialize)]
pub struct Audit {
    /// The tracked and the dying cgroups.
    pub cgroups: Vec<Cgroup>,
    /// Whether nothing moved while it was read.
    pub exact: bool,
    /// Pages with an owner.
    #[serde(rename = "owned_pages")]
    pub owned: u64,
    /// Pages whose owner is not a counter in use.
    #[serde(rename = "ownerless_pages")]
    pub ownerless: u64,
    /// Pages with an owner that are free or slab.
    #[serde(rename = "stale_pages")]
    pub stale: u64,
    /// Comparison with the kernel over user pages; `None` without a kernel cgroup.
    pub kernel: Option<Agreement>,
    /// Owned pages that are page cache to memstock, to the kernel, or to both.
    pub file: FileCounts,
    /// The comparison by kind of page.
    pub kinds: BTreeMap<String, Counts>,
    /// What a repair changed.
    pub repaired: Option<Repaired>,
}

/// One tracked or dying cgroup. Its counts include descendants; the comparison with the kernel does not.
#[derive(Clone, Debug, Deserialize)]
pub struct Cgroup {
    /// Path in the hierarchy; `None` for a removed cgroup.
    pub path: Option<String>,
    /// cgroup v2 id.
    pub id: u64,
    /// Whether it was removed and waits for its pages to be freed.
    pub dying: bool,
    /// Pages charged.
    #[serde(rename = "usage_pages")]
    pub usage: i64,
    /// Pages owned.
    #[serde(rename = "owned_pages")]
    pub owned: i64,
    /// Pages stocked, pending, or in an uncharge batch.
    #[serde(rename = "unused_pages")]
    pub unused: i64,
    /// `usage` minus `owned` and `unused`; 0 if it adds up.
    #[serde(rename = "drift_pages")]
    pub drift: i64,
    /// Owned pages that are page cache.
    #[serde(rename = "file_pages")]
    pub file: i64,
    /// Page cache counted minus that in the owner map; 0 if it adds up.
    #[serde(rename = "file_drift_pages")]
    pub file_drift: i64,
    /// Drift of memory+swap, if that is counted.
    #[serde(rename = "memsw_drift_pages")]
    pub memsw_drift: Option<i64>,
    /// Comparison with the kernel over user pages; `None` if the kernel does not know the cgroup.
    pub kernel: Option<Agreement>,
}

/// How far memstock and the kernel agree on the cgroup of user pages.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Agreement {
    /// As page counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// As a percentage of the pages that either side assigns to a cgroup.
    #[serde(rename = "agreement_percent")]
    pub percent: Option<f64>,
}

/// Pages by how the two sides assign them.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Counts {
    /// Both assign them to the same cgroup.
    #[serde(rename = "both_pages")]
    pub both: u64,
    /// Only memstock does.
    #[serde(rename = "only_ours_pages")]
    pub only_ours: u64,
    /// Only the kernel does.
    #[serde(rename = "only_kernels_pages")]
    pub only_kernels: u64,
    /// Both do, but to different cgroups.
    #[serde(rename = "other_cgroup_pages")]
    pub other: u64,
}

/// Owned pages, by which side counts them as page cache.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct FileCounts {
    /// Memstock and the kernel.
    #[serde(rename = "both_pages")]
    pub both: u64,
    /// Only memstock.
    #[serde(rename = "only_ours_pages")]
    pub only_ours: u64,
    /// Only the kernel.
    #[serde(rename = "only_kernels_pages")]
    pub only_kernels: u64,
}

/// What a repair changed.
#[derive(Clone, Debug, Deserialize)]
pub struct Repaired {
    /// Charged to a cgroup.
    #[serde(rename = "adopted_pages")]
    pub adopted: u64,
    /// Uncharged from a cgroup.
    #[serde(rename = "disowned_pages")]
    pub disowned: u64,
    /// By cgroup.
    pub cgroups: Vec<RepairedCgroup>,
}

/// What a repair changed in one cgroup.
#[derive(Clone, Debug, Deserialize)]
pub struct RepairedCgroup {
    /// Path in the hierarchy; `None` for a removed cgroup.
    pub path: Option<String>,
    /// cgroup v2 id.
    pub id: u64,
    /// Pages charged to it.
    #[serde(rename = "adopted_pages")]
    pub adopted: u64,
    /// Pages uncharged from it.
    #[serde(rename = "disowned_pages")]
    pub disowned: u64,
}

impl Engine {
    /// Runs `memstock audit --json` with these further arguments. Finding a drift is not an error.
    ///
    /// # Errors
    /// When it fails, or its exit code contradicts its figures.
    pub fn audit<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Audit> {
        let args: Vec<A> = args.into_iter().collect();
        let verb = ["audit", "--json"].map(OsStr::new);
        let all = verb.into_iter().chain(args.iter().map(AsRef::as_ref));
        let finished = memstock(all)?.finish(3 * SOON)?;
        ensure!([0, 125].contains(&finished.code()), "memstock audit failed: {finished:?}");
        let audit: Audit = serde_json::from_str(&finished.stdout)
            .with_context(|| format!("memstock audit --json: {finished:?}"))?;
        let off = audit.exact && !audit.balances();
        ensure!(off == (finished.code() == 125), "the exit code says otherwise: {finished:?}");
        Ok(audit)
    }

    /// Pages that a cgroup and its descendants use, read until they stop changing over several grace periods of the
    /// kernel. Freed pages may come back late: page tables after such a period, which takes longer than a few reads
    /// on a busy host, the last pages of a program that has exec'd with the kernel's batches.
    ///
    /// # Errors
    /// When it is not tracked, or never comes to rest.
    pub fn used_at_rest(&self, cgroup: &TestCgroup) -> Result<u64> {
        const STILL: u32 = 3;
        let (mut last, mut still) = (None, 0);
        try_poll_until(SOON, "a cgroup at rest", || {
            lru::drain()?;
            grace_period();
            let used = self.show()?.cgroup(cgroup.path())?.used_pages();
            still = if last == Some(used) { still + 1 } else { 0 };
            last = Some(used);
            Ok((still == STILL).then_some(used))
        })
    }

    /// Heals pages whose frees were missed: allocates those on the per-CPU free lists, and repairs those that the
    /// kernel already counts as free.
    ///
    /// # Errors
    /// When pages were repaired although no free was missed.
    pub fn heal(&self) -> Result<()> {
        free_lists::turn_over()?;
        let repaired = self.audit(["--repair"])?.repaired.context("no repair")?;
        let missed = self.show()?.loss.recursion_misses;
        ensure!(repaired.adopted == 0, "nothing was to be adopted: {repaired:#?}");
        ensure!(repaired.disowned == 0 || missed > 0, "no free was missed: {repaired:#?}");
        Ok(())
    }

    /// Repeats [`Self::audit`] until nothing changes while it reads, which takes idle tasks and all freed page tables
    /// gone, and checks that everything adds up.
    ///
    /// # Errors
    /// When changes go on, or a page is missing or one too many.
    pub fn audit_at_rest<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Audit> {
        let audit = try_poll_until(SOON, "an audit in which nothing moves", || {
            let audit = self.audit(args)?;
            Ok(audit.exact.then_some(audit))
        })?;
        audit.check()?;
        Ok(audit)
    }
}

/// Waits for one grace period. Where the kernel refuses, on a host with `nohz_full` CPUs, it does not wait.
fn grace_period() {
    // SAFETY: it takes two numbers, and changes nothing.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0) };
}

/// The arguments of an audit that compares the cgroups below `cgroup` with those of the same names below `kernel`,
/// page by page.
pub fn beside(cgroup: &TestCgroup, kernel: &KernelCgroup) -> [String; 2] {
    ["--kernel-cgroup".to_owned(), format!("{}={}", cgroup.path(), kernel.argument())]
}

impl Audit {
    /// The cgroup at `path`.
    ///
    /// # Errors
    /// When it is not tracked.
    pub fn cgroup(&self, path: &str) -> Result<&Cgroup> {
        let found = self.cgroups.iter().find(|cgroup| cgroup.path.as_deref() == Some(path));
        found.with_context(|| format!("{path} is not among the audited {:?}", self.cgroups))
    }

    /// Whether every living cgroup has exactly the pages it is charged for, and no page has an owner that is gone.
    fn balances(&self) -> bool {
        let balanced = |cgroup: &Cgroup| {
            [cgroup.drift, cgroup.file_drift, cgroup.memsw_drift.unwrap_or(0)] == [0; 3]
        };
        self.ownerless == 0 && self.cgroups.iter().all(balanced)
    }

    /// Checks conservation to the page, for every cgroup and level, in an exact audit. Call it when nothing that is
    /// charged runs.
    ///
    /// # Errors
    /// When a figure does not add up.
    pub fn check(&self) -> Result<()> {
        ensure!(self.exact, "the audit was not sure, although nothing runs: {self:#?}");
        ensure!(self.balances(), "pages do not add up to what is charged: {self:#?}");
        Ok(())
    }

    /// The agreement over all cgroups, user pages only.
    ///
    /// # Errors
    /// When nothing was compared.
    pub fn agreement(&self) -> Result<Agreement> {
        self.kernel.context("no kernel cgroup was given, so nothing was compared")
    }

    /// The comparison of one kind of page.
    pub fn kind(&self, name: &str) -> Counts {
        self.kinds.get(name).copied().unwrap_or_default()
    }
}

impl Counts {
    /// Pages on which the two sides differ.
    pub fn different(&self) -> u64 {
        self.only_ours + self.only_kernels + self.other
    }

    /// Pages that either side assigns to a cgroup.
    pub fn either(&self) -> u64 {
        self.both + self.different()
    }
}

/// One line: what agrees, and what differs by kind.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Agreement { counts, percent: Some(percent) }) = self.kernel {
            write!(f, "{percent:.3} % of {} user pages; ", counts.either())?;
        }
        let FileCounts { both, only_ours, only_kernels } = self.file;
        write!(f, "{} stale; page cache: {both} both", self.stale)?;
        if (only_ours, only_kernels) != (0, 0) {
            write!(f, ", {only_ours} ours, {only_kernels} kernel's")?;
        }
        for (kind, counts) in &self.kinds {
            let Counts { both, only_ours, only_kernels, other } = counts;
            if counts.different() > 0 {
                write!(f, "; {kind}: {both} both, {only_ours} ours, {only_kernels} kernel's")?;
            }
            if *other > 0 {
                write!(f, ", {other} another's")?;
            }
        }
        Ok(())
    }
}
