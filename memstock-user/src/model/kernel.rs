//! What the kernel's own memory controller has in stock at one moment, on each CPU and for each memory cgroup. Does not
//! know how it is read.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use memstock_common::{KernelCharges, KernelSlot};

use super::Name;

/// The kernel's stocks of one online CPU. Each was read while it did not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuStocks {
    /// Its number.
    pub cpu: u32,
    /// Its slots; `left` is in pages.
    pub pages: Vec<KernelSlot<u64>>,
    /// Its slots for slab objects; `left` is in bytes of charged pages.
    pub bytes: Vec<KernelSlot<u64>>,
}

/// One memory cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryCgroup {
    /// The cgroup, in the hierarchy of the memory controller.
    pub name: Name,
    /// The kernel's usage in pages, descendants included; `None` once it is removed.
    pub usage: Option<u64>,
    /// Pages of the usage that are in stock on some CPU: charged, but not in use.
    pub stranded: u64,
    /// The difference in pages between the slots before and after the usage was read.
    pub error: u64,
    /// Bytes of charged pages in stock for slab objects.
    pub bytes: u64,
}

impl MemoryCgroup {
    /// Its usage without stranded pages, in pages.
    pub fn net(&self) -> Option<u64> {
        self.usage.map(|usage| usage.saturating_sub(self.stranded))
    }
}

/// All stocks and memory cgroups at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether the memory controller is on cgroup v1.
    pub is_v1: bool,
    /// Every online CPU that was read.
    pub cpus: Vec<CpuStocks>,
    /// The paths of living cgroups, by id.
    pub paths: HashMap<u64, PathBuf>,
    /// The cgroups that have something in stock and their ancestors, or all that were asked for.
    pub cgroups: Vec<MemoryCgroup>,
    /// What happened since the look before; `None` in the first.
    pub since: Option<Since>,
}

impl View {
    /// Combines two looks, `before` and `after` the usages were read. The usages are in pages, each with its cgroup's
    /// path.
    pub fn new(
        is_v1: bool,
        paths: HashMap<u64, PathBuf>,
        before: Vec<CpuStocks>,
        after: &[CpuStocks],
        usages: Vec<(Option<u64>, PathBuf)>,
    ) -> Self {
        let ids: HashMap<_, _> = paths.iter().map(|(&id, path)| (path, id)).collect();
        let owners = by_owner(&before, after);
        let sums = by_path(&owners, &paths);
        let cgroup = |name, usage, stocked: Stocked| {
            let Stocked { pages: stranded, moved: error, bytes } = stocked;
            MemoryCgroup { name, usage, stranded, error, bytes }
        };
        let living = usages.into_iter().filter_map(|(usage, path)| {
            let name = Name::new(*ids.get(&path)?, Some(path.clone()));
            Some(cgroup(name, usage, sums.get(&path).copied().unwrap_or_default()))
        });
        let removed = owners.iter().filter(|(id, _)| !paths.contains_key(id));
        let removed = removed.map(|(&id, &stocked)| cgroup(Name::new(id, None), None, stocked));
        let mut cgroups: Vec<_> = living.chain(removed).collect();
        cgroups.sort_by(|one, other| one.name.path.cmp(&other.name.path));
        Self { is_v1, cpus: before, paths, cgroups, since: None }
    }

    /// Keeps only the cgroup with this path and those below it.
    pub fn only(&mut self, of: &Path) {
        let is_of = |path: Option<&Path>| path.is_some_and(|path| path.starts_with(of));
        self.cgroups.retain(|cgroup| is_of(cgroup.name.path.as_deref()));
        for cpu in &mut self.cpus {
            for slot in cpu.pages.iter_mut().chain(&mut cpu.bytes) {
                if !is_of(self.paths.get(&slot.cgroup_id).map(|path| &**path)) {
                    *slot = KernelSlot::default();
                }
            }
        }
    }
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Since {
    /// Slots for pages that now have another owner. A change that was undone in between is not seen.
    pub changed_hands: u64,
    /// The kernel's charges; known where its functions can be traced.
    pub charges: Option<KernelCharges<u64>>,
}

/// What is in stock for one cgroup, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stocked {
    /// Pages.
    pub pages: u64,
    /// By how many pages two looks differ, summed over the CPUs.
    pub moved: u64,
    /// Bytes for slab objects.
    pub bytes: u64,
}

/// Sums the first of two looks by cgroup id.
pub fn by_owner(first: &[CpuStocks], second: &[CpuStocks]) -> BTreeMap<u64, Stocked> {
    let mut sums = BTreeMap::<u64, Stocked>::new();
    let mut cpus = BTreeMap::<(u32, u64), [u64; 2]>::new();
    for (n, look) in [first, second].into_iter().enumerate() {
        for cpu in look {
            for slot in owned(&cpu.pages) {
                cpus.entry((cpu.cpu, slot.cgroup_id)).or_default()[n] += slot.left;
            }
        }
    }
    for ((_, id), [before, after]) in cpus {
        let sum = sums.entry(id).or_default();
        sum.pages += before;
        sum.moved += before.abs_diff(after);
    }
    for slot in first.iter().flat_map(|cpu| owned(&cpu.bytes)) {
        sums.entry(slot.cgroup_id).or_default().bytes += slot.left;
    }
    sums
}

