//! The counters in use at one moment: a copy of the map, since the kernel half goes on. By index, as in the map, so
//! that neither reading nor looking up has to search.

use memstock_common::{Counter, index_of};

use super::mapped::Mapped;

/// Every tracked and every dying cgroup, by counter index.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Those that are free have the id 0.
    all: Vec<Counter<u64>>,
}

impl Counters {
    pub(super) fn read(map: &Mapped<Counter<u64>>) -> Self {
        let is_used = |index: &usize| map.get(*index).is_some_and(|counter| counter.id != 0);
        // What is free at the end, often most of the map, is not copied.
        let end = (0..map.len()).rfind(is_used).map_or(0, |last| last + 1);
        Self { all: (0..end).map(|index| map.get(index).unwrap_or_default()).collect() }
    }

    /// The counter `index`, if it is in use.
    pub fn get(&self, index: u32) -> Option<&Counter<u64>> {
        self.all.get(index as usize).filter(|counter| counter.id != 0)
    }

    /// The index of the parent of the counter `index`, if that is in use.
    pub fn parent(&self, index: u32) -> Option<u32> {
        self.get(index).map(|counter| index_of(counter.parent as u32))
    }

    /// Those in use, ascending by index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Counter<u64>)> {
        (0..).zip(&self.all).filter(|(_, counter)| counter.id != 0)
    }

    /// The indices of those in use, ascending.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        self.iter().map(|(index, _)| index)
    }
}

#[cfg(test)]
impl FromIterator<(u32, Counter<u64>)> for Counters {
    fn from_iter<I: IntoIterator<Item = (u32, Counter<u64>)>>(some: I) -> Self {
        let mut all = Vec::new();
        for (index, counter) in some {
            let end = all.len().max(index as usize + 1);
            all.resize(end, Counter::default());
            all[index as usize] = counter;
        }
        Self { all }
    }
}
