//! The table of the patch "memcg: coalesce charging via percpu storage" (2009), measured on this machine: the page
//! faults that tasks doing nothing else still achieve, with and without coalescing.
//!
//! Prints nothing: `text` and `bars` do.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::RawTracePoint;
use memstock::engine::load::{Coalescing, Loaded, Settings};
use memstock::engine::object::charging;
use memstock_common::DEFAULT_BATCH;
use memstock_tests::bench::HOT_TRACEPOINTS;
use memstock_tests::bench::peers::{Peer, Running};
use memstock_tests::bench::slices::{Paired, interleave, pairs};
use memstock_tests::bench::statistics::{Estimate, difference, ratio, values};
use memstock_tests::bench::workers::{Done, Workers};
use serde::Serialize;

use crate::empty::attach_empty;
use crate::loaded::{empty, engine};
use crate::machine::Machine;
use crate::places::{LEVELS, Place, Places};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Times to measure each variant.
    pub rounds: usize,
    /// Length of a slice.
    pub slice: Duration,
    /// Pages to map, touch and unmap at a time.
    pub pages: usize,
}

/// The table.
#[derive(Clone, Debug, Serialize)]
pub struct Table1 {
    /// Where it was measured.
    pub machine: Machine,
    /// Pages mapped, touched and unmapped at a time.
    pub pages: usize,
    /// Times each variant was measured.
    pub rounds: usize,
    /// Length of a slice, ms.
    pub slice_ms: u64,
    /// Whether the kernel's own v2 controller charged the tasks in every slice, the control's included.
    pub kernel_charges_always: bool,
    /// One for each number of busy CPUs.
    pub blocks: Vec<Block>,
}

/// The rows for one number of busy CPUs.
#[derive(Clone, Debug, Serialize)]
pub struct Block {
    /// Tasks, each on a CPU of its own.
    pub cpus: usize,
    /// Faults per second with nothing attached, all tasks together.
    pub control: Estimate,
    /// CPU time of a fault with its unmap, ns, with nothing attached.
    pub control_ns: Estimate,
    /// The variants.
    pub rows: Vec<Row>,
}

/// One variant.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is attached, or where the tasks are.
    pub name: String,
    /// Levels of charged cgroups, if any.
    pub depth: Option<usize>,
    /// What a user gets for it.
    pub delivers: &'static str,
    /// Slices measured, with as many of the control around them.
    pub slices: usize,
    /// Faults per second, all tasks together.
    pub rate: Estimate,
    /// The same relative to nothing attached.
    pub ratio: Estimate,
    /// Faults per second of the tasks' CPU time, relative to nothing attached: without the CPU time of other tasks and
    /// of a peer's own process.
    pub cpu_ratio: Estimate,
    /// CPU time that it adds to a fault with its unmap, ns.
    pub added_ns: Estimate,
}

/// What is attached.
#[derive(Clone, Debug)]
enum Attached {
    Nothing,
    Empty,
    /// An engine, by its index among the loaded ones.
    Engine(usize),
    Peer(Peer),
}

#[derive(Clone, Debug)]
struct Variant {
    name: String,
    delivers: &'static str,
    attached: Attached,
    place: Place,
}

const USAGE: &str = "usage and limits of cgroups";

/// The engines of the table: their names and settings.
fn engines() -> Vec<(String, Settings)> {
    let alone = |coalescing| Settings { coalescing, ..Settings::default() };
    let batch = |batch| (format!("batch {batch}"), Settings { batch, ..Settings::default() });
    let mut engines = vec![
        ("shared counter on every page".into(), alone(Coalescing::Nothing)),
        ("+ coalesced uncharge".into(), alone(Coalescing::Uncharges(DEFAULT_BATCH))),
        (format!("+ stock (batch {DEFAULT_BATCH})"), Settings::default()),
    ];
    engines.extend([8, 64, 128, 256].map(batch));
    engines
}

fn variants(engines: &[(String, Settings)], places: &Places, peers: &[Peer]) -> Vec<Variant> {
    let variant = |name: &str, delivers, attached, place| Variant {
        name: name.to_owned(),
        delivers,
        attached,
        place,
    };
    let mut all = vec![
        variant("nothing, again", "-", Attached::Nothing, Place::CONTROL),
        variant("empty programs", "-", Attached::Empty, Place::CONTROL),
    ];
    for depth in [1, LEVELS] {
        for (n, (name, _)) in engines.iter().enumerate() {
            all.push(variant(name, USAGE, Attached::Engine(n), Place { depth, kernel: 0 }));
        }
    }
    if places.has_kernel_chain() {
        for kernel in [1, LEVELS] {
            let place = Place { depth: 1, kernel };
            all.push(variant("the kernel's own (v1)", USAGE, Attached::Nothing, place));
        }
    }
    if places.v2_charges() {
        let root = Place { depth: 0, kernel: 0 };
        all.push(variant("without the kernel's own (v2)", "-", Attached::Nothing, root));
    }
    for peer in peers {
        all.push(variant(peer.name, peer.delivers, Attached::Peer(peer.clone()), Place::CONTROL));
    }
    all
}

