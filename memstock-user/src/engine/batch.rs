//! Reads many entries of a map with one system call (`BPF_MAP_LOOKUP_BATCH`, which aya does not offer): ranges of a
//! per-CPU array, and all of a hash. Knows how the kernel lays out values, but not what they mean.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::MapData;
use aya_obj::generated::bpf_cmd;

use super::pins::Pins;
use super::syscall::{bpf, zeroed};

/// A per-CPU array map whose values are of type `T`.
#[derive(Debug)]
pub struct PerCpuRanges<T> {
    map: MapData,
    /// Values per key: one for each possible CPU.
    nr_cpus: usize,
    of: PhantomData<T>,
}

impl<T: Pod> PerCpuRanges<T> {
    /// Opens the pinned map `name`.
    ///
    /// # Errors
    /// The pin cannot be opened, or it is another kind of map.
    pub fn open(pins: &Pins, name: &str, nr_cpus: usize) -> Result<Self> {
        let path = pins.map(name);
        let cannot = || format!("cannot open the pinned map {}", path.display());
        let map = MapData::from_pin(&path).with_context(cannot)?;
        let info = map.info().with_context(cannot)?;
        // The kernel pads a CPU's value to a multiple of 8 bytes (`bpf_map_value_size`).
        ensure!(
            info.value_size() as usize == size_of::<T>() && size_of::<T>().is_multiple_of(8),
            "the map {} has values of another size",
            path.display()
        );
        Ok(Self { map, nr_cpus, of: PhantomData })
    }

    /// The values of `nr` keys from `first` on: for each key, one value per possible CPU.
    ///
    /// # Errors
    /// The map ends before the last one, or the kernel refuses.
    pub fn read(&self, first: u32, nr: u32) -> Result<Vec<T>> {
        let len = nr as usize * self.nr_cpus;
        let mut values = Vec::<T>::with_capacity(len);
        let mut keys = vec![0_u32; nr as usize];
        // The key before the first; none at the start of the map.
        let before = first.checked_sub(1);
        let mut last = 0_u32;
        let mut attr = zeroed();
        attr.batch.in_batch = before.as_ref().map_or(0, |key| (&raw const *key) as u64);
        attr.batch.out_batch = (&raw mut last) as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = nr;
        attr.batch.map_fd = self.map.fd().as_fd().as_raw_fd().cast_unsigned();
        // SAFETY: the kernel reads one key, and writes one key, at most `nr` keys and as many values for each
        // possible CPU; all buffers have that room and live until the call returns.
        let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
        let cannot = || format!("cannot read {nr} values from {first} on of a per-CPU map");
        result.with_context(cannot)?;
        // SAFETY: the call used this variant, and wrote to it how many it read.
        let read = unsafe { attr.batch.count };
        ensure!(read == nr, "{}: there are only {read}", cannot());
        // SAFETY: the kernel has written that many values; `T` is plain data.
        unsafe { values.set_len(len) };
        Ok(values)
    }
}

/// Entries of a hash map read at once: more than any of its buckets ever has, which the kernel returns as a whole.
const AT_ONCE: u32 = 4096;

/// The values of a hash map with 32-bit keys and values. Entries added or removed meanwhile may be missing or included.
///
/// # Errors
/// Those of the system call.
pub fn values(map: &MapData) -> io::Result<Vec<u32>> {
    let mut all = Vec::new();
    let [mut keys, mut values] = [(); 2].map(|()| vec![0_u32; AT_ONCE as usize]);
    let mut at = None;
    loop {
        let mut next = 0_u32;
        let mut attr = zeroed();
        attr.batch.in_batch = at.as_ref().map_or(0, |at: &u32| std::ptr::from_ref(at) as u64);
        attr.batch.out_batch = (&raw mut next) as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = AT_ONCE;
        attr.batch.map_fd = map.fd().as_fd().as_raw_fd().cast_unsigned();
        // SAFETY: the kernel reads and writes a position of 32 bits, and writes at most as many keys and values as there is
        // room for; all of them live until the call returns.
        let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
        // SAFETY: the call used this variant, and wrote to it how many it read.
        let read = unsafe { attr.batch.count } as usize;
        match result {
            Ok(_) => at = Some(next),
            // The end of the map.
            Err(error) if error.kind() == io::ErrorKind::NotFound => at = None,
            Err(error) => return Err(error),
        }
        all.extend(values.iter().take(read));
        if at.is_none() {
            return Ok(all);
        }
    }
}
