//! `memstock drain`: gives stocked pages back, synchronously, and says how many.

use std::io::{self, Write};

use anyhow::Result;

use super::{attached, closed_pipe_is_success, target};
use crate::cli::Drain;
use crate::enforce::drains::{Receipt, asked};
use crate::engine::Engine;
use crate::exit::Failure;
use crate::host::page_size;
use crate::journal::record::named;
use crate::model::size::human;
use crate::view::show::json::drained as document;

/// Drains and prints what each CPU gave back.
///
/// # Errors
/// No engine is running, or there is no such cgroup or CPU.
pub fn drain(args: &Drain) -> Result<u8> {
    let (engine, mount) = attached()?;
    let wanted = target(&engine, &mount, args.cgroup.as_deref(), &args.named)?;
    let subtree = wanted.map(|(cgroup, index)| (named(&cgroup), index));
    let receipt = asked(&engine, &cpus(&engine, args)?, subtree, args.repeat)?;
    closed_pipe_is_success(print(&mut io::stdout().lock(), &receipt, args.json))
}

fn cpus(engine: &Engine, args: &Drain) -> Result<Vec<u32>> {
    match args.cpu {
        None => Ok(engine.possible().to_vec()),
        Some(cpu) if engine.possible().contains(&cpu) => Ok(vec![cpu]),
        Some(cpu) => Err(Failure::Other
            .error(format!("there is no CPU {cpu}; possible CPUs are {:?}", engine.possible()))),
    }
}

fn print(out: &mut impl Write, receipt: &Receipt, as_json: bool) -> io::Result<()> {
    if as_json {
        return writeln!(out, "{:#}", document(receipt));
    }
    for (cpu, nr_pages) in &receipt.cpus {
        writeln!(out, "cpu {cpu}: {}", human(nr_pages * page_size()))?;
    }
    let (total, took) = (receipt.nr_pages(), receipt.took.as_micros());
    writeln!(out, "total: {} in {took} us", human(total * page_size()))
}
