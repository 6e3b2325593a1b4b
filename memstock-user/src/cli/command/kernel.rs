//! `memstock kernel`: what the kernel's own memory controller has in stock. Needs no engine, and leaves nothing behind.

use std::io::{self, BufWriter, Write as _};
use std::thread::sleep;

use anyhow::Result;
use memstock_common::KernelCharges;

use super::closed_pipe_is_success;
use super::signals::end_well_when_interrupted;
use crate::cli::Kernel;
use crate::engine::kernel_slots::KernelSlots;
use crate::engine::kernel_stock::KernelStock;
use crate::host::{self, page_size};
use crate::model::kernel::{CpuStocks, Since, changed_hands};
use crate::view::show::kernel::{document, write};

/// Prints one sample, or with `--watch` one after the other.
///
/// # Errors
/// The kernel has no stock that memstock knows, there is no such cgroup, or it cannot be read.
pub fn kernel(args: &Kernel) -> Result<u8> {
    host::require_privilege()?;
    let mut slots = KernelSlots::load(args.isolated)?;
    let of = args.cgroup.as_deref().map(|path| slots.tree().resolve(path)).transpose()?;
    slots.warn_of_isolated()?;
    let functions = if args.watch { KernelStock::watch_if_possible() } else { None };
    let charges = || functions.as_ref().map_or(Ok(None), |functions| functions.charges(None));
    end_well_when_interrupted()?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut before: Option<(Vec<CpuStocks>, Option<KernelCharges<u64>>)> = None;
    for sample in 1.. {
        let mut view = slots.view(of.as_deref())?;
        let now = (view.cpus.clone(), charges()?);
        view.since = before.as_ref().map(|(cpus, charges)| Since {
            changed_hands: changed_hands(cpus, &view.cpus),
            charges: now.1.zip(*charges).map(|(now, before)| difference(now, before)),
        });
        before = Some(now);
        if let Some(of) = &of {
            view.only(of);
        }
        let written = match (args.json, args.watch) {
            (true, true) => writeln!(out, "{}", document(&view, page_size())),
            (true, false) => writeln!(out, "{:#}", document(&view, page_size())),
            (false, _) => write(&mut out, &view, page_size()),
        };
        let written = written.and_then(|()| out.flush());
        if written.is_err() || !args.watch || args.iterations == Some(sample) {
            return closed_pipe_is_success(written);
        }
        sleep(args.delay);
    }
    Ok(0)
}

fn difference(now: KernelCharges<u64>, before: KernelCharges<u64>) -> KernelCharges<u64> {
    KernelCharges {
        charges: now.charges.saturating_sub(before.charges),
        nr_pages: now.nr_pages.saturating_sub(before.nr_pages),
        shared_operations: now.shared_operations.saturating_sub(before.shared_operations),
    }
}
