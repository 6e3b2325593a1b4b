//! Owns what the kernel half reports of a recorded cgroup: accesses to page cache, and processes that start and end.
//! Separate from the engine: its programs are loaded, attached and removed with this value. Must not decide what is
//! kept in the recording.

use std::ffi::CStr;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use aya::programs::links::FdLink;
use aya::{Ebpf, EbpfLoader};
use bytes::Buf as _;
use memstock_common::Loss;
use memstock_common::record::{Accessed, Happened, PLACES, RecordKind};

use super::link::attach_alone;
use super::object::{ACCESSES, CHANGES, OBJECT, RECORD_MAPS};
use crate::host::cgroup::Cgroup;
use crate::host::page_size;
use crate::host::pages::Layout;
use crate::host::protect::give_back;

/// Bytes of the ring: about 37,000 records.
const RING_BYTES: u32 = 1 << 21;

/// A record from the kernel half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Pages of a block were accessed, added or removed.
    Accessed(RecordKind, Accessed),
    /// Something happened to a process.
    Happened(RecordKind, Happened),
}

/// Watches until it is dropped.
pub struct Recorded {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    followed: Array<MapData, u64>,
    /// Keep the programs attached.
    _links: Vec<FdLink>,
    /// The tracepoints that this kernel lacks.
    missing: Vec<&'static str>,
}

impl Recorded {
    /// Begins to watch a cgroup and its descendants, and follows all of its page cache.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn watch(cgroup: &Cgroup) -> Result<Self> {
        let layout = Layout::read()?;
        let level = u32::try_from(cgroup.path.components().count()).unwrap_or(u32::MAX);
        let mut ebpf = EbpfLoader::new()
            .override_global("RECORDED_ID", &cgroup.id, true)
            // The root counts as a component.
            .override_global("RECORDED_LEVEL", &level.saturating_sub(1), true)
            .override_global("TASK_TGID", &layout.task_tgid, true)
            .override_global("FOLIO", &layout.folio, true)
            .override_global("PAGE_SHIFT", &page_size().trailing_zeros(), true)
            .map_max_entries("RECENT", PLACES)
            .map_max_entries("RECORDED", RING_BYTES)
            .load(OBJECT)
            .context("cannot load the BPF object")?;
        let [followed, _, ring] = RECORD_MAPS;
        let mut map =
            |name| ebpf.take_map(name).with_context(|| format!("no map {name} in the object"));
        let mut followed = Array::try_from(map(followed)?)?;
        let ring = RingBuf::try_from(map(ring)?)?;
        follow(&mut followed, 1)?;
        let (links, missing) = attach_alone(&mut ebpf, CHANGES.into_iter().chain(ACCESSES))?;
        // Loading has read the kernel's types.
        give_back();
        Ok(Self { ebpf, ring, followed, _links: links, missing })
    }

    /// The tracepoints of accesses and changes that this kernel lacks.
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// From now on follows one in `one_in` blocks: a power of two.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn follow(&mut self, one_in: u32) -> Result<()> {
        follow(&mut self.followed, one_in)
    }

    /// The next record; none if there is no more for now.
    ///
    /// # Errors
    /// The record is malformed.
    pub fn read(&mut self) -> Result<Option<Entry>> {
        self.ring.next().map(|bytes| decode(&bytes).context("a record is unreadable")).transpose()
    }

    /// Records dropped because the ring was full.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn lost(&self) -> Result<u64> {
        let loss = self.ebpf.map("LOSS").context("no map LOSS in the object")?;
        let loss: PerCpuArray<_, u64> = PerCpuArray::try_from(loss)?;
        let lost = loss.get(&(Loss::EventsLost as u32), 0).context("cannot read map LOSS")?;
        Ok(lost.iter().sum())
    }
}

fn follow(followed: &mut Array<MapData, u64>, one_in: u32) -> Result<()> {
    followed.set(0, u64::from(one_in), 0).context("cannot write map FOLLOWED")
}

/// Decodes a record of the ring buffer.
fn decode(mut record: &[u8]) -> Result<Entry> {
    let len = record.len();
    if len == size_of::<Accessed>() {
        let accessed = Accessed {
            kind: record.get_u32_ne(),
            pages: record.get_u32_ne(),
            time_ns: record.get_u64_ne(),
            file: record.get_u64_ne(),
            block: record.get_u64_ne(),
            inode: record.get_u64_ne(),
            device: record.get_u64_ne(),
        };
        return Ok(Entry::Accessed(kind(accessed.kind)?, accessed));
    }
    ensure!(len == size_of::<Happened>(), "a record of {len} bytes");
    let mut happened = Happened {
        kind: record.get_u32_ne(),
        pid: record.get_u32_ne(),
        time_ns: record.get_u64_ne(),
        parent: record.get_u32_ne(),
        zero: record.get_u32_ne(),
        ..Happened::default()
    };
    record.copy_to_slice(&mut happened.comm);
    Ok(Entry::Happened(kind(happened.kind)?, happened))
}

pub(super) fn kind(number: u32) -> Result<RecordKind> {
    number.try_into().map_err(|unknown| anyhow::anyhow!("{unknown}"))
}

/// The program name in a record.
pub fn comm(happened: &Happened) -> String {
    let name = CStr::from_bytes_until_nul(&happened.comm).map(CStr::to_bytes);
    String::from_utf8_lossy(name.unwrap_or(&happened.comm)).into_owned()
}
