//! The JSON of `memstock audit`, as a test reads it. All figures are pages.
//!
//! As in `show`, every key of the contract is a field, so that one that goes missing fails every test.

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
    /// Pages of no counter that is in use.
    #[serde(rename = "ownerless_pages")]
    pub ownerless: u64,
    /// Pages with an owner that are free or slab.
    #[serde(rename = "stale_pages")]
    pub stale: u64,
    /// The comparison with the kernel, of user pages; none when it knows no cgroup.
    pub kernel: Option<Agreement>,
    /// Pages with an owner that are page cache by memstock, by the kernel, or both.
    pub file: FileCounts,
    /// The comparison by kind of page.
    pub kinds: BTreeMap<String, Counts>,
    /// What a repair moved.
    pub repaired: Option<Repaired>,
}

/// One tracked or dying cgroup. The book includes its descendants, the comparison does not.
#[derive(Clone, Debug, Deserialize)]
pub struct Cgroup {
    /// Path in the hierarchy; none of a removed one.
    pub path: Option<String>,
    /// cgroup v2 id.
    pub id: u64,
    /// Whether it only waits for its pages to be freed.
    pub dying: bool,
    /// Charged.
    #[serde(rename = "usage_pages")]
    pub usage: i64,
    /// In use.
    #[serde(rename = "owned_pages")]
    pub owned: i64,
    /// Stocked, pending, or in an uncharge batch.
    #[serde(rename = "unused_pages")]
    pub unused: i64,
    /// What does not add up.
    #[serde(rename = "drift_pages")]
    pub drift: i64,
    /// Owned pages that are page cache.
    #[serde(rename = "file_pages")]
    pub file: i64,
    /// What of that does not add up.
    #[serde(rename = "file_drift_pages")]
    pub file_drift: i64,
    /// The same of memory and swap, if that is counted.
    #[serde(rename = "memsw_drift_pages")]
    pub memsw_drift: Option<i64>,
    /// The comparison with the kernel, of user pages; none when it does not know the cgroup.
    pub kernel: Option<Agreement>,
}

/// How many user pages both sides give to the same cgroup.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Agreement {
    /// In numbers.
    #[serde(flatten)]
    pub counts: Counts,
    /// In percent of those that either side gives to a cgroup.
    #[serde(rename = "agreement_percent")]
    pub percent: Option<f64>,
}

/// Pages by what the two sides say.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Counts {
    /// Both give them to the same cgroup.
    #[serde(rename = "both_pages")]
    pub both: u64,
    /// Only memstock does.
    #[serde(rename = "only_ours_pages")]
    pub only_ours: u64,
    /// Only the kernel does.
    #[serde(rename = "only_kernels_pages")]
    pub only_kernels: u64,
    /// Both do, to different ones.
    #[serde(rename = "other_cgroup_pages")]
    pub other: u64,
}

/// Pages with an owner, by who has them as page cache.
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

/// What a repair moved.
#[derive(Clone, Debug, Deserialize)]
pub struct Repaired {
    /// Charged to a cgroup.
    #[serde(rename = "adopted_pages")]
    pub adopted: u64,
    /// Taken from one.
    #[serde(rename = "disowned_pages")]
    pub disowned: u64,
    /// By cgroup.
    pub cgroups: Vec<RepairedCgroup>,
}

/// What a repair moved of one cgroup.
#[derive(Clone, Debug, Deserialize)]
pub struct RepairedCgroup {
    /// Path in the hierarchy; none of a removed one.
    pub path: Option<String>,
    /// cgroup v2 id.
    pub id: u64,
    /// Charged to it.
    #[serde(rename = "adopted_pages")]
    pub adopted: u64,
    /// Taken from it.
    #[serde(rename = "disowned_pages")]
    pub disowned: u64,
}

impl Engine {
    /// Runs `memstock audit --json` with these further arguments. One that finds a drift is an answer, too.
    ///
    /// # Errors
    /// When it fails, or its exit code does not say what its figures say.
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

    /// What a cgroup uses, its descendants too, once its tasks wait for a command and what they freed
    /// before has come back: page tables go a grace period later, and the last pages of a program
    /// that has exec'd wait in the kernel's batches.
    ///
    /// # Errors
    /// When it is not tracked, or never comes to rest.
    pub fn used_at_rest(&self, cgroup: &TestCgroup) -> Result<u64> {
        const STILL: u32 = 3;
        lru::drain()?;
        let (mut last, mut still) = (None, 0);
        try_poll_until(SOON, "a cgroup at rest", || {
            let used = self.show()?.cgroup(cgroup.path())?.used_pages();
            still = if last == Some(used) { still + 1 } else { 0 };
            last = Some(used);
            Ok((still == STILL).then_some(used))
        })
    }

    /// Has pages whose frees were missed healed: those on the CPUs' lists of free pages by allocating them,
    /// and what the kernel has as free already by a repair.
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

    /// [`Self::audit`], once nothing moves while it is read, which is when the tasks stand and the page
    /// tables that they freed before are through. Then all has to add up.
    ///
    /// # Errors
    /// When things go on moving, or a page is missing or too many.
    pub fn audit_at_rest<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Audit> {
        let audit = try_poll_until(SOON, "an audit in which nothing moves", || {
            let audit = self.audit(args)?;
            Ok(audit.exact.then_some(audit))
        })?;
        audit.check()?;
        Ok(audit)
    }
}

/// The arguments of an audit that compares each page with what the kernel says of `kernel`, of which each
/// cgroup stands for the one of the same name below `cgroup`.
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

    /// No page of a living cgroup is missing, none is too many, and none has an owner that is gone.
    fn balances(&self) -> bool {
        let balanced = |cgroup: &Cgroup| {
            [cgroup.drift, cgroup.file_drift, cgroup.memsw_drift.unwrap_or(0)] == [0; 3]
        };
        self.ownerless == 0 && self.cgroups.iter().all(balanced)
    }

    /// The law of conservation holds to the page, for every cgroup and level, and the audit is sure of it.
    /// To be asked when nothing runs that is charged.
    ///
    /// # Errors
    /// Says what does not add up.
    pub fn check(&self) -> Result<()> {
        ensure!(self.exact, "the audit was not sure, although nothing runs: {self:#?}");
        ensure!(self.balances(), "pages do not add up to what is charged: {self:#?}");
        Ok(())
    }

    /// All cgroups together, user pages only.
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
    /// Pages of which the two sides do not say the same.
    pub fn different(&self) -> u64 {
        self.only_ours + self.only_kernels + self.other
    }

    /// Pages that either side gives to a cgroup.
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
