//! Counts the operations on the shared counters: a coalesced charge or uncharge, or a drain of a stock, is one
//! operation on the counter of each level.

use anyhow::{Result, ensure};
use memstock_tests::show::{self, Show};
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, PAGE, TestCgroup, live};

const BATCH: u64 = 32;
const CPU: u32 = 0;

/// The number of charges and uncharges, and of drains, on all CPUs.
fn operations(show: &Show) -> (u64, u64) {
    let sum = |of: fn(&show::Cpu) -> u64| show.cpus.iter().map(of).sum();
    (sum(|cpu| cpu.charges + cpu.uncharges), sum(|cpu| cpu.drains))
}

/// At most depth / batch × 1.02 operations for each page that stays charged, plus the drains. The 2 % are for what else
/// the task allocates and frees meanwhile, such as its page tables.
#[test]
fn a_page_that_stays_costs_its_part_of_a_batch() -> Result<()> {
    const PAGES: u32 = 32_768;
    live(|| {
        let top = TestCgroup::new()?;
        let (middle, depth) = (top.child("a")?, 3);
        let leaf = middle.child("b")?;
        let paths = [top.path(), middle.path(), leaf.path()];
        let mut holder = Holder::of(Mode::AnonWrite).pages(PAGES).cpu(CPU).cgroup(&leaf).start()?;
        let engine = Engine::start(paths.iter().flat_map(|path| ["--cgroup", path]))?;
        let before = engine.show()?;
        holder.get()?;
        let after = engine.show()?;
        let usage =
            |show: &Show| -> Result<u64> { Ok(show.cgroup(top.path())?.memory.usage / PAGE) };
        let net = usage(&after)? - usage(&before)?;
        ensure!(net >= u64::from(PAGES), "{net} pages charged of {PAGES}");
        let (had, has) = (operations(&before), operations(&after));
        // Each operation is made on every level.
        let (made, drains) = (depth * (has.0 - had.0), depth * (has.1 - had.1));
        let most = (net * depth) as f64 / BATCH as f64 * 1.02 + drains as f64;
        ensure!(made as f64 <= most, "{made} operations for {net} pages, at most {most:.0}");
        // Make sure that the pages were charged at all.
        ensure!(made >= depth * u64::from(PAGES) / BATCH, "{made} operations for {net} pages");
        engine.stop().map(drop)
    })
}
