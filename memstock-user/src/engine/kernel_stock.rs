//! Counts what the kernel's own memory controller does, at its functions (fentry), while a command is measured.
//! Separate from the engine: its programs are loaded, attached and removed with this value.

use anyhow::{Context as _, Result};
use aya::maps::{PerCpuArray, PerCpuHashMap};
use aya::programs::FEntry;
use aya::{Ebpf, EbpfLoader};
use memstock_common::{KernelCharges, Loss};

use super::object::{KERNEL_CHARGES, KERNEL_CHARGES_MAP, OBJECT, kernel_btf, refused};
use crate::exit::Failure;

/// Cgroups that can charge meanwhile, on the whole host.
const MAX_CGROUPS: u32 = 4096;

/// Counts until it is dropped.
pub struct KernelStock(Ebpf);

impl KernelStock {
    /// Begins to count, for every cgroup.
    ///
    /// # Errors
    /// The kernel has no memory controller, or its functions cannot be traced.
    pub fn watch() -> Result<Self> {
        attached().map(Self).map_err(|error| {
            Failure::Host.error(format!(
                "the kernel's own charges cannot be seen: {error:#}; this needs CONFIG_MEMCG and \
                 CONFIG_FUNCTION_TRACER: leave out --kernel-stock"
            ))
        })
    }

    /// The same, but returns none if the functions cannot be traced.
    pub fn watch_if_possible() -> Option<Self> {
        attached().inspect_err(|error| log::debug!("{error:#}")).ok().map(Self)
    }

    /// What the kernel was asked to charge so far for tasks of the cgroups with these ids, or of all. None if the map
    /// was too small for all cgroups that charged, since these may be missing.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn charges(&self, ids: Option<&[u64]>) -> Result<Option<KernelCharges<u64>>> {
        let loss = self.0.map("LOSS").context("no map LOSS in the object")?;
        let loss: PerCpuArray<_, u64> = PerCpuArray::try_from(loss)?;
        let lost = loss.get(&(Loss::CountersMissing as u32), 0).context("cannot read map LOSS")?;
        if lost.iter().any(|&count| count > 0) {
            log::warn!(
                "more than {MAX_CGROUPS} cgroups charged memory meanwhile: the kernel's figures are left out"
            );
            return Ok(None);
        }
        let map = self.0.map(KERNEL_CHARGES_MAP).context("no map KERNEL_STOCK in the object")?;
        let map: PerCpuHashMap<_, u64, KernelCharges<u64>> = PerCpuHashMap::try_from(map)?;
        let mut sum = KernelCharges::default();
        for entry in map.iter() {
            let (id, cpus) = entry.context("cannot read map KERNEL_STOCK")?;
            for cpu in cpus.iter().filter(|_| ids.is_none_or(|ids| ids.contains(&id))) {
                sum.charges += cpu.charges;
                sum.nr_pages += cpu.nr_pages;
                sum.shared_operations += cpu.shared_operations;
            }
        }
        Ok(Some(sum))
    }
}

fn attached() -> Result<Ebpf> {
    let btf = kernel_btf()?;
    let mut ebpf = EbpfLoader::new()
        .map_max_entries(KERNEL_CHARGES_MAP, MAX_CGROUPS)
        .load(OBJECT)
        .context("cannot load the BPF object")?;
    for (name, function) in KERNEL_CHARGES {
        let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        let program: &mut FEntry = program.try_into()?;
        program.load(function, &btf).map_err(|error| refused(name, error))?;
        program.attach().with_context(|| format!("no fentry at {function}"))?;
    }
    Ok(ebpf)
}
