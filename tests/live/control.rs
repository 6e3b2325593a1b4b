//! The control programs in the real kernel, beside real faults: register, unregister, set a limit.
//!
//! No command unregisters a cgroup or moves a limit yet, so this test drives the engine as a library.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use memstock::cgroup::{Cgroup, CgroupMount};
use memstock::engine::Engine;
use memstock::engine::load::{Settings, load};
use memstock::engine::pins::Pins;
use memstock::{exit, host};
use memstock_common::{Loss, NO_LIMIT, Resource, StockWord, owner_of};
use memstock_tests::{Task, TestCgroup, live};

/// An attached engine of the test's own; its pins go with it.
struct Own {
    engine: Engine,
    pins: Pins,
}

impl Own {
    fn start(settings: Settings) -> Result<(Self, CgroupMount)> {
        let bpffs = host::bpffs()?;
        let pins = Pins::at(PathBuf::from(bpffs.dir).join("memstock-test-control"));
        let (engine, _) = load(&pins, settings)?.attach()?;
        Ok((Self { engine, pins }, CgroupMount::find()?))
    }

    /// Pages stocked for the cgroup, on all CPUs.
    fn stocked(&self, cgroup: &Cgroup) -> Result<u32> {
        let words = self.engine.stocks(0)?.into_iter().map(|(_, stock)| StockWord(stock.word));
        let its = words.filter(|word| word.owner() == owner_of(cgroup.id));
        Ok(its.map(StockWord::charged).sum())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = self.pins.remove() {
            eprintln!("{error:#}");
        }
    }
}

/// A cgroup is registered and unregistered while its tasks fault on both CPUs. Each time nothing of
/// it stays: no counter, no stock, no charge at its parent; and what is registered next starts at 0.
#[test]
fn nothing_stays_of_an_unregistered_cgroup() -> Result<()> {
    const CYCLES: u32 = 200;
    live(|| {
        let (top, leaf) = {
            let top = TestCgroup::new()?;
            let leaf = top.child("leaf")?;
            (top, leaf)
        };
        let mut tasks = [Task::start(&leaf, Some(0))?, Task::start(&leaf, Some(1))?];
        let (mut own, mount) = Own::start(Settings::default())?;
        let (top, leaf) = (mount.resolve(top.path())?, mount.resolve(leaf.path())?);
        let parent = own.engine.register(top.id, None, NO_LIMIT, NO_LIMIT)?;
        for task in &mut tasks {
            task.churn()?;
        }
        let (mut charged, mut stocked_at_rest) = (0, 0);
        for cycle in 0..CYCLES {
            let index = own.engine.register(leaf.id, Some(parent), NO_LIMIT, NO_LIMIT)?;
            ensure!(own.engine.unregister(parent).is_err(), "it has a tracked child");
            charged += own.engine.counter(index)?.memory.usage;
            // Under load the parent's faults displace its stocks; at rest only unregistering does.
            let at_rest = cycle % 2 == 1;
            if at_rest {
                for task in &mut tasks {
                    task.pause()?;
                }
                stocked_at_rest += own.stocked(&leaf)?;
            }
            own.engine.unregister(index)?;
            let counter = own.engine.counter(index)?;
            ensure!(counter.id == 0 && counter.memory.usage == 0, "cycle {cycle}: {counter:?}");
            ensure!(own.stocked(&leaf)? == 0, "cycle {cycle}: a stock of what is gone");
            ensure!(own.engine.index_of(leaf.id)?.is_none(), "cycle {cycle}: still tracked");
            if at_rest {
                for task in &mut tasks {
                    task.churn()?;
                }
            }
        }
        ensure!(charged > 0 && stocked_at_rest > 0, "the load was not on: {charged} pages");
        for task in &mut tasks {
            task.pause()?;
        }
        // What is left at the parent was charged to it directly, while the leaf was not tracked.
        let faults = own.engine.cgroup_cpu(parent)?;
        let misses: u64 = faults.iter().map(|(_, share)| share.misses).sum();
        let hits: u64 = faults.iter().map(|(_, share)| share.hits).sum();
        let pending: u64 = own.engine.stocks(0)?.iter().map(|(_, s)| s.hits - s.settled).sum();
        let usage = own.engine.counter(parent)?.memory.usage;
        let expected = misses + hits + pending + u64::from(own.stocked(&top)?);
        ensure!(usage == expected, "usage {usage}, accounted for {expected}");
        ensure!(own.engine.loss(Loss::CountersMissing)? == 0);
        Ok(())
    })
}

/// A limit is refused below the usage and then stands as it was; above it, it holds from the next
/// charge on.
#[test]
fn a_limit_is_refused_below_the_usage() -> Result<()> {
    const BATCH: u32 = 8;
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, Some(1))?;
        let (mut own, mount) = Own::start(Settings { batch: BATCH, ..Settings::default() })?;
        let index =
            own.engine.register(mount.resolve(cgroup.path())?.id, None, NO_LIMIT, NO_LIMIT)?;
        task.touch(20)?;
        ensure!(own.engine.counter(index)?.memory.usage == 24, "three batches of {BATCH}");

        let refused = own.engine.control().limit(index, Resource::Memory, 23);
        let error = refused.err().context("a limit below the usage")?;
        ensure!(exit::exit_code(&error) == 125, "{error:#}");
        ensure!(own.engine.counter(index)?.memory_limit == NO_LIMIT, "the old limit stands");

        own.engine.control().limit(index, Resource::Memory, 26)?;
        task.touch(10)?;
        let counter = own.engine.counter(index)?;
        // 4 stocked pages, 2 single ones under the limit, and 4 by force.
        ensure!(counter.memory.usage == 30 && counter.memory.watermark == 30, "{counter:?}");
        let shares = own.engine.cgroup_cpu(index)?;
        let (mut singles, mut forced) = (0, 0);
        for (_, share) in shares {
            singles += share.singles;
            forced += share.forced;
        }
        ensure!((singles, forced) == (2, 4), "{singles} singles, {forced} forced");
        own.engine.unregister(index)
    })
}
