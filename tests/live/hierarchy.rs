//! Three levels: usage adds up, and a limit on the middle level is hit there.

use anyhow::{Result, ensure};
use memstock_tests::engine::Event;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::{Engine, PAGE, Show, Task, TestCgroup, live};

const CPU: u32 = 1;
const BATCH: u64 = 32;

#[test]
fn a_parents_usage_is_its_childrens() -> Result<()> {
    live(|| {
        let a = TestCgroup::new()?;
        let b = a.child("b")?;
        let (c, d) = (b.child("c")?, b.child("d")?);
        let mut on_c = Task::start(&c, Some(0))?;
        let mut on_d = Task::start(&d, Some(1))?;
        let paths = [a.path(), b.path(), c.path(), d.path()];
        // Not in tree order: parents are found, not assumed.
        let order = [c.path(), a.path(), d.path(), b.path()];
        let engine = Engine::start(order.iter().flat_map(|path| ["--cgroup", path]))?;
        for nr_pages in [1, 31, 1, 700, 13] {
            on_c.touch(nr_pages)?;
            on_d.touch(nr_pages + 5)?;
            let show = engine.show()?;
            show.check()?;
            let [a, b, c, d] = paths.map(|path| show.cgroup(path));
            let (a, b, c, d) = (a?, b?, c?, d?);
            ensure!(b.memory.usage == c.memory.usage + d.memory.usage, "{show:#?}");
            ensure!(a.memory.usage == b.memory.usage && b.memory.usage > 0, "{show:#?}");
            let parents = [a, b, c, d].map(|cgroup| cgroup.parent_id);
            ensure!(parents == [None, Some(a.id), Some(b.id), Some(b.id)], "{show:#?}");
            ensure!((a.faults(), b.faults()) == (0, 0), "tasks are in the leaves only: {show:#?}");
        }
        engine.stop().map(drop)
    })
}

/// The figures of the three levels after `faults` faults of the leaf with a limit of `limit` pages on the middle one.
/// The algorithm determines them exactly: whole batches while they fit, then single pages, then forced ones.
struct Expected {
    usage: u64,
    batches: u64,
    singles: u64,
    forced: u64,
}

impl Expected {
    fn after(faults: u64, limit: u64) -> Self {
        let batches = faults.div_ceil(BATCH).min(limit / BATCH);
        let alone = faults.saturating_sub(batches * BATCH);
        let singles = alone.min(limit - batches * BATCH);
        let forced = alone - singles;
        Self { usage: batches * BATCH + singles + forced, batches, singles, forced }
    }

    fn check(&self, show: &Show, [a, b, c]: [&str; 3], limit: u64) -> Result<()> {
        let Self { usage, batches, singles, forced } = *self;
        let (a, b, c) = (show.cgroup(a)?, show.cgroup(b)?, show.cgroup(c)?);
        for level in [a, b, c] {
            ensure!(level.memory.usage == usage * PAGE, "{usage} pages: {show:#?}");
            ensure!(level.memory.watermark == usage * PAGE, "refused batches leave no peak");
        }
        ensure!(forced > 0 || b.memory.usage <= limit * PAGE, "above its limit: {b:#?}");
        ensure!(b.memory.limit == Some(limit * PAGE), "{b:#?}");
        ensure!(a.memory.limit.is_none() && c.memory.limit.is_none(), "{show:#?}");
        // A single page comes after one refused batch, a forced one after two refusals.
        ensure!(b.memory.failcnt == singles + 2 * forced, "{b:#?}");
        ensure!(a.memory.failcnt == 0 && c.memory.failcnt == 0, "only the middle one: {show:#?}");
        ensure!(c.missed() == batches + singles + forced, "{c:#?}");
        ensure!((c.singles, c.forced) == (singles, forced), "{singles} and {forced}: {c:#?}");
        ensure!([a, b].iter().all(|c| c.singles == 0 && c.forced == 0), "charged: the leaf");
        show.check()
    }
}

