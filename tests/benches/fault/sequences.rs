//! The cost of a page in calls: the programs of its fault, its allocation and its free in a row, and without some of
//! them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, RawTracePoint, loaded_programs};
use memstock::engine::load::{Coalescing, Settings};
use memstock::host;
use memstock_tests::bench::peers::{Peer, Running};
use memstock_tests::bench::slices::{Paired, pairs};
use memstock_tests::bench::statistics::{Estimate, difference};

use crate::calls::{Arguments, Call, Home, compare};
use crate::programs::{PAGE, Programs, tracking};

/// Levels of the deep variants.
pub const LEVELS: usize = 4;

/// Only this program at a fault, and empty programs for the rest.
fn alone<'a>(empty: &[Call<'a>], program: &'a RawTracePoint) -> Vec<Call<'a>> {
    let fault = Call { program, args: Arguments::Fault };
    [fault].into_iter().chain(empty[1..].iter().copied()).collect()
}

/// The results of one sequence.
type Slices = Vec<Paired<f64>>;

/// Measures and prints.
///
/// A program's speed depends on the address where the kernel happens to load it: by tens of ns, constant while it is
/// loaded. So everything is loaded several times.
pub fn measure(
    (loads, rounds): (usize, usize),
    slice: Duration,
    peers: bool,
    home: &Home,
) -> Result<()> {
    let peers = if peers { peers_programs()? } else { Vec::new() };
    let online = host::cpus()?.online;
    let mut cpus = vec![&online[..1], &online[..]];
    cpus.dedup();
    let mut all: Vec<Vec<(&str, Slices)>> = vec![Vec::new(); cpus.len()];
    for _ in 0..loads {
        for (all, seen) in all.iter_mut().zip(one_load(&cpus, rounds, slice, &peers, home)?) {
            if all.is_empty() {
                *all = seen;
            } else {
                all.iter_mut().zip(seen).for_each(|((_, all), (_, seen))| all.extend(seen));
            }
        }
    }
    for (cpus, seen) in cpus.iter().zip(&all) {
        println!(
            "\n{} busy CPU(s), by test runs: ns above as many empty programs; loaded {loads} times, {rounds} \
             slices of {slice:?}\neach, between two of the empty programs; medians with 95 % intervals",
            cpus.len()
        );
        report(seen);
    }
    Ok(())
}

fn one_load(
    cpus: &[&[u32]],
    rounds: usize,
    slice: Duration,
    peers: &[(&'static str, Running, RawTracePoint)],
    home: &Home,
) -> Result<Vec<Vec<(&'static str, Slices)>>> {
    let stocked = Settings::default();
    let each = Settings { coalescing: Coalescing::Nothing, ..stocked };
    let mut engines = [
        tracking(stocked, home, 1)?,
        tracking(stocked, home, LEVELS)?,
        tracking(each, home, 1)?,
        tracking(each, home, LEVELS)?,
        tracking(stocked, home, 0)?,
    ];
    let info = engines[0].engine.info();
    let programs: Vec<_> = engines.iter_mut().map(Programs::of).collect::<Result<_>>()?;
    let [stocked, stocked_deep, each, each_deep, untracked] = programs.as_slice() else {
        anyhow::bail!("as many as there are engines");
    };
    // Each from another engine: the kernel counts a program's users on a cache line that CPUs share, and three calls
    // of one program would contend for it more than calls of three programs.
    let empty: Vec<_> = programs.iter().take(PAGE.len()).map(Programs::nothing).collect();
    let mut without_fault = stocked.sequence();
    without_fault[0] = empty[0];
    let mut sequences = vec![
        ("empty programs, again", empty.clone()),
        ("page: stock", stocked.sequence()),
        ("page without its fault: stock", without_fault),
        ("page: stock, 4 levels", stocked_deep.sequence()),
        ("page: shared counter each", each.sequence()),
        ("page: shared counter each, 4 levels", each_deep.sequence()),
        ("fault: untracked", alone(&empty, &untracked.page[0])),
    ];
    for (name, _, program) in peers {
        sequences.push((*name, alone(&empty, program)));
    }
    let all: Vec<_> = std::iter::once(empty).chain(sequences.iter().map(|s| s.1.clone())).collect();
    let pages = (info.page_base, info.page_struct_size);
    let named = |cpus: &&[u32]| {
        let seen = compare(&all, pages, cpus, rounds, slice)?;
        // The control is the first sequence, and again the second.
        Ok(sequences.iter().map(|s| s.0).zip(seen.into_iter().skip(1)).collect())
    };
    cpus.iter().map(named).collect()
}

fn report(seen: &[(&str, Slices)]) {
    let above = |n: usize| -> Vec<f64> {
        let pairs = pairs(&seen[n].1, |ns| *ns);
        pairs.iter().map(|pair| pair.value - pair.control).collect()
    };
    for (name, slices) in seen {
        println!("{name:<40} {:>24}", difference(&pairs(slices, |ns| *ns)).to_string());
    }
    // Compares slices of the same round.
    let between = |name: &str, a: usize, b: usize| {
        let within: Vec<f64> = above(a).iter().zip(above(b)).map(|(a, b)| a - b).collect();
        println!("{name:<40} {:>24}", Estimate::of(&within).to_string());
    };
    between("fault: hit", 1, 2);
    between("4 levels above 1: stock", 3, 1);
    between("4 levels above 1: shared counter each", 5, 4);
    for (name, ours, theirs) in
        [("stock, by shared counter each", 1, 4), ("the same, 4 levels", 3, 5)]
    {
        let parts: Vec<f64> = above(ours).iter().zip(above(theirs)).map(|(a, b)| a / b).collect();
        println!("{name:<40} {:>24}", Estimate::of(&parts).digits(2));
    }
}

/// The programs of other tools that count faults, as far as they can be called.
fn peers_programs() -> Result<Vec<(&'static str, Running, RawTracePoint)>> {
    let (found, missing) = Peer::find();
    for why in missing {
        println!("left out: {why}");
    }
    let ids = || loaded_programs().map(|info| Ok(info?.id())).collect::<Result<Vec<u32>>>();
    let mut programs = Vec::new();
    for peer in found {
        let before = ids()?;
        let running = peer.start()?;
        let new =
            loaded_programs().filter_map(Result::ok).filter(|info| !before.contains(&info.id()));
        let handles = |info: ProgramInfo| RawTracePoint::from_program_info(info, "".into()).ok();
        let mut raw = new.filter_map(handles);
        match raw.next() {
            Some(program) => programs.push((peer.name, running, program)),
            None => running.end().context("a peer")?,
        }
    }
    Ok(programs)
}
