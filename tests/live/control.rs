//! The control programs in the real kernel, beside real faults: register, close, set a limit.
//!
//! No command closes a living cgroup, so this test uses the engine as a library.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use memstock::daemon::tree::Tree;
use memstock::engine::Engine;
use memstock::engine::load::{Settings, load};
use memstock::engine::pins::Pins;
use memstock::host;
use memstock::host::cgroup::CgroupMount;
use memstock::journal::Journal;
use memstock_common::control::{KEEP_LIMIT, Limits, Refusal};
use memstock_common::page::{CHUNK_PAGES, owner_in};
use memstock_common::{Loss, NO_LIMIT, NOBODY, owner_of};
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::strace::{self, Failing, Strace};
use memstock_tests::{Task, TestCgroup, free_lists, live, lru, scaled};

/// An attached engine of the test's own. `Drop` removes its pins.
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

    /// Pages charged to the counter and not in use, on all CPUs.
    fn unused(&self, index: u32) -> Result<u64> {
        Ok(self.engine.unused()?.get(&index).copied().unwrap_or_default())
    }

    /// Pages that the counter owns.
    fn owned(&self, index: u32) -> Result<u64> {
        let owners = self.engine.owners()?;
        let chunks = (0..owners.len()).filter_map(|n| owners.get(n));
        let used = chunks.filter(|chunk| chunk.owners != [NOBODY; CHUNK_PAGES as usize]);
        let its = used.flat_map(|chunk| chunk.owners.into_iter());
        Ok(its.filter(|&entry| owner_in(entry) == owner_of(index)).count() as u64)
    }

    /// Waits until the counter of a closed cgroup is free. Its last pages may stay in the kernel's batches until
    /// these are filled; one whose free was missed may stay on a CPU's free list until the load reaches the list's
    /// cold end.
    fn released(&self, index: u32) -> Result<()> {
        try_poll_until(SOON, "the last page of a closed cgroup", || {
            lru::drain()?;
            free_lists::turn_over()?;
            Ok(self.engine.release(index)?.then_some(()))
        })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = self.pins.remove() {
            eprintln!("{error:#}");
        }
    }
}

/// A cgroup is registered and closed while its tasks fault on both CPUs. It is dying while they have
/// pages of it; then nothing of it remains: no counter, no stock, no charge at its parent. The next registered cgroup
/// starts at 0.
#[test]
#[ignore = "long"]
fn nothing_stays_of_a_closed_cgroup() -> Result<()> {
    const CYCLES: u32 = 200;
    live(|| {
        let (top, leaf) = {
            let top = TestCgroup::new()?;
            let leaf = top.child("leaf")?;
            (top, leaf)
        };
        let mut tasks = [Task::start(&leaf, Some(0))?, Task::start(&leaf, Some(1))?];
        let (own, mount) = Own::start(Settings::default())?;
        let (top, leaf) = (mount.resolve(top.path())?, mount.resolve(leaf.path())?);
        let parent = own.engine.register(top.id, None, NO_LIMIT, NO_LIMIT)?;
        for task in &mut tasks {
            task.churn()?;
        }
        let (mut charged, mut unused_at_rest) = (0, 0);
        for cycle in 0..scaled(CYCLES) {
            let index = own.engine.register(leaf.id, Some(parent), NO_LIMIT, NO_LIMIT)?;
            ensure!(own.engine.control().release(index).is_err(), "it is tracked");
            // Emulated CPUs may take turns.
            charged += try_poll_until(SOON, "a page that is charged", || {
                let usage = own.engine.counter(index)?.memory.usage;
                Ok((usage > 0).then_some(usage))
            })?;
            // Under load the parent's faults displace its stocks; at rest only a flush does.
            let at_rest = cycle % 2 == 1;
            if at_rest {
                for task in &mut tasks {
                    task.pause()?;
                }
                unused_at_rest += own.unused(index)?;
            }
            own.engine.close(&[index])?;
            ensure!(own.engine.index_of(leaf.id)?.is_none(), "cycle {cycle}: still tracked");
            own.released(index)?;
            let counter = own.engine.counter(index)?;
            ensure!(counter.id == 0 && counter.memory.usage == 0, "cycle {cycle}: {counter:?}");
            ensure!(own.unused(index)? == 0, "cycle {cycle}: a stock of what is gone");
            if at_rest {
                for task in &mut tasks {
                    task.churn()?;
                }
            }
        }
        ensure!(charged > 0 && unused_at_rest > 0, "the load was not on: {charged} pages");
        for task in &mut tasks {
            task.pause()?;
        }
        // What is left at the parent was charged to it directly, while the leaf was not tracked.
        // Polls, since the kernel frees page tables a grace period after they were unmapped, and the three figures
        // are not read at the same moment.
        try_poll_until(SOON, "usage to be what is owned and unused", || {
            let usage = own.engine.counter(parent)?.memory.usage;
            Ok((usage == own.owned(parent)? + own.unused(parent)?).then_some(()))
        })?;
        ensure!(own.engine.loss(Loss::CountersMissing)? == 0);
        Ok(())
    })
}