/// The slots that have an owner.
pub fn owned(slots: &[KernelSlot<u64>]) -> impl Iterator<Item = &KernelSlot<u64>> {
    slots.iter().filter(|slot| slot.cgroup_id != 0)
}

/// Sums stocks by path: each owner's count for itself and all its ancestors but the root.
pub fn by_path(
    owners: &BTreeMap<u64, Stocked>,
    paths: &HashMap<u64, PathBuf>,
) -> BTreeMap<PathBuf, Stocked> {
    let mut sums = BTreeMap::<PathBuf, Stocked>::new();
    for (path, own) in owners.iter().filter_map(|(id, own)| Some((paths.get(id)?, own))) {
        for path in path.ancestors().filter(|path| *path != Path::new("/")) {
            let sum = sums.entry(path.into()).or_default();
            sum.pages += own.pages;
            sum.moved += own.moved;
            sum.bytes += own.bytes;
        }
    }
    sums
}

/// The number of slots that had one owner before and have another now.
pub fn changed_hands(before: &[CpuStocks], after: &[CpuStocks]) -> u64 {
    let before: HashMap<u32, &CpuStocks> = before.iter().map(|cpu| (cpu.cpu, cpu)).collect();
    let differ = |cpu: &CpuStocks| {
        let slots = before.get(&cpu.cpu).into_iter().flat_map(|before| &before.pages);
        let is_other = |(one, other): &(&KernelSlot<u64>, &KernelSlot<u64>)| {
            let (one, other) = (one.cgroup_id, other.cgroup_id);
            one != other && one != 0 && other != 0
        };
        slots.zip(&cpu.pages).filter(is_other).count() as u64
    };
    after.iter().map(differ).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cpu: u32, pages: &[(u64, u64)], bytes: &[(u64, u64)]) -> CpuStocks {
        let slots = |slots: &[(u64, u64)]| {
            slots.iter().map(|&(cgroup_id, left)| KernelSlot { cgroup_id, left }).collect()
        };
        CpuStocks { cpu, pages: slots(pages), bytes: slots(bytes) }
    }

    #[test]
    fn what_is_below_counts_above() {
        let first = [cpu(0, &[(5, 60), (6, 3)], &[(6, 100)]), cpu(1, &[(5, 1), (0, 0)], &[(0, 0)])];
        let second = [cpu(0, &[(6, 3), (5, 58)], &[]), cpu(1, &[(7, 63)], &[])];
        let owners = by_owner(&first, &second);
        assert_eq!(owners[&5], Stocked { pages: 61, moved: 3, bytes: 0 });
        assert_eq!(owners[&6], Stocked { pages: 3, moved: 0, bytes: 100 });
        assert_eq!(owners[&7], Stocked { pages: 0, moved: 63, bytes: 0 });
        let paths = [(5, "/a".into()), (6, "/a/b".into()), (1, "/".into())];
        let sums = by_path(&owners, &paths.into());
        assert_eq!(sums.len(), 2);
        assert_eq!(sums[Path::new("/a")], Stocked { pages: 64, moved: 3, bytes: 100 });
        assert_eq!(sums[Path::new("/a/b")].pages, 3);
    }

    #[test]
    fn a_view_can_be_of_one_cgroup() {
        let before = vec![cpu(0, &[(5, 60), (6, 3), (9, 1)], &[(6, 100)])];
        let paths = [(5, "/a".into()), (6, "/b/c".into()), (7, "/b".into())];
        let usages = vec![(Some(2), "/b".into()), (Some(100), "/a".into())];
        let mut view = View::new(true, paths.into(), before.clone(), &before, usages);
        let net: Vec<_> = view.cgroups.iter().map(|it| (it.name.id, it.net(), it.error)).collect();
        assert_eq!(net, [(9, None, 0), (5, Some(40), 0), (7, Some(0), 0)]);
        view.only("/b".as_ref());
        assert_eq!(view.cgroups.len(), 1);
        assert_eq!(view.cpus, [cpu(0, &[(0, 0), (6, 3), (0, 0)], &[(6, 100)])]);
    }

    #[test]
    fn hands_are_those_of_somebody() {
        let before = [cpu(0, &[(1, 9), (2, 9), (0, 0), (4, 1)], &[]), cpu(1, &[(1, 1)], &[])];
        let after = [cpu(0, &[(1, 5), (3, 9), (7, 1), (0, 0)], &[]), cpu(2, &[(2, 1)], &[])];
        assert_eq!(changed_hands(&before, &after), 1);
    }
}
