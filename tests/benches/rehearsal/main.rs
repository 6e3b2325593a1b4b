//! `cargo xtask bench rehearsal`: whether a recording predicts at which limits a program lives.
//!
//! `memstock record` records each program of [`programs::ALL`] once without a limit. Then it runs at many limits of the
//! kernel's own controller, and the smallest at which it lives is bisected. memstock's verdicts are compared with those
//! from the peak alone, and with two rules of thumb that add 15 %.
//!
//! Recordings take turns with the live tests. The kernel's runs need no memstock and take long, so they do not hold the
//! turn.

mod bisect;
mod cells;
mod degrees;
mod inputs;
mod oracle;
mod place;
mod programs;
mod record;
mod rules;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use memstock_tests::bench::Common;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live;
use memstock_tests::skip::skip;

use bisect::Boundary;
use cells::{Cell, Limit};
use inputs::Size;
use oracle::{End, Oracle};
use place::Place;
use programs::Program;
use record::Recording;

/// Run real programs at real limits, and compare with what one recording of each predicted.
#[derive(Parser)]
struct Args {
    /// Only the program of this name; may be repeated
    #[arg(long, value_name = "NAME")]
    program: Vec<String>,
    /// Runs at each limit at which the program should live
    #[arg(long, default_value_t = 2)]
    repeats: usize,
    /// Drop the text of the programs from the page cache as well, so that it is charged to each run, as in a
    /// container whose image is not shared
    #[arg(long)]
    own_text: bool,
    /// Also write the tables into this file, between its marks if it has them
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// The results of a program.
struct Rehearsed {
    program: &'static Program,
    recording: Recording,
    /// The most that the kernel charged without a limit, in bytes.
    peak: u64,
    cells: Vec<Cell>,
    boundary: Boundary,
    /// The smallest limit at which it takes at most 5 % longer, in bytes.
    fast_from: u64,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    ensure!(args.repeats > 0, "--repeats: at least one");
    if args.common.smoke {
        args.repeats = 1;
    }
    for name in &args.program {
        ensure!(
            programs::ALL.iter().any(|program| program.name == name),
            "there is no program {name}: {}",
            programs::ALL.map(|program| program.name).join(", ")
        );
    }
    let start = Instant::now();
    let Some(oracle) = Oracle::new()? else {
        skip("bench rehearsal", ABSENT);
        return Ok(());
    };
    let place = Place::new(args.own_text)?;
    let size = if args.common.smoke { Size::Small } else { Size::Full };
    let mut recorded = Vec::new();
    for program in wanted(&args) {
        place.prepare(program, size).with_context(|| format!("preparing {}", program.name))?;
        live(|| -> Result<()> {
            let recording = record::record(&place, program);
            recorded
                .push((program, recording.with_context(|| format!("recording {}", program.name))?));
            Ok(())
        })?;
    }
    let mut all = Vec::new();
    for (program, recording) in recorded {
        all.push(rehearse(&args, &oracle, &place, program, recording)?);
    }
    // Without root nothing was recorded, and that was reported.
    if all.is_empty() {
        return Ok(());
    }
    let report = table::Report::of(&all);
    println!("\n{report}");
    println!("{}", degrees::Degrees::of(&all));
    println!("{} programs in {:.0} s", all.len(), start.elapsed().as_secs_f64());
    if let Some(file) = &args.markdown {
        report.write(file)?;
    }
    report.verdict()
}

/// The programs that were asked for and are installed.
fn wanted(args: &Args) -> Vec<&'static Program> {
    let asked = programs::ALL.iter().filter(|program| {
        let named = args.program.iter().any(|name| name == program.name);
        named || (args.program.is_empty() && (program.is_smoke || !args.common.smoke))
    });
    let here = asked.filter(|program| match program.missing() {
        Some(what) => {
            skip(&format!("bench rehearsal {}", program.name), &format!("{what} is not here"));
            false
        }
        None => true,
    });
    here.collect()
}

fn rehearse(
    args: &Args,
    oracle: &Oracle,
    place: &Place,
    program: &'static Program,
    mut recording: Recording,
) -> Result<Rehearsed> {
    eprintln!("{}: {recording}", program.name);
    let free = oracle.run(place, program, None, oracle::FREE)?;
    if !free.lived() {
        bail!("{} does not run without a limit: {free}", program.name);
    }
    eprintln!("{}: {free}, of the kernel's peak {}", program.name, table::mib(free.peak));
    recording.max_rss = free.max_rss;
    let patience = std::cell::Cell::new(oracle::patience(free.wall));
    let run = |limit: Option<u64>| {
        loop {
            let run = oracle.run(place, program, limit, patience.get())?;
            let at = limit.map_or("no limit".to_owned(), table::mib);
            eprintln!("{} at {at}: {run}", program.name);
            if run.end != End::Stuck {
                return Ok(run);
            }
            // It may be stuck because the host is busy, so measure again without a limit.
            let free = oracle.run(place, program, None, oracle::FREE)?;
            let now = oracle::patience(free.wall);
            if now <= patience.replace(now.max(patience.get())) {
                return Ok(run);
            }
            eprintln!("{}: {free}: again", program.name);
        }
    };
    let limits = if args.common.smoke { Limit::few(&recording) } else { Limit::all(&recording) };
    let mut cells = Vec::new();
    for limit in limits {
        cells.push(Cell::fill(limit, &recording, args.repeats, run)?);
    }
    let boundary = if args.common.smoke {
        Boundary::foretold(&recording)
    } else {
        bisect::bisect(&cells, args.repeats, |limit| run(Some(limit)))?
    };
    let fast_from = if args.common.smoke {
        boundary.lives
    } else {
        bisect::fast_from(&cells, boundary.lives, run)?
    };
    Ok(Rehearsed { program, recording, peak: free.peak, cells, boundary, fast_from })
}
