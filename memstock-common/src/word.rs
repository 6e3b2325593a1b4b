//! The one kind of memory the algorithm works on: a 64-bit word that several CPUs may change.

/// A 64-bit word with the atomic operations that BPF has (`atomic_fetch_add`, `xchg_64`,
/// `cmpxchg_64`: Linux 5.12).
///
/// All read-modify-write operations are sequentially consistent, as BPF's are.
pub trait Word {
    /// Reads the word.
    fn load(&self) -> u64;
    /// Overwrites the word. Only for words with a single writer: never for a stock word or a usage.
    fn store(&self, value: u64);
    /// Adds and returns the previous value.
    fn fetch_add(&self, value: u64) -> u64;
    /// Subtracts and returns the previous value.
    fn fetch_sub(&self, value: u64) -> u64;
    /// Replaces the word and returns the previous value.
    fn swap(&self, value: u64) -> u64;
    /// Replaces `current` by `new`; true if `current` was there.
    fn replace(&self, current: u64, new: u64) -> bool;

    /// Adds to a word that nobody else writes meanwhile.
    #[inline(always)]
    fn bump(&self, value: u64) {
        self.store(self.load().wrapping_add(value));
    }

    /// Adds to a word: atomically if others may write it meanwhile.
    #[inline(always)]
    fn add(&self, value: u64, is_shared: bool) {
        if value > 0 && is_shared {
            self.fetch_add(value);
        } else if value > 0 {
            self.bump(value);
        }
    }

    /// Raises the word to `value` if it is lower.
    ///
    /// Gives up after a few lost races: others are then raising the word already.
    #[inline(always)]
    fn raise(&self, value: u64) {
        for _ in 0..4 {
            let current = self.load();
            if current >= value || self.replace(current, value) {
                return;
            }
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Word for core::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        self.load(core::sync::atomic::Ordering::SeqCst)
    }
    fn store(&self, value: u64) {
        self.store(value, core::sync::atomic::Ordering::SeqCst);
    }
    fn fetch_add(&self, value: u64) -> u64 {
        self.fetch_add(value, core::sync::atomic::Ordering::SeqCst)
    }
    fn fetch_sub(&self, value: u64) -> u64 {
        self.fetch_sub(value, core::sync::atomic::Ordering::SeqCst)
    }
    fn swap(&self, value: u64) -> u64 {
        self.swap(value, core::sync::atomic::Ordering::SeqCst)
    }
    fn replace(&self, current: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::SeqCst;
        self.compare_exchange(current, new, SeqCst, SeqCst).is_ok()
    }
}
