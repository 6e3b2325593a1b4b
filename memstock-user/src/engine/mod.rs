//! The engine: the loaded kernel half, opened through its pins.
//!
//! `learn` finds out what the programs need to know about this kernel, `load` loads them with it, `attach` and `faults`
//! attach them, `pins` knows where they are pinned, `remains` decides what to do with the pins of a daemon that died,
//! `control` asks the programs for changes, `close` ends a cgroup, `grace` waits for running programs, `mapped` and
//! `batch` read large maps cheaply, `counters` is a copy of one, and this file opens the engine and reads its maps.
//! `kernel_stock`, `kernel_slots`, `recorded` and `charged` are separate: they watch the kernel's own controller, a
//! recorded cgroup, and the engine. User space writes no map that the kernel half writes.

pub mod kernel_cgroup;
pub mod needed;
pub mod sample;

mod again;
pub mod attach;
pub mod batch;
pub mod charged;
mod close;
pub mod control;
mod counters;
mod faults;
mod file_pages;
pub mod grace;
pub mod kernel_slots;
pub mod kernel_stock;
pub mod learn;
mod link;
pub mod load;
pub mod mapped;
pub mod migrate;
pub mod object;
pub mod pins;
pub mod program;
pub mod recorded;
pub mod remains;
mod syscall;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::ProgramFd;
use memstock_common::control::Register;
use memstock_common::{CgroupCpu, Chunk, Counter, EngineInfo, LAYOUT, Loss, NO_INDEX};
use memstock_common::{Stock, key_of};

use crate::engine::needed::unused;
use crate::exit::Failure;
use crate::host;
use batch::PerCpuRanges;
use control::Control;
pub use counters::Counters;
use file_pages::FilePages;
use mapped::Mapped;
use pins::Pins;
use program::recursion_misses;

/// A loaded and pinned kernel half, whoever loaded it.
pub struct Engine {
    pins: Pins,
    info: EngineInfo,
    possible: Vec<u32>,
    stock: PerCpuArray<MapData, Stock<u64>>,
    counters: Mapped<Counter<u64>>,
    cgroups: HashMap<MapData, u32, u32>,
    cgroup_cpu: PerCpuRanges<CgroupCpu<u64>>,
    loss: PerCpuArray<MapData, u64>,
    control: Control,
    /// Each probe, with the program that looks again after it, if any.
    probes: Vec<(ProgramFd, Option<ProgramFd>)>,
    sees_faults: bool,
    next_index: AtomicU32,
    file_pages: FilePages,
}

/// Gaps of up to this many counters are read over: that is cheaper than another system call.
const GAP: u32 = 8;
/// So many bytes of a per-CPU map are asked for at once: a buffer of about this size is used again and stays in the
/// CPU's cache, while a large one is mapped anew each time.
const AT_ONCE: usize = 1 << 16;

/// One value of a per-CPU map for each possible CPU, by CPU number.
pub type PerCpu<T> = Vec<(u32, T)>;

impl Engine {
    /// Opens the pinned engine.
    ///
    /// # Errors
    /// No engine is loaded, it has another version, its pins cannot be opened, or others could change them.
    pub fn open(pins: &Pins) -> Result<Self> {
        if !pins.exist() {
            remains::refuse_other_versions(pins)?;
            return Err(
                Failure::NotRunning.error("no engine is running: start one with \"memstock run\"")
            );
        }
        pins.check()?;
        let engine: Array<_, EngineInfo> = open(pins, "ENGINE", Map::Array)?;
        let info = engine.get(&0, 0).context("cannot read map ENGINE")?;
        if info.layout != LAYOUT {
            return Err(Failure::Running.error(format!(
                "the engine has layout {}, this memstock knows layout {LAYOUT}: end it with \
                 \"memstock stop\"",
                info.layout
            )));
        }
        let possible = host::cpus()?.possible;
        let sees_faults = faults::are_seen(pins)?;
        let probes = object::probes()
            .filter(|&name| sees_faults || name != object::PROBE)
            .chain(migrate::is_seen(pins)?.then_some(object::MIGRATED.0));
        Ok(Self {
            pins: pins.clone(),
            info,
            stock: open(pins, "STOCK", Map::PerCpuArray)?,
            counters: Mapped::open(pins, "COUNTERS")?,
            cgroups: open(pins, "CGROUPS", Map::HashMap)?,
            cgroup_cpu: PerCpuRanges::open(pins, "CGROUP_CPU", possible.len())?,
            loss: open(pins, "LOSS", Map::PerCpuArray)?,
            control: Control::of(pins),
            probes: probes
                .map(|name| Ok((program::fd(pins, name)?, again::after(pins, name)?)))
                .collect::<Result<_>>()?,
            sees_faults,
            next_index: AtomicU32::new(0),
            file_pages: FilePages::open(pins)?,
            possible,
        })
    }