/// An unregistered cgroup is charged to its nearest registered ancestor. Exact, since the tasks fault only on command.
#[test]
fn what_is_not_registered_is_charged_to_its_nearest_ancestor() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let middle = top.child("middle")?;
        let leaf = middle.child("leaf")?;
        let mut task = Task::start(&leaf, Some(1))?;
        let (own, mount) = Own::start(Settings::default())?;
        let top = own.engine.register(mount.resolve(top.path())?.id, None, NO_LIMIT, NO_LIMIT)?;
        task.touch(100)?;
        ensure!(own.owned(top)? == 100, "{} pages", own.owned(top)?);
        let middle = mount.resolve(middle.path())?.id;
        let middle = own.engine.register(middle, Some(top), NO_LIMIT, NO_LIMIT)?;
        task.touch(10)?;
        ensure!((own.owned(top)?, own.owned(middle)?) == (100, 10), "from then on");
        // A closed cgroup keeps its pages, and gets no more.
        own.engine.close(&[middle])?;
        task.touch(1)?;
        ensure!((own.owned(top)?, own.owned(middle)?) == (101, 10), "from then on");
        task.ask("drop")?;
        own.released(middle)?;
        ensure!(own.owned(top)? == 0, "all is given back");
        Ok(())
    })
}

/// A limit below the usage is refused, and the old one stays. A limit above it holds from the next charge on.
#[test]
fn a_limit_is_refused_below_the_usage() -> Result<()> {
    const BATCH: u32 = 8;
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, Some(1))?;
        let (own, mount) = Own::start(Settings { batch: BATCH, ..Settings::default() })?;
        let index =
            own.engine.register(mount.resolve(cgroup.path())?.id, None, NO_LIMIT, NO_LIMIT)?;
        task.touch(20)?;
        ensure!(own.engine.counter(index)?.memory.usage == 24, "three batches of {BATCH}");

        let limit = |memory| Limits { index, memory, memsw: KEEP_LIMIT, force: 0 };
        let refused = own.engine.control().limits(limit(23))?;
        ensure!(refused == Err(Refusal::Busy), "it is refused");
        ensure!(own.engine.counter(index)?.memory_limit == NO_LIMIT, "the old limit stands");

        ensure!(own.engine.control().limits(limit(26))?.is_ok(), "it is set");
        task.touch(10)?;
        let counter = own.engine.counter(index)?;
        // 4 stocked pages, 2 single ones below the limit, and 4 by force.
        ensure!(counter.memory.usage == 30 && counter.memory.watermark == 30, "{counter:?}");
        let shares = own.engine.cgroup_cpu(index)?;
        let (mut singles, mut forced) = (0, 0);
        for (_, share) in shares {
            singles += share.singles;
            forced += share.forced;
        }
        ensure!((singles, forced) == (2, 4), "{singles} singles, {forced} forced");
        task.ask("drop")?;
        own.engine.close(&[index])?;
        own.released(index)
    })
}

/// Each hierarchy counts ids by itself, so an event of a removed or new cgroup may be about a v1 cgroup.
#[test]
fn a_cgroup_is_closed_when_it_is_gone() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let (own, mount) = Own::start(Settings::default())?;
        let id = mount.resolve(cgroup.path())?.id;
        own.engine.register(id, None, NO_LIMIT, NO_LIMIT)?;
        let journal = Journal::open(1 << 20, false)?;
        let mut tree = Tree::of(&own.engine, &mount, &journal)?;
        ensure!(!tree.removed(id), "it is there");
        tree.retry()?;
        ensure!(own.engine.index_of(id)?.is_some(), "it was closed");
        drop(cgroup);
        ensure!(tree.removed(id), "it is gone");
        tree.retry()?;
        ensure!(own.engine.index_of(id)?.is_none(), "it was not closed");
        tree.made(id)?;
        ensure!(tree.has_unknown(), "it may be about to come");
        try_poll_until(SOON, "the end of the search for it", || {
            tree.look_again()?;
            Ok((!tree.has_unknown()).then_some(()))
        })?;
        drop(tree);
        journal.end()
    })
}

/// Though the one above is closed before the one below it, and that one had something in swap.
#[test]
fn counters_are_freed_from_below() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let leaf = top.child("leaf")?;
        let (own, mount) = Own::start(Settings { memsw: true, ..Settings::default() })?;
        let (above, below) = (mount.resolve(top.path())?.id, mount.resolve(leaf.path())?.id);
        let index = own.engine.register(above, None, NO_LIMIT, NO_LIMIT)?;
        let index = own.engine.register(below, Some(index), NO_LIMIT, NO_LIMIT)?;
        own.engine.control().swapped(index, 7)?;
        let journal = Journal::open(1 << 20, false)?;
        let mut tree = Tree::of(&own.engine, &mount, &journal)?;
        drop(leaf);
        drop(top);
        ensure!(tree.removed(above) && tree.removed(below), "they are gone");
        tree.retry()?;
        tree.release()?;
        let left = own.engine.counters();
        ensure!(left.indices().next().is_none(), "{left:?}");
        drop(tree);
        journal.end()
    })
}

/// The directory of the one above cannot be read at first.
#[test]
fn who_could_not_be_looked_for_is_found_later() -> Result<()> {
    live(|| {
        if !strace::is_there() {
            skip(&name(), "strace is not installed");
            return Ok(());
        }
        let top = TestCgroup::new()?;
        let leaf = top.child("leaf")?;
        let (own, mount) = Own::start(Settings::default())?;
        let (above, below) = (mount.resolve(top.path())?.id, mount.resolve(leaf.path())?.id);
        own.engine.register(above, None, NO_LIMIT, NO_LIMIT)?;
        let journal = Journal::open(1 << 20, false)?;
        let mut tree = Tree::of(&own.engine, &mount, &journal)?;
        tree.catch_up()?;
        let failing = Failing { call: "getdents64".into(), when: 1, error: "EIO" };
        let strace = Strace::attach(std::process::id(), Some(&failing))?;
        let looked = tree.look_below();
        strace.detach()?;
        ensure!(looked.is_err() && own.engine.index_of(below)?.is_none(), "it was read");
        while tree.has_unseen() {
            tree.look_below()?;
        }
        ensure!(own.engine.index_of(below)?.is_some(), "it was forgotten");
        drop(tree);
        journal.end()
    })
}
