//! Owns the judgement whether the two sides give a page to the same cgroup. Must not read anything.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use memstock_common::NO_INDEX;

use super::{Seen, Tracked};

/// Which cgroup is which, at one moment.
///
/// The trees of both sides need not have the same shape: a memory cgroup without a counterpart stands for
/// its nearest tracked ancestor, and a tracked cgroup without one is charged by the kernel to the
/// nearest that has one. A removed cgroup's pages count on both sides for the nearest ancestor that is
/// not removed, as `/proc/kpagecgroup` has it.
#[derive(Debug, Default)]
pub struct KernelMap {
    /// The kernel's number of a memory cgroup → the counter that it stands for.
    counters: HashMap<u64, u32>,
    /// The least and the greatest of these numbers.
    span: (u64, u64),
    /// Every counter below the trees → the counter and the memory cgroup that stand for it.
    stands: HashMap<u32, (u32, u64)>,
    /// By path of a tracked cgroup: the kernel's number for it.
    numbers: BTreeMap<PathBuf, u64>,
    /// Where the trees begin.
    tops: Vec<PathBuf>,
}

/// What two looks at one page come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Neither side gives it to one of these cgroups.
    Neither,
    /// Both give it to the same cgroup.
    Both,
    /// Only memstock does.
    OnlyOurs,
    /// Only the kernel does.
    OnlyKernels,
    /// Both do, to different ones.
    Other,
}

impl KernelMap {
    /// Adds the memory cgroups `numbers`, by their paths below the tracked cgroup `top`.
    pub(super) fn add_tree(&mut self, top: &Path, numbers: &[(PathBuf, u64)], tracked: &Tracked) {
        self.tops.push(top.to_path_buf());
        for (below, number) in numbers {
            let path = if below.as_os_str().is_empty() { top.into() } else { top.join(below) };
            if let Some(index) = tracked.nearest(&path) {
                self.counters.insert(*number, index);
            }
            self.numbers.insert(path, *number);
        }
    }

    /// Finds out what stands for each counter, once all trees are there.
    pub(super) fn resolve(&mut self, tracked: &Tracked) {
        for &index in tracked.counters().keys() {
            let Some(living) = tracked.living(index) else { continue };
            let Some(path) = tracked.path(living) else { continue };
            let below = |path: &&Path| self.tops.iter().any(|top| path.starts_with(top));
            let mut ancestors = path.ancestors().take_while(below);
            if let Some(&number) = ancestors.find_map(|path| self.numbers.get(path)) {
                self.stands.insert(index, (living, number));
            }
        }
        let least = self.counters.keys().min().copied();
        let greatest = self.counters.keys().max().copied();
        // Empty: from 1 to 0.
        self.span = least.zip(greatest).unwrap_or((1, 0));
    }

    /// The counter for which the memory cgroup with this number stands.
    #[inline]
    pub fn counter(&self, number: u64) -> Option<u32> {
        // Nearly all pages of a host are somebody else's: they need no look-up.
        let (least, greatest) = self.span;
        (least <= number && number <= greatest).then(|| self.counters.get(&number).copied())?
    }

    /// Whether the kernel knows the cgroup of this counter.
    pub fn knows(&self, index: u32) -> bool {
        self.stands.contains_key(&index)
    }

    /// Whether the kernel knows any.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// Compares the two sides.
    pub fn judge(&self, seen: &Seen) -> Verdict {
        let stands = self.stands.get(&seen.index);
        let kernels = self.counter(seen.number);
        match (stands, kernels) {
            (Some(&(living, number)), _) if number == seen.number || kernels == Some(living) => {
                Verdict::Both
            }
            (Some(_), None) => Verdict::OnlyOurs,
            (None, None) => Verdict::Neither,
            // Another tracked cgroup has it, which the kernel knows nothing of.
            (None, Some(_)) if seen.index == NO_INDEX => Verdict::OnlyKernels,
            (_, Some(_)) => Verdict::Other,
        }
    }
}
