//! Owns a set of page frame numbers: a bit for each page of the host.

/// Page frame numbers.
#[derive(Debug, Default)]
pub(super) struct PfnSet(Vec<u64>);

impl PfnSet {
    pub(super) fn add(&mut self, pfn: u64) {
        let word = (pfn / 64) as usize;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (pfn % 64);
    }

    pub(super) fn has(&self, pfn: u64) -> bool {
        self.0.get((pfn / 64) as usize).is_some_and(|word| word >> (pfn % 64) & 1 == 1)
    }
}

impl FromIterator<u64> for PfnSet {
    fn from_iter<I: IntoIterator<Item = u64>>(pfns: I) -> Self {
        let mut set = Self::default();
        pfns.into_iter().for_each(|pfn| set.add(pfn));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_was_added() {
        let set: PfnSet = [0, 63, 64, 1000].into_iter().collect();
        let all: Vec<u64> = (0..2000).filter(|&pfn| set.has(pfn)).collect();
        assert_eq!(all, [0, 63, 64, 1000]);
        assert!(!set.has(u64::MAX));
    }
}
