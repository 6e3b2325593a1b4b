//! A map of the kernel half, mapped into this process: reads need no system calls.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZero;
use std::ptr::NonNull;

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::pins::Pins;

/// An array map created with `BPF_F_MMAPABLE`, mapped for reading.
pub struct Mapped<T> {
    values: NonNull<T>,
    len: NonZero<usize>,
    of: PhantomData<T>,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only ever read.
unsafe impl<T: Send> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Mapped<T> {}

impl<T> fmt::Debug for Mapped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T: Pod> Mapped<T> {
    /// Maps the pinned map `name`, whose values are of type `T`.
    ///
    /// # Errors
    /// The pin cannot be opened, or it is another kind of map.
    pub fn open(pins: &Pins, name: &str) -> Result<Self> {
        let path = pins.map(name);
        let cannot = || format!("cannot map the pinned map {}", path.display());
        let data = MapData::from_pin(&path).with_context(cannot)?;
        let info = data.info().with_context(cannot)?;
        let len = NonZero::new(info.max_entries() as usize).with_context(cannot)?;
        // The kernel lays values out at multiples of 8 bytes (`array_map_alloc`).
        ensure!(
            info.value_size() as usize == size_of::<T>() && size_of::<T>().is_multiple_of(8),
            "the map {} has values of another size",
            path.display()
        );
        let bytes = len.get() * size_of::<T>();
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let values = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, data.fd(), 0)
        };
        let values = NonNull::new(values.with_context(cannot)?.cast()).with_context(cannot)?;
        Ok(Self { values, len, of: PhantomData })
    }

    /// Number of values; never 0.
    #[expect(clippy::len_without_is_empty, reason = "no map is empty")]
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// The value at `index` as it is now; the kernel half may be changing it, word by word.
    pub fn get(&self, index: usize) -> Option<T> {
        // SAFETY: in bounds of the mapping, aligned as the kernel aligns it; `T` is plain data and
        // the load is volatile, since others write.
        (index < self.len()).then(|| unsafe { self.values.as_ptr().add(index).read_volatile() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing refers into it. Unmapping all of it does not fail.
        let _ = unsafe { munmap(self.values.as_ptr().cast(), self.len.get() * size_of::<T>()) };
    }
}
