//! Divides a recording into equal parts of its time, with the highest figures of each.

use crate::forecast::rehearse::Rehearsal;
use crate::forecast::timeline::PARTS;

/// The figures of one part, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Usage.
    pub usage: u64,
    /// The part of it that could not be reclaimed.
    pub needed: u64,
    /// The kernel's own share of `needed`.
    pub kernel: u64,
    /// Shared memory and tmpfs within `needed`.
    pub shmem: u64,
    /// Dirty page cache.
    pub dirty: u64,
}

impl Part {
    /// The upper edge of each kind, from the bottom up: the kernel's own, shared, private, dirty, clean.
    pub fn stack(self) -> [u64; 5] {
        let shared = self.kernel.saturating_add(self.shmem).min(self.needed);
        let dirty = self.needed.saturating_add(self.dirty).min(self.usage.max(self.needed));
        [self.kernel.min(self.needed), shared, self.needed, dirty, self.usage.max(self.needed)]
    }

    fn or(self, other: Self) -> Self {
        let needed = if other.needed > self.needed { other } else { self };
        Self { usage: self.usage.max(other.usage), dirty: self.dirty.max(other.dirty), ..needed }
    }
}

/// The parts of a recording.
pub fn parts(rehearsal: &Rehearsal<'_>) -> Vec<Part> {
    let mut parts = vec![Part::default(); PARTS];
    let width = rehearsal.timeline.end.as_secs_f64() / PARTS as f64;
    if width <= 0.0 {
        return parts;
    }
    let bytes = |pages| rehearsal.bytes(pages);
    for (step, time) in rehearsal.timeline.lasting() {
        let part = Part {
            usage: bytes(step.usage),
            needed: bytes(step.needed),
            kernel: bytes(step.kernel),
            shmem: bytes(step.shmem),
            dirty: bytes(step.dirty),
        };
        let from = step.from.as_secs_f64() / width;
        let end = from + time.as_secs_f64() / width;
        let first = (from as usize).min(PARTS - 1);
        let touched = parts.iter_mut().enumerate().skip(first);
        for (_, at) in touched.take_while(|&(n, _)| n == first || (n as f64) < end) {
            *at = at.or(part);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::rehearse::WhatIf;
    use crate::view::show::rehearse::tests::recording;

    #[test]
    fn a_moment_is_not_lost_in_its_part() {
        let recording = recording();
        let parts = parts(&Rehearsal::new(&recording, WhatIf::default()));
        let needed: Vec<_> = parts.iter().map(|part| part.needed >> 20).collect();
        assert_eq!(needed[..49], [100; 49]);
        assert_eq!(needed[49..60], [200; 11]);
        assert_eq!(needed[60..], [100; 140]);
        assert_eq!(parts[52].stack().map(|bytes| bytes >> 20), [0, 0, 200, 200, 300]);
    }

    #[test]
    fn a_stack_only_rises() {
        let odd = Part { usage: 5, needed: 9, kernel: 20, shmem: 30, dirty: 40 };
        assert!(odd.stack().is_sorted());
        let most = u64::MAX;
        let huge = Part { usage: most, needed: most, kernel: most, shmem: most, dirty: most };
        assert_eq!(huge.stack(), [most; 5]);
    }
}
