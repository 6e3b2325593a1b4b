//! Computes how far each tracked cgroup is from each limit that applies to it, and which it would hit first. Reads a
//! sample only; renders nothing.

use std::collections::BTreeMap;

use memstock_common::MAX_DEPTH;
use memstock_common::stat::{MemoryStat, PageCounterStat};

use crate::model::{Cgroup, PageCounter, Sample};

/// One cgroup under one limit.
#[derive(Clone, Copy, Debug)]
pub struct Headroom<'a> {
    /// The cgroup that may be charged.
    pub cgroup: &'a Cgroup,
    /// Whose limit it is: the cgroup's own or an ancestor's.
    pub ancestor: &'a Cgroup,
    /// Limit less what is needed of the ancestor, in pages; negative above the limit.
    pub nr_pages: i64,
    /// Whether this limit would be hit first.
    pub is_binding: bool,
}

/// Pairs every tracked cgroup with every limit on its way to the root, for one resource.
///
/// The binding limit is the one with the least headroom; of several, the nearest to the cgroup: charging goes from
/// there to the root, and events name the first that refuses.
pub fn headrooms<'a>(
    sample: &'a Sample,
    resource: impl Fn(&Cgroup) -> &PageCounter,
) -> Vec<Headroom<'a>> {
    let tracked = || sample.cgroups.iter().filter(|cgroup| !cgroup.is_dying);
    let by_id: BTreeMap<u64, &Cgroup> = tracked().map(|cgroup| (cgroup.name.id, cgroup)).collect();
    let mut all = Vec::new();
    for cgroup in tracked() {
        let up = |below: &&Cgroup| by_id.get(&below.parent_id?).copied();
        // Bounded in case the sample was taken while the tree changed.
        let lineage = std::iter::successors(Some(cgroup), up).take(MAX_DEPTH as usize);
        let first = all.len();
        all.extend(lineage.filter_map(|ancestor| {
            let counter = resource(ancestor);
            let limit = counter.get(PageCounterStat::Limit)?;
            let needed = needed(ancestor, counter)?;
            let nr_pages = limit.cast_signed().saturating_sub(needed.cast_signed());
            Some(Headroom { cgroup, ancestor, nr_pages, is_binding: false })
        }));
        if let Some(binding) = all[first..].iter_mut().min_by_key(|headroom| headroom.nr_pages) {
            binding.is_binding = true;
        }
    }
    all
}

/// What is needed of a resource: its usage less the memory that is not needed.
fn needed(cgroup: &Cgroup, counter: &PageCounter) -> Option<u64> {
    let memory = cgroup.memory.get(PageCounterStat::Usage)?;
    let spare = memory.saturating_sub(cgroup.part(MemoryStat::Needed));
    Some(counter.get(PageCounterStat::Usage)?.saturating_sub(spare))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    /// A cgroup with as much page cache as needed memory.
    fn cgroup(id: u64, parent_id: Option<u64>, needed: u64, limit: Option<u64>) -> Cgroup {
        let mut memory = PageCounter::default();
        memory.stats[PageCounterStat::Usage as usize] = (2 * needed).into();
        memory.stats[PageCounterStat::Limit as usize] = limit.into();
        let mut memsw = memory;
        memsw.stats[PageCounterStat::Usage as usize] = (2 * needed + 1).into();
        let name = Name::new(id, None);
        let mut cgroup = Cgroup { name, parent_id, memory, memsw, ..Cgroup::default() };
        cgroup.parts[MemoryStat::Needed as usize] = needed;
        cgroup
    }

    fn found(cgroups: &[Cgroup]) -> Vec<(u64, u64, i64, bool)> {
        let sample = Sample { cgroups: cgroups.to_vec(), ..Sample::default() };
        let all = headrooms(&sample, |cgroup| &cgroup.memory);
        all.iter()
            .map(|h| (h.cgroup.name.id, h.ancestor.name.id, h.nr_pages, h.is_binding))
            .collect()
    }

    #[test]
    fn the_least_is_binding() {
        let top = cgroup(1, None, 90, Some(100));
        let middle = cgroup(2, Some(1), 70, None);
        let low = cgroup(3, Some(2), 40, Some(80));
        let all = found(&[top, middle, low]);
        assert_eq!(all, [(1, 1, 10, true), (2, 1, 10, true), (3, 3, 40, false), (3, 1, 10, true)]);
    }

    #[test]
    fn what_is_in_swap_is_needed() {
        let sample = Sample { cgroups: vec![cgroup(1, None, 90, Some(100))], ..Sample::default() };
        assert_eq!(headrooms(&sample, |cgroup| &cgroup.memsw)[0].nr_pages, 9);
    }

    #[test]
    fn of_equals_the_nearest() {
        let all = found(&[cgroup(1, None, 9, Some(8)), cgroup(2, Some(1), 5, Some(4))]);
        assert_eq!(all, [(1, 1, -1, true), (2, 2, -1, true), (2, 1, -1, false)]);
    }

    #[test]
    fn without_a_limit_there_is_none() {
        assert!(found(&[cgroup(1, None, 9, None), cgroup(2, Some(7), 9, None)]).is_empty());
        // A dying cgroup is no longer charged.
        let dying = Cgroup { is_dying: true, ..cgroup(1, None, 9, Some(10)) };
        assert!(found(&[dying]).is_empty());
    }

    #[test]
    fn a_circle_ends() {
        let all = found(&[cgroup(1, Some(1), 9, Some(10))]);
        assert!(!all.is_empty() && all.len() <= MAX_DEPTH as usize);
    }
}