/// Measures the table for each number of busy CPUs.
pub fn measure(
    effort: &Effort,
    cpus: &[&[u32]],
    peers: &[Peer],
    places: &Places,
) -> Result<Table1> {
    let engines = engines();
    let mut loaded = Vec::new();
    for (_, settings) in &engines {
        let engine = engine(*settings)?;
        places.register(&engine.engine)?;
        loaded.push(engine);
    }
    let mut empty = empty()?;
    let variants = variants(&engines, places, peers);
    let blocks = cpus.iter().map(|cpus| {
        let at = Place::CONTROL;
        let workers = Workers::start(cpus, effort.pages, &places.dirs(at))?;
        let (variants, loaded, empty) = (&variants, &mut loaded, &mut empty);
        Bench { effort, variants, loaded, empty, places, workers, at }.block()
    });
    Ok(Table1 {
        blocks: blocks.collect::<Result<_>>()?,
        machine: Machine::here()?,
        pages: effort.pages,
        rounds: effort.rounds,
        slice_ms: effort.slice.as_millis() as u64,
        kernel_charges_always: places.v2_charges(),
    })
}

struct Bench<'a> {
    effort: &'a Effort,
    variants: &'a [Variant],
    loaded: &'a mut [Loaded],
    empty: &'a mut RawTracePoint,
    places: &'a Places,
    workers: Workers,
    at: Place,
}

impl Bench<'_> {
    fn block(&mut self) -> Result<Block> {
        let seen = interleave(self.effort.rounds, self.variants.len(), |n| self.slice(n))?;
        let cpus = self.workers.len();
        let controls: Vec<_> = seen.iter().flatten().map(|paired| paired.controls[0]).collect();
        let rates: Vec<_> = controls.iter().map(|done| done.rate).collect();
        let costs: Vec<_> = controls.iter().map(|done| done.page_ns).collect();
        let row = |(variant, slices): (&Variant, &Vec<Paired<Done>>)| {
            let rates = pairs(slices, |done| done.rate);
            let charged = match variant.attached {
                Attached::Engine(_) => Some(variant.place.depth),
                Attached::Nothing if variant.place.kernel > 0 => Some(variant.place.kernel),
                _ => None,
            };
            Row {
                name: variant.name.clone(),
                depth: charged,
                delivers: variant.delivers,
                slices: slices.len(),
                rate: values(&rates),
                ratio: ratio(&rates),
                cpu_ratio: ratio(&pairs(slices, |done| 1.0 / done.page_ns)),
                added_ns: difference(&pairs(slices, |done| done.page_ns)),
            }
        };
        Ok(Block {
            cpus,
            control: Estimate::of(&rates),
            control_ns: Estimate::of(&costs),
            rows: self.variants.iter().zip(&seen).map(row).collect(),
        })
    }

    fn slice(&mut self, variant: Option<usize>) -> Result<Done> {
        let variant = variant.and_then(|n| self.variants.get(n)).cloned();
        let place = variant.as_ref().map_or(Place::CONTROL, |variant| variant.place);
        let attached = variant.map_or(Attached::Nothing, |variant| variant.attached);
        let (mut links, mut running) = (Vec::new(), None::<Running>);
        match &attached {
            Attached::Nothing => {}
            Attached::Empty => {
                for tracepoint in HOT_TRACEPOINTS {
                    links.push(attach_empty(self.empty, tracepoint)?);
                }
            }
            Attached::Engine(n) => {
                for (name, tracepoint) in charging() {
                    links.push(self.loaded[*n].link(name, tracepoint)?);
                }
            }
            Attached::Peer(peer) => running = Some(peer.start()?),
        }
        self.places.enter(&self.workers, self.at, place)?;
        self.at = place;
        // The birth of a task invalidates what the CPUs remember of the workers from before they were moved.
        std::thread::spawn(|| {}).join().ok().context("cannot start a thread")?;
        // Warms stocks and caches before it counts.
        std::thread::sleep(self.effort.slice / 5);
        let done = self.workers.slice(self.effort.slice);
        drop(links);
        if let Some(running) = running {
            running.end()?;
        }
        done
    }
}
