//! Counts the operations on the shared counters for real pages.

use anyhow::Result;
use memstock::engine::Engine;
use memstock::engine::load::Settings;
use memstock::engine::object::charging;
use memstock_common::Stock;
use memstock_tests::workload::cpus::on;
use memstock_tests::workload::pages::{Mapping, round};

use crate::calls::Home;
use crate::programs::tracking;

/// Pages to hold.
const HELD: usize = 32_768;
/// Rounds of the map-touch-unmap loop.
const ROUNDS: usize = 1_000;

/// Counts and prints.
pub fn count(home: &Home) -> Result<()> {
    println!("\noperations on the counters of each level, by the engine's own count");
    for batch in [8, 32, 256] {
        let mut loaded = tracking(Settings { batch, ..Settings::default() }, home, 4)?;
        let mut links = Vec::new();
        for (name, point) in charging() {
            links.push(loaded.link(name, point)?);
        }
        let engine = &loaded.engine;
        let [held, looped] = on(0, || {
            let before = operations(engine)?;
            let mapping = Mapping::new(HELD)?;
            mapping.touch();
            let held = operations(engine)? - before;
            drop(mapping);
            // Few enough to fit into a stock with their page tables.
            let pages = batch as usize / 4;
            round(pages)?;
            let before = operations(engine)?;
            for _ in 0..ROUNDS {
                round(pages)?;
            }
            let looped = operations(engine)? - before;
            Ok([held as f64 / HELD as f64, looped as f64 / (ROUNDS * pages) as f64])
        })?;
        drop(links);
        println!(
            "batch {batch:<4} a page that stays: {held:.4} (1/batch is {:.4}); a page of a loop of {} pages: {looped:.5}",
            1.0 / f64::from(batch),
            batch / 4
        );
    }
    Ok(())
}

fn operations(engine: &Engine) -> Result<u64> {
    let of = |stock: &Stock<u64>| stock.charges + stock.uncharges + stock.drains;
    Ok(engine.stocks(0)?.iter().map(|(_, stock)| of(stock)).sum())
}
