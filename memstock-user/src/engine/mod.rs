//! The engine: the loaded kernel half, opened through its pins.
//!
//! `load` puts it into the kernel, `pins` knows where it lies, `control` asks it for changes, and
//! this file opens it and reads its maps. User space writes no map that the kernel half writes.

pub mod control;
pub mod load;
pub mod pins;
pub mod program;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::RawTracePoint;
use memstock_common::{CgroupCpu, Counter, EngineInfo, LAYOUT, Loss, NO_INDEX, Stock};

use crate::exit::Failure;
use crate::host;
use control::Control;
use pins::Pins;
use program::RunStats;

/// A kernel half that is loaded and pinned, whoever loaded it.
pub struct Engine {
    info: EngineInfo,
    possible: Vec<u32>,
    stock: PerCpuArray<MapData, Stock<u64>>,
    counters: Array<MapData, Counter<u64>>,
    cgroups: HashMap<MapData, u32, u32>,
    cgroup_cpu: PerCpuArray<MapData, CgroupCpu<u64>>,
    loss: PerCpuArray<MapData, u64>,
    control: Control,
    probes: Vec<RawTracePoint>,
    next_index: u32,
}

/// One value of a per-CPU map for each possible CPU, by CPU number.
pub type PerCpu<T> = Vec<(u32, T)>;

impl Engine {
    /// Opens the pinned engine.
    ///
    /// # Errors
    /// None is loaded, it is of another version, or the pins cannot be opened.
    pub fn open(pins: &Pins) -> Result<Self> {
        if !pins.exist() {
            return Err(
                Failure::NotRunning.error("no engine is running: start one with \"memstock run\"")
            );
        }
        let engine: Array<_, EngineInfo> = open(pins, "ENGINE", Map::Array)?;
        let info = engine.get(&0, 0).context("cannot read map ENGINE")?;
        if info.layout != LAYOUT {
            return Err(Failure::Other.error(format!(
                "the engine has layout {}, this memstock knows layout {LAYOUT}: end it with \
                 \"memstock stop\"",
                info.layout
            )));
        }
        Ok(Self {
            info,
            possible: host::cpus()?.possible,
            stock: open(pins, "STOCK", Map::PerCpuArray)?,
            counters: open(pins, "COUNTERS", Map::Array)?,
            cgroups: open(pins, "CGROUPS", Map::HashMap)?,
            cgroup_cpu: open(pins, "CGROUP_CPU", Map::PerCpuArray)?,
            loss: open(pins, "LOSS", Map::PerCpuArray)?,
            control: Control::open(pins)?,
            probes: load::probes().map(|name| program::open(pins, name)).collect::<Result<_>>()?,
            next_index: 0,
        })
    }

    /// What the engine was loaded with.
    pub fn info(&self) -> EngineInfo {
        self.info
    }

    /// The slot `slot` of every possible CPU.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn stocks(&self, slot: u32) -> Result<PerCpu<Stock<u64>>> {
        let values = self.stock.get(&slot, 0).context("cannot read map STOCK")?;
        Ok(self.possible.iter().copied().zip(values.iter().copied()).collect())
    }

    /// Every tracked cgroup: counter index and counter.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn tracked(&self) -> Result<BTreeMap<u32, Counter<u64>>> {
        let mut tracked = BTreeMap::new();
        for entry in self.cgroups.iter() {
            let (_, index) = entry.context("cannot read map CGROUPS")?;
            tracked.insert(index, self.counter(index)?);
        }
        Ok(tracked)
    }

    /// The counter `index`.
    ///
    /// # Errors
    /// There is no such counter, or the map cannot be read.
    pub fn counter(&self, index: u32) -> Result<Counter<u64>> {
        self.counters.get(&index, 0).with_context(|| format!("cannot read map COUNTERS[{index}]"))
    }

    /// The index of the counter of the tracked cgroup `id`.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn index_of(&self, id: u64) -> Result<Option<u32>> {
        match self.cgroups.get(&memstock_common::owner_of(id), 0) {
            Ok(index) => Ok((self.counter(index)?.id == id).then_some(index)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("cannot read map CGROUPS"),
        }
    }

    /// What the cgroup with counter `index` did on each possible CPU.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn cgroup_cpu(&self, index: u32) -> Result<PerCpu<CgroupCpu<u64>>> {
        let values = self.cgroup_cpu.get(&index, 0).context("cannot read map CGROUP_CPU")?;
        Ok(self.possible.iter().copied().zip(values.iter().copied()).collect())
    }

    /// A loss counter, all CPUs together.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn loss(&self, loss: Loss) -> Result<u64> {
        let values = self.loss.get(&(loss as u32), 0).context("cannot read map LOSS")?;
        Ok(values.iter().sum())
    }

    /// Runs of the probes that the kernel skipped because one was running on that CPU already.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn recursion_misses(&self) -> Result<u64> {
        self.probes.iter().map(|probe| Ok(RunStats::of(probe.fd()?)?.recursion_misses)).sum()
    }

    /// The control programs.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// CPUs that may ever exist.
    pub fn possible(&self) -> &[u32] {
        &self.possible
    }

    /// Tracks a cgroup, with limits in pages, and returns the index of its counter.
    ///
    /// # Errors
    /// It is tracked already, too deep, or there is no room.
    pub fn register(
        &mut self,
        id: u64,
        parent: Option<u32>,
        memory_limit: u64,
        memsw_limit: u64,
    ) -> Result<u32> {
        let index = self.free_index()?;
        for &cpu in &self.possible {
            self.control.reset(index, cpu)?;
        }
        self.control.register(memstock_common::control::Register {
            index,
            parent: parent.unwrap_or(NO_INDEX),
            cgroup_id: id,
            memory_limit,
            memsw_limit,
        })?;
        Ok(index)
    }

    /// Ends the tracking of a cgroup without tracked descendants; nothing of it stays charged.
    ///
    /// # Errors
    /// It has tracked descendants, or the kernel cannot wait for a grace period.
    pub fn unregister(&mut self, index: u32) -> Result<()> {
        self.control.close(index)?;
        // A fault that found the cgroup before it was closed may still be on its way to a stock.
        host::membarrier_grace_period()?;
        for &cpu in &self.possible {
            for slot in 0..self.info.slots {
                self.control.evict(index, cpu, slot)?;
            }
        }
        self.control.release(index)
    }

    /// A free counter, the longest unused first.
    fn free_index(&mut self) -> Result<u32> {
        let len = self.counters.len();
        for step in 0..len {
            let index = (self.next_index + step) % len;
            if self.counter(index)?.id == 0 {
                self.next_index = index + 1;
                return Ok(index);
            }
        }
        Err(Failure::Other.error(format!("all {len} counters are in use")))
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
