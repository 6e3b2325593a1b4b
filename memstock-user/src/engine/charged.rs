//! Owns the recording of an engine's charges: each charge and uncharge, and what else a replay needs. Its programs are
//! loaded, attached and removed with this value. Must not decide what becomes of the records.

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use aya::programs::links::FdLink;
use aya::{Ebpf, EbpfLoader};
use bytes::Buf as _;
use memstock_common::record::{Charged, RecordKind};
use memstock_common::{Chunk, Loss, NOBODY};

use super::Engine;
use super::link::attach_alone;
use super::object::{CHARGED_MAP, CHARGES, OBJECT, RECORD_MAPS};
use super::recorded::kind;
use crate::host::pages::Layout;

/// Bytes of the ring: about 2.8 million records, one to three for each page charged or uncharged.
const RING_BYTES: u32 = 1 << 26;
/// The maps of the engine that the programs read.
const ENGINES: [&str; 2] = ["OWNERS", "CGROUPS"];

/// Records until it is dropped.
pub struct Charges {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    /// Keep the programs attached.
    _links: Vec<FdLink>,
    /// The tracepoints that this kernel lacks.
    missing: Vec<&'static str>,
}

impl Charges {
    /// Begins to record all that an engine charges.
    ///
    /// # Errors
    /// The kernel refuses, or the engine's maps cannot be read.
    pub fn watch(engine: &Engine) -> Result<Self> {
        let layout = Layout::read()?;
        let owners = engine.owners()?;
        let (info, size) = (engine.info(), layout.page_struct_size);
        let shift = if size.is_power_of_two() { size.trailing_zeros() } else { u64::BITS };
        let chunks = u32::try_from(owners.len()).context("more pages than a map can have")?;
        let mut loader = EbpfLoader::new();
        loader
            .override_global("PAGE_BASE", &info.page_base, true)
            .override_global("PAGE_STRUCT_SIZE", &size, true)
            .override_global("PAGE_STRUCT_SHIFT", &shift, true)
            .override_global("CGROUP_KN", &layout.cgroup_kn, true)
            .override_global("KERNFS_ID", &layout.kernfs_id, true)
            .override_global("FOLIO", &layout.folio, true)
            .override_global("MEMORY_OWNER", &layout.memory_owner, true)
            .map_max_entries(CHARGED_MAP, chunks)
            .map_max_entries(RECORD_MAPS[2], RING_BYTES);
        for name in ENGINES {
            loader.map_pin_path(name, engine.pins().map(name));
        }
        let mut ebpf = loader.load(OBJECT).context("cannot load the BPF object")?;
        let mut map =
            |name| ebpf.take_map(name).with_context(|| format!("no map {name} in the object"));
        let ring = RingBuf::try_from(map(RECORD_MAPS[2])?)?;
        let mut charged: Array<_, Chunk<u32>> = Array::try_from(map(CHARGED_MAP)?)?;
        // Before anything is attached: afterwards the programs write it. Changes in between are missed.
        for (n, index) in (0..chunks).enumerate() {
            let chunk = owners.get(n).filter(|chunk| chunk.owners.iter().any(|&it| it != NOBODY));
            if let Some(chunk) = chunk {
                charged.set(index, chunk, 0).context("cannot write map CHARGED")?;
            }
        }
        let (links, missing) = attach_alone(&mut ebpf, CHARGES)?;
        Ok(Self { ebpf, ring, _links: links, missing })
    }

    /// The tracepoints that this kernel lacks.
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// The next record; none if there is no more for now.
    ///
    /// # Errors
    /// The record is malformed.
    pub fn read(&mut self) -> Result<Option<(RecordKind, Charged)>> {
        self.ring.next().map(|bytes| decode(&bytes).context("a charge is unreadable")).transpose()
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

fn decode(mut record: &[u8]) -> Result<(RecordKind, Charged)> {
    let len = record.len();
    ensure!(len == size_of::<Charged>(), "a record of {len} bytes");
    let charged = Charged {
        kind: record.get_u32_ne(),
        cpu: record.get_u32_ne(),
        owner: record.get_u32_ne(),
        nr_pages: record.get_u32_ne(),
    };
    Ok((kind(charged.kind)?, charged))
}
