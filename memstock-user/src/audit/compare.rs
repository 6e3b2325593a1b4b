//! Owns the comparison of the two sides, page by page. Changes nothing.
//!
//! Reading what the kernel says about all pages takes half a second, and a page can move between the two reads. So
//! pages that differ are read again a moment later, and count only if they still differ. Where the kernel knows no
//! cgroup, all that can be compared is whether a page with an owner is free.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use memstock_common::NO_INDEX;

use crate::engine::kernel_cgroup::{KernelMap, PageScan, PageView, Verdict};
use crate::host::pages::Kind;

/// Time until pages that differ are read again: longer than an allocation waits to be charged, or a page to be freed.
const PAUSE: Duration = Duration::from_millis(50);

/// Numbers of pages by what the two sides say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Both give them to the same cgroup.
    pub both: u64,
    /// Only memstock gives them to a cgroup.
    pub only_ours: u64,
    /// Only the kernel does.
    pub only_kernels: u64,
    /// Both give them to different ones.
    pub other: u64,
}

impl Agreement {
    /// Pages that either side gives to a cgroup.
    pub fn either(&self) -> u64 {
        self.both + self.only_ours + self.only_kernels + self.other
    }

    /// Thousandths of a percent of them that both give to the same cgroup, rounded down: 100 % only if all do. None if
    /// there are no pages.
    pub fn millipercent(&self) -> Option<u64> {
        let both = u128::from(self.both) * 100_000;
        both.checked_div(self.either().into()).and_then(|part| u64::try_from(part).ok())
    }

    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Neither => {}
            Verdict::Both => self.both += 1,
            Verdict::OnlyOurs => self.only_ours += 1,
            Verdict::OnlyKernels => self.only_kernels += 1,
            Verdict::Other => self.other += 1,
        }
    }
}

/// What the comparison found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Each cgroup's own user pages; those that only the kernel gives to a cgroup count for that one.
    pub cgroups: BTreeMap<u32, Agreement>,
    /// User pages of all cgroups.
    pub all: Agreement,
    /// Pages by kind, for each kind that occurs, in the order of [`Kind::ALL`].
    pub kinds: Vec<(Kind, Agreement)>,
    /// Pages with an owner that are page cache according to memstock, the kernel, or both.
    pub file: Agreement,
    /// Pages with an owner that are free or slab.
    pub stale: u64,
    /// The pages that differ, or are stale, as last read; ascending.
    pub different: Vec<PageView>,
}

impl Comparison {
    /// Reads all pages, and those that differ once more.
    ///
    /// # Errors
    /// A map or a file in `/proc` cannot be read.
    pub fn of(scan: &PageScan) -> Result<Self> {
        let mut sums = Sums::default();
        let mut doubtful = Vec::new();
        scan.all(|seen| {
            for page in seen {
                if differs(scan.map(), page) {
                    doubtful.push(page.pfn);
                } else {
                    sums.count(scan.map(), page);
                }
            }
            Ok(())
        })?;
        if !doubtful.is_empty() {
            sleep(PAUSE);
        }
        let mut different = scan.again(&doubtful)?;
        let mut stale = 0;
        different.retain(|page| {
            sums.count(scan.map(), page);
            stale += u64::from(is_stale(page));
            differs(scan.map(), page)
        });
        for page in &different {
            log::debug!("differs: {page:?}");
        }
        let kinds = Kind::ALL.iter().copied().zip(sums.kinds);
        let kinds: Vec<_> = kinds.filter(|(_, agreement)| agreement.either() > 0).collect();
        let Sums { cgroups, all, file, .. } = sums;
        Ok(Self { cgroups, all, kinds, file, stale, different })
    }
}

/// Whether the page must be read again.
pub(super) fn differs(map: &KernelMap, page: &PageView) -> bool {
    is_stale(page)
        || !matches!(map.judge(page), Verdict::Both | Verdict::Neither)
        || !matches!(judge_file(page), Verdict::Both | Verdict::Neither)
}

/// Which side has a page with an owner as page cache. Nothing is compared for a free page, nor for a locked one, of
/// which the kernel does not say.
fn judge_file(page: &PageView) -> Verdict {
    let Some(is_file) = page.is_file.filter(|_| page.index != NO_INDEX && !is_stale(page)) else {
        return Verdict::Neither;
    };
    match (page.is_our_file, is_file) {
        (false, false) => Verdict::Neither,
        (true, true) => Verdict::Both,
        (true, false) => Verdict::OnlyOurs,
        (false, true) => Verdict::OnlyKernels,
    }
}

/// Whether it has an owner but cannot have one: it is free, or a slab page, whose objects are charged individually
/// (`new_slab` in mm/slub.c drops `__GFP_ACCOUNT`).
pub(super) fn is_stale(page: &PageView) -> bool {
    page.index != NO_INDEX && matches!(page.kind, Kind::Buddy | Kind::Slab)
}

#[derive(Default)]
struct Sums {
    cgroups: BTreeMap<u32, Agreement>,
    all: Agreement,
    kinds: [Agreement; Kind::ALL.len()],
    file: Agreement,
}

impl Sums {
    fn count(&mut self, map: &KernelMap, page: &PageView) {
        self.file.count(judge_file(page));
        let verdict = map.judge(page);
        if verdict == Verdict::Neither {
            return;
        }
        if let Some(n) = Kind::ALL.iter().position(|&kind| kind == page.kind) {
            self.kinds[n].count(verdict);
        }
        if page.kind.is_user() {
            self.all.count(verdict);
            let index = match verdict {
                Verdict::OnlyKernels => map.counter(page.number),
                _ => Some(page.index),
            };
            if let Some(index) = index {
                self.cgroups.entry(index).or_default().count(verdict);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_only_all() {
        let percent =
            |both, only_ours| Agreement { both, only_ours, ..Agreement::default() }.millipercent();
        assert_eq!(percent(0, 0), None);
        assert_eq!(percent(7, 0), Some(100_000));
        assert_eq!(percent(0, 7), Some(0));
        assert_eq!(percent(999_999, 1), Some(99_999));
        assert_eq!(percent(1 << 40, 1), Some(99_999));
    }
}
