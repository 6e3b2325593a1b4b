//! Owns the verdict on whether the two sides give a page to the same cgroup. Must not read anything.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use memstock_common::NO_INDEX;

use super::{PageView, Tracked};

/// The mapping between cgroups of both sides, at one moment.
///
/// The trees of the two sides may differ in shape: a memory cgroup without a counterpart maps to its nearest tracked
/// ancestor, and the kernel charges a tracked cgroup without one to the nearest ancestor that has one. Pages of a
/// removed cgroup count on both sides for the nearest living ancestor, as `/proc/kpagecgroup` reports them.
#[derive(Debug, Default)]
pub struct KernelMap {
    /// The kernel's number of a memory cgroup → the counter it maps to.
    counters: HashMap<u64, u32>,
    /// The smallest and the largest of these numbers.
    span: (u64, u64),
    /// Every counter in the trees → the living counter and the memory cgroup it maps to.
    stands: HashMap<u32, (u32, u64)>,
    /// By path of a tracked cgroup: the kernel's number of it.
    numbers: BTreeMap<PathBuf, u64>,
    /// The tops of the trees.
    tops: Vec<PathBuf>,
}

/// The result of comparing the two sides of a page.
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
    /// Both give it to different ones.
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

    /// Maps each counter, once all trees have been added.
    pub(super) fn resolve(&mut self, tracked: &Tracked) {
        for index in tracked.counters().indices() {
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
        // An empty range: from 1 to 0.
        self.span = least.zip(greatest).unwrap_or((1, 0));
    }

    /// The counter that the memory cgroup with this number maps to.
    #[inline]
    pub fn counter(&self, number: u64) -> Option<u32> {
        // Nearly all pages of a host belong to other cgroups: they need no look-up.
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
    pub fn judge(&self, seen: &PageView) -> Verdict {
        let stands = self.stands.get(&seen.index);
        let kernels = self.counter(seen.number);
        match (stands, kernels) {
            (Some(&(living, number)), _) if number == seen.number || kernels == Some(living) => {
                Verdict::Both
            }
            (Some(_), None) => Verdict::OnlyOurs,
            (None, None) => Verdict::Neither,
            // A page of a tracked cgroup that the kernel does not know is judged `Other`.
            (None, Some(_)) if seen.index == NO_INDEX => Verdict::OnlyKernels,
            (_, Some(_)) => Verdict::Other,
        }
    }
}