    /// Where it is pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What the engine was loaded with.
    pub fn info(&self) -> EngineInfo {
        self.info
    }

    /// Cgroups that can be tracked at once.
    pub fn max_cgroups(&self) -> u32 {
        self.counters.len() as u32
    }

    /// Whether faults are counted: not if the kernel has no tracepoints for them.
    pub fn sees_faults(&self) -> bool {
        self.sees_faults
    }

    /// The slot `slot` of every possible CPU.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn stocks(&self, slot: u32) -> Result<PerCpu<Stock<u64>>> {
        let values = self.stock.get(&slot, 0).context("cannot read map STOCK")?;
        Ok(self.possible.iter().copied().zip(values.iter().copied()).collect())
    }

    /// All slots of every possible CPU.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn all_stocks(&self) -> Result<PerCpu<Stock<u64>>> {
        let slots: Result<Vec<_>> = (0..self.info.slots).map(|slot| self.stocks(slot)).collect();
        Ok(slots?.into_iter().flatten().collect())
    }

    /// Every tracked and every dying cgroup.
    pub fn counters(&self) -> Counters {
        Counters::read(&self.counters)
    }

    /// The counter `index`.
    ///
    /// # Errors
    /// There is no such counter.
    pub fn counter(&self, index: u32) -> Result<Counter<u64>> {
        self.counters.get(index as usize).with_context(|| format!("there is no counter {index}"))
    }

    /// The index of the counter of the tracked cgroup `id`.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn index_of(&self, id: u64) -> Result<Option<u32>> {
        Ok(self.find(id)?.map(|(index, _)| index))
    }

    /// The counter of the tracked cgroup `id`, and its index.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn find(&self, id: u64) -> Result<Option<(u32, Counter<u64>)>> {
        match self.cgroups.get(&key_of(id), 0) {
            Ok(index) => {
                let counter = self.counter(index)?;
                Ok((counter.id == id).then_some((index, counter)))
            }
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("cannot read map CGROUPS"),
        }
    }

    /// The indices of the counters of all tracked cgroups; the others in use are dying.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn tracked(&self) -> Result<BTreeSet<u32>> {
        let indices = batch::values(self.cgroups.map()).context("cannot read map CGROUPS")?;
        Ok(indices.into_iter().collect())
    }

    /// The page-owner map.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn owners(&self) -> Result<Mapped<Chunk<u32>>> {
        Mapped::open(&self.pins, "OWNERS")
    }

    /// Pages that are charged and not in use, by counter index.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn unused(&self) -> Result<BTreeMap<u32, u64>> {
        Ok(unused(self.all_stocks()?.iter().map(|(_, stock)| stock)))
    }

    /// What the cgroup with counter `index` did on each possible CPU.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn cgroup_cpu(&self, index: u32) -> Result<PerCpu<CgroupCpu<u64>>> {
        let values = self.cgroup_cpu.read(index, 1).context("cannot read map CGROUP_CPU")?;
        Ok(self.possible.iter().copied().zip(values).collect())
    }

    /// Passes what the cgroups with the counters `indices`, which ascend, did to `take`, one by one, with a value for
    /// each possible CPU.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn cgroup_cpus(
        &self,
        indices: &[u32],
        mut take: impl FnMut(u32, &[CgroupCpu<u64>]),
    ) -> Result<()> {
        // Counters are allocated in order, so most are neighbours.
        let most = (AT_ONCE / size_of::<CgroupCpu<u64>>() / self.possible.len()).max(1);
        let runs = indices.chunk_by(|before, next| next - before <= GAP);
        for run in runs.flat_map(|run| run.chunks(most)) {
            let (Some(&first), Some(&last)) = (run.first(), run.last()) else { continue };
            let values = self.cgroup_cpu.read(first, last - first + 1);
            let values = values.context("cannot read map CGROUP_CPU")?;
            for &index in run {
                let start = (index - first) as usize * self.possible.len();
                take(index, &values[start..start + self.possible.len()]);
            }
        }
        Ok(())
    }

    /// A loss counter, summed over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn loss(&self, loss: Loss) -> Result<u64> {
        let values = self.loss.get(&(loss as u32), 0).context("cannot read map LOSS")?;
        Ok(values.iter().sum())
    }

    /// Runs of the probes that the kernel skipped because the probe was already running on that CPU. If a second
    /// program looks again after a probe, counts the smaller number of the two: an event is lost only if both missed
    /// it.
    ///
    /// # Errors
    /// The kernel does not report it.
    pub fn recursion_misses(&self) -> Result<u64> {
        let missed = |(first, again): &(ProgramFd, Option<ProgramFd>)| {
            let most = again.as_ref().map_or(Ok(u64::MAX), recursion_misses)?;
            Ok(recursion_misses(first)?.min(most))
        };
        self.probes.iter().map(missed).sum()
    }

    /// The control programs.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The possible CPUs, online or not.
    pub fn possible(&self) -> &[u32] {
        &self.possible
    }

    /// Tracks a cgroup, with limits in pages, and returns the index of its counter.
    ///
    /// # Errors
    /// It is already tracked, too deep, or there is no room.
    pub fn register(
        &self,
        cgroup_id: u64,
        parent: Option<u32>,
        memory_limit: u64,
        memsw_limit: u64,
    ) -> Result<u32> {
        let index = self.free_index()?;
        for &cpu in &self.possible {
            self.control.reset(index, cpu)?;
        }
        let parent = parent.unwrap_or(NO_INDEX);
        let args = Register { index, parent, cgroup_id, memory_limit, memsw_limit };
        self.control.register(args).map(|()| index)
    }

    /// A free counter, the longest unused first.
    pub(crate) fn free_index(&self) -> Result<u32> {
        let len = self.max_cgroups();
        for index in (0..len).map(|step| (self.next_index.load(Ordering::Relaxed) + step) % len) {
            if self.counter(index)?.id == 0 {
                self.next_index.store(index + 1, Ordering::Relaxed);
                return Ok(index);
            }
        }
        Err(Failure::Other.error(format!(
            "{len} cgroups are tracked, and there is room for no more (--max-cgroups)"
        )))
    }
}

/// Opens the ring buffer of the pinned engine. It has one reader at a time.
///
/// # Errors
/// The pin cannot be opened.
pub fn events(pins: &Pins) -> Result<RingBuf<MapData>> {
    open(pins, "EVENTS", Map::RingBuf)
}

fn open<T>(pins: &Pins, name: &str, kind: fn(MapData) -> Map) -> Result<T>
where
    T: TryFrom<Map, Error = MapError>,
{
    let path = pins.map(name);
    let data = MapData::from_pin(&path)
        .with_context(|| format!("cannot open the pinned map {}", path.display()))?;
    T::try_from(kind(data))
        .with_context(|| format!("the pin {} is not a map of memstock's", path.display()))
}
