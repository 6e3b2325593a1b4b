//! The cost of a page by cgroups, levels, slots and CPUs, and of a sample by cgroups.

use std::time::Instant;

use anyhow::Result;
use memstock::engine::Engine;
use memstock::engine::load::{Coalescing, Loaded, Settings};
use memstock::engine::sample::{Paths, sample};
use memstock::host;
use memstock::host::cgroup::CgroupMount;
use memstock_common::{MAX_CGROUPS, NO_LIMIT};
use memstock_tests::bench::slices::pairs;
use memstock_tests::bench::statistics::{Estimate, difference};

use crate::Effort;
use crate::calls::{Arguments, Call, Home, compare};
use crate::programs::{PAGE, Programs, handle, tracking};

/// The most levels.
pub const DEEPEST: usize = 8;

/// An engine that tracks our cgroup and others that do not exist: only their number matters.
fn crowded(home: &Home, cgroups: usize) -> Result<Loaded> {
    let settings = Settings { max_cgroups: MAX_CGROUPS, ..Settings::default() };
    let loaded = tracking(settings, home, 1)?;
    for n in 1..cgroups as u64 {
        // Ids that no living cgroup has.
        loaded.engine.register(u64::from(u32::MAX) - n, None, NO_LIMIT, NO_LIMIT)?;
    }
    Ok(loaded)
}

/// The calls of a page after another call.
fn with<'a>(first: Call<'a>, page: &'a Programs) -> Vec<Call<'a>> {
    [first].into_iter().chain(page.sequence()).collect()
}

/// Measures and prints.
pub fn measure(effort: &Effort, home: &Home) -> Result<()> {
    let mut named = Vec::new();
    for &cgroups in effort.cgroups {
        named.push((format!("{cgroups} tracked"), crowded(home, cgroups)?));
    }
    samples(&named)?;
    for &depth in effort.depths {
        named.push((format!("{depth} level(s)"), tracking(Settings::default(), home, depth)?));
    }
    for &slots in effort.slots {
        let settings = Settings { slots, ..Settings::default() };
        named.push((format!("{slots} slot(s)"), tracking(settings, home, 1)?));
    }
    let each = Settings { coalescing: Coalescing::Nothing, ..Settings::default() };
    for &depth in effort.depths {
        let name = format!("each page on the counters, {depth} level(s)");
        named.push((name, tracking(each, home, depth)?));
    }
    let info = named[0].1.engine.info();
    let mut programs = Vec::new();
    for (name, loaded) in &mut named {
        let bump_generation = handle(loaded.program("bump_generation")?)?;
        programs.push((name.clone(), Programs::of(loaded)?, bump_generation));
    }
    // Each from another engine as far as possible; `bench fault` says why.
    let others = programs.iter().cycle();
    let empty: Vec<_> = others.map(|program| program.1.nothing()).take(PAGE.len() + 1).collect();
    let mut sequences = vec![("empty programs, again".to_owned(), empty.clone())];
    for (name, page, _) in &programs {
        sequences.push((name.clone(), with(page.nothing(), page)));
    }
    for (name, page, bump_generation) in programs.iter().take(effort.cgroups.len()) {
        let asks = Call { program: bump_generation, args: Arguments::None };
        sequences.push((format!("{name}, owner looked up"), with(asks, page)));
    }
    let all: Vec<_> = std::iter::once(empty).chain(sequences.iter().map(|s| s.1.clone())).collect();
    let online = host::cpus()?.online;
    for cpus in [&online[..1], &online[..]] {
        let pages = (info.page_base, info.page_struct_size);
        let seen = compare(&all, pages, cpus, effort.rounds, effort.slice)?;
        println!(
            "\n{} busy CPU(s), by test runs: ns of a page's fault, allocation and free above as many empty \
             programs; {} slices of {:?} each",
            cpus.len(),
            effort.rounds,
            effort.slice
        );
        for ((name, _), slices) in sequences.iter().zip(&seen[1..]) {
            println!("{name:<44} {:>24}", difference(&pairs(slices, |ns| *ns)).to_string());
        }
        if online.len() == 1 {
            break;
        }
    }
    Ok(())
}

/// Measures the time of one sample as `memstock show` reads it.
fn samples(crowds: &[(String, Loaded)]) -> Result<()> {
    let mount = CgroupMount::find()?;
    let possible = host::cpus()?.possible.len();
    println!("one sample, us: all of it, and for each of {possible} possible CPUs");
    for (name, loaded) in crowds {
        let one = |engine: &Engine| -> Result<f64> {
            let start = Instant::now();
            sample(engine, &mount, &mut Paths::default())?;
            Ok(start.elapsed().as_secs_f64() * 1e6)
        };
        let took = (0..15).map(|_| one(&loaded.engine)).collect::<Result<Vec<_>>>()?;
        let each: Vec<_> = took.iter().map(|us| us / possible as f64).collect();
        let (all, each) = (Estimate::of(&took).digits(0), Estimate::of(&each).digits(1));
        println!("{name:<44} {all:>24} {each:>24}");
    }
    Ok(())
}