/// Counts the events of one kind, which must all name the middle level.
fn named(events: &[Event], kind: &str, [_, b, c]: [&str; 3], nr_pages: u64) -> Result<u64> {
    let mut count = 0;
    for event in events.iter().filter(|event| event.kind == kind) {
        ensure!(event.field("ancestor") == b && event.field("cgroup") == c, "{event:?}");
        ensure!(event.field("resource") == "memory", "{event:?}");
        ensure!(event.field("nr_pages") == nr_pages.to_string(), "{event:?}");
        count += 1;
    }
    Ok(count)
}

#[test]
fn a_limit_in_the_middle_is_met_in_the_middle() -> Result<()> {
    /// Ten batches, and eight pages that fit only one by one.
    const LIMIT: u64 = 10 * BATCH + 8;
    live(|| {
        let a = TestCgroup::new()?;
        let b = a.child("b")?;
        let c = b.child("c")?;
        let paths = [a.path(), b.path(), c.path()];
        let mut task = Task::start(&c, Some(CPU))?;
        let limit = format!("{}={}", b.path(), LIMIT * PAGE);
        let mut args = vec!["--observe", "--limit", &limit];
        args.extend(paths.iter().flat_map(|path| ["--cgroup", path]));
        let engine = Engine::start(args)?;

        let mut faults = 0;
        // Up to the last batch, its first page, its last page, one single, all singles, one forced, more forced.
        for nr_pages in [9 * BATCH, 1, BATCH - 1, 1, 7, 1, 20] {
            faults += task.touch(nr_pages)?;
            Expected::after(faults, LIMIT).check(&engine.show()?, paths, LIMIT)?;
        }
        let Expected { singles, forced, .. } = Expected::after(faults, LIMIT);
        ensure!((singles, forced) == (8, 21), "the plan of this test");

        // Each was sent as an event, or merged into one sent less than 1 ms before.
        let announced = try_poll_until(SOON, "the events", || {
            let loss = engine.show()?.loss;
            ensure!(loss.events_lost == 0, "the ring is far from full: {loss:?}");
            let events = engine.stream()?;
            let near = named(&events, "limit-near", paths, BATCH)?;
            let hit = named(&events, "limit-hit", paths, 1)?;
            let expected = singles + 2 * forced - loss.events_merged;
            Ok((near + hit == expected).then_some((near, hit)))
        });
        let (near, hit) = announced?;
        // The commands above are further apart than that: at least one of each got through.
        ensure!(near > 0 && hit > 0, "{near} and {hit} events");
        let mut events = engine.stream()?;
        events.retain(|event| !event.kind.starts_with("cgroup-") && event.kind != "lost");
        let bytes = (LIMIT * PAGE).to_string();
        let (limits, others): (Vec<_>, Vec<_>) =
            events.iter().partition(|event| event.kind.starts_with("limit-"));
        ensure!(limits.iter().all(|event| event.field("limit") == bytes), "{events:?}");
        let names_it = |event: &&Event| event.field("ancestor") == b.path();
        ensure!(!others.is_empty() && others.iter().all(names_it), "{others:?}");

        // A drain finds nothing, since nothing is stocked at a limit.
        ensure!(engine.drain::<&str>([])?.nr_pages == 0, "stocked at the limit");
        engine.stop().map(drop)
    })
}

/// `--limit SIZE` without a path limits every cgroup; the nearest limit is hit first.
#[test]
fn a_limit_for_all_is_met_in_the_leaf() -> Result<()> {
    live(|| {
        let a = TestCgroup::new()?;
        let b = a.child("b")?;
        let mut task = Task::start(&b, Some(CPU))?;
        let engine = Engine::start([
            "--observe",
            "--cgroup",
            a.path(),
            "--cgroup",
            b.path(),
            "--limit",
            "256K",
        ])?;
        task.touch(65)?;
        let show = engine.show()?;
        let (a, b) = (show.cgroup(a.path())?, show.cgroup(b.path())?);
        ensure!([a, b].iter().all(|c| c.memory.limit == Some(256 << 10)), "{show:#?}");
        // 64 pages are two batches; the 65th page is refused as a batch and alone, then forced.
        ensure!((b.memory.failcnt, b.forced, a.memory.failcnt) == (2, 1, 0), "{show:#?}");
        ensure!(b.memory.usage == 65 * PAGE, "{show:#?}");
        engine.stop().map(drop)
    })
}
