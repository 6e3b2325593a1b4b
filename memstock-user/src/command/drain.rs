//! `memstock drain`: gives stocked pages back, synchronously, and says how many.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;
use memstock_common::NO_INDEX;
use serde_json::json;

use super::{attached, closed_pipe_is_success, target};
use crate::cgroup::CgroupMount;
use crate::cli::Drain;
use crate::engine::Engine;
use crate::exit::Failure;
use crate::host::page_size;
use crate::size::human;

/// Pages given back by each CPU.
type Receipt = BTreeMap<u32, u64>;

/// Drains and prints what each CPU gave back.
///
/// # Errors
/// No engine is running, or there is no such cgroup or CPU.
pub fn drain(args: &Drain) -> Result<u8> {
    let (engine, mount) = attached()?;
    let subtree = subtree(&engine, &mount, args)?;
    let cpus = cpus(&engine, args)?;
    let mut receipt = Receipt::new();
    for _ in 0..args.repeat {
        for (cpu, nr_pages) in engine.drain(&cpus, subtree)? {
            *receipt.entry(cpu).or_default() += nr_pages;
        }
    }
    closed_pipe_is_success(print(&mut io::stdout().lock(), &receipt, args.json))
}

/// The counter whose subtree is drained.
fn subtree(engine: &Engine, mount: &CgroupMount, args: &Drain) -> Result<u32> {
    let Some(path) = &args.cgroup else {
        return Ok(NO_INDEX);
    };
    target(engine, mount, path).map(|(_, index)| index)
}

fn cpus(engine: &Engine, args: &Drain) -> Result<Vec<u32>> {
    match args.cpu {
        None => Ok(engine.possible().to_vec()),
        Some(cpu) if engine.possible().contains(&cpu) => Ok(vec![cpu]),
        Some(cpu) => Err(Failure::Other
            .error(format!("there is no CPU {cpu}; possible are {:?}", engine.possible()))),
    }
}

fn print(out: &mut impl Write, receipt: &Receipt, as_json: bool) -> io::Result<()> {
    let total: u64 = receipt.values().sum();
    if as_json {
        let cpus: Vec<_> = receipt
            .iter()
            .map(|(cpu, nr_pages)| json!({ "cpu": cpu, "nr_pages": nr_pages }))
            .collect();
        return writeln!(out, "{:#}", json!({ "cpus": cpus, "nr_pages": total }));
    }
    for (cpu, nr_pages) in receipt {
        writeln!(out, "cpu {cpu}: {}", human(nr_pages * page_size()))?;
    }
    writeln!(out, "total: {}", human(total * page_size()))
}
