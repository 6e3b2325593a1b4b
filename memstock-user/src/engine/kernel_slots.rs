//! Reads the kernel's own per-CPU stocks. Separate from the engine: the program is loaded only for this, never
//! attached, and removed with this value. Changes nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use aya::programs::{RawTracePointRunOptions, TestRun as _};
use aya::{Ebpf, EbpfLoader};
use memstock_common::KernelSlot;
use memstock_common::control::{Answer, MAX_ARGS};
use memstock_common::layout::{KernelStocks, MAX_KERNEL_SLOTS};

use super::kernel_cgroup::MemoryTree;
use super::object::{KERNEL_SLOTS, KERNEL_SLOTS_MAP, OBJECT, raw, refused};
use crate::exit::Failure;
use crate::host;
use crate::host::pages::{Layout, kernel_stocks};
use crate::model::kernel::{CpuStocks, View, by_owner, by_path};

/// Attempts for one CPU: on ours, an interrupt can come in between.
const TRIES: usize = 8;

/// The reader.
pub struct KernelSlots {
    ebpf: Ebpf,
    seen: Array<MapData, KernelSlot<u64>>,
    layout: KernelStocks,
    tree: MemoryTree,
    /// Whether isolated CPUs are read, too.
    interrupts_isolated: bool,
}

impl KernelSlots {
    /// Loads the program. Unless `interrupts_isolated`, isolated CPUs will not be read, since that interrupts them.
    ///
    /// # Errors
    /// The kernel has no memory controller, lays out its stock in an unknown way, or refuses the program.
    pub fn load(interrupts_isolated: bool) -> Result<Self> {
        let tree = MemoryTree::find()?;
        let (layout, of_cgroups) = (kernel_stocks(tree.hierarchy)?, Layout::read()?);
        let mut ebpf = EbpfLoader::new()
            .override_global("KERNEL_STOCKS", &layout, true)
            .override_global("CGROUP_KN", &of_cgroups.cgroup_kn, true)
            .override_global("KERNFS_ID", &of_cgroups.kernfs_id, true)
            .override_global("CGROUP_ROOT", &of_cgroups.cgroup_root, true)
            .override_global("HIERARCHY_ID", &of_cgroups.hierarchy_id, true)
            .load(OBJECT)
            .context("cannot load the BPF object")?;
        let seen = ebpf.take_map(KERNEL_SLOTS_MAP).context("no map KERNEL_SLOTS in the object")?;
        let program = raw(&mut ebpf, KERNEL_SLOTS)?;
        program.load().map_err(|error| refused(KERNEL_SLOTS, error))?;
        Ok(Self { seen: Array::try_from(seen)?, ebpf, layout, tree, interrupts_isolated })
    }

    /// Warns of isolated CPUs, if there are any that will not be read.
    ///
    /// # Errors
    /// sysfs does not have the host's CPUs.
    pub fn warn_of_isolated(&self) -> Result<()> {
        let isolated = host::cpus()?.isolated;
        if !self.interrupts_isolated && !isolated.is_empty() {
            let isolated: Vec<_> = isolated.iter().map(u32::to_string).collect();
            log::warn!(
                "the kernel's stocks of isolated CPUs are not read: CPU {}",
                isolated.join(",")
            );
        }
        Ok(())
    }

    /// The hierarchy of the memory controller.
    pub fn tree(&self) -> &MemoryTree {
        &self.tree
    }

    /// Reads each online CPU, one after the other, which interrupts it.
    ///
    /// # Errors
    /// The stocks are not as the kernel's BTF says, or the program cannot be run.
    pub fn look(&mut self) -> Result<Vec<CpuStocks>> {
        let mut seen = Vec::new();
        let cpus = host::cpus()?;
        let is_read = |cpu: &u32| self.interrupts_isolated || !cpus.isolated.contains(cpu);
        let wanted: Vec<_> = cpus.online.iter().copied().filter(is_read).collect();
        for cpu in wanted {
            match self.look_at(cpu) {
                Ok(stocks) => seen.push(stocks),
                // It went offline, and the kernel drained its stocks.
                Err(_) if !host::cpus()?.online.contains(&cpu) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(seen)
    }

    fn look_at(&mut self, cpu: u32) -> Result<CpuStocks> {
        let program = raw(&mut self.ebpf, KERNEL_SLOTS)?;
        let run = || -> Result<bool> {
            let options = RawTracePointRunOptions { args: [0; MAX_ARGS], cpu: Some(cpu) };
            let result = program.test_run(options);
            let result =
                result.with_context(|| format!("cannot run {KERNEL_SLOTS} on CPU {cpu}"))?;
            Ok(Answer(result.return_value).result() == Ok(cpu))
        };
        let mut tries = 1;
        while !run()? {
            if tries == TRIES {
                return Err(Failure::Host.error(format!(
                    "the stock of CPU {cpu} is not where, or not as, this kernel's BTF says: memstock does not \
                     know it"
                )));
            }
            tries += 1;
        }
        let slots = |first: u32, nr_slots| {
            let slots = (first..first + nr_slots).map(|index| self.seen.get(&index, 0));
            slots.collect::<Result<Vec<_>, _>>().context("cannot read map KERNEL_SLOTS")
        };
        let KernelStocks { pages, bytes, .. } = self.layout;
        Ok(CpuStocks {
            cpu,
            pages: slots(0, pages.nr_slots)?,
            bytes: slots(MAX_KERNEL_SLOTS, bytes.nr_slots)?,
        })
    }

    /// Pages in stock for each memory cgroup with its descendants, by path.
    ///
    /// # Errors
    /// As [`view`](Self::view).
    pub fn stranded(&mut self) -> Result<HashMap<PathBuf, u64>> {
        let all = self.view(Some(Path::new("/")))?.cgroups.into_iter();
        Ok(all
            .filter_map(|cgroup| Some((cgroup.name.path?.to_path_buf(), cgroup.stranded)))
            .collect())
    }

    /// What is in stock for whom, and how much of it for the cgroup with the path `of` and its descendants. The slots
    /// are read before and after the usages.
    ///
    /// # Errors
    /// As [`look`](Self::look); or a usage cannot be read.
    pub fn view(&mut self, of: Option<&Path>) -> Result<View> {
        let paths: HashMap<_, _> =
            self.tree.cgroups().into_iter().map(|cgroup| (cgroup.id, cgroup.path)).collect();
        let before = self.look()?;
        let wanted: Vec<PathBuf> = match of {
            Some(of) => paths.values().filter(|path| path.starts_with(of)).cloned().collect(),
            None => by_path(&by_owner(&before, &[]), &paths).into_keys().collect(),
        };
        // Nothing is stocked for the root, which has everybody's pages.
        let wanted = wanted.into_iter().filter(|path| path != Path::new("/"));
        let usage = |path: PathBuf| Ok((self.tree.usage(&path)?, path));
        let usages = wanted.map(usage).collect::<Result<Vec<_>>>()?;
        let after = self.look()?;
        Ok(View::new(self.tree.hierarchy != 0, paths, before, &after, usages))
    }
}
