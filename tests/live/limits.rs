//! Limits hold: only the tasks that take too much are killed, and the usage never gets further above it than the stocks
//! of all CPUs could hold.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use memstock::engine::pins::Pins;
use memstock_common::Counter;
use memstock_tests::engine::Event;
use memstock_tests::hog::{Hog, HogBuilder, size};
use memstock_tests::holder::{Holder, Unavailable};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, PAGE, Task, TestCgroup, leftovers, live, scaled};

/// The limit in most tests, in pages.
const LIMIT: u64 = 4096;

/// The highest usage so far, in pages above the limit, and how often the limit was hit.
fn overshoot(engine: &Engine, cgroup: &TestCgroup) -> Result<(u64, u64)> {
    let show = engine.show()?;
    let memory = &show.cgroup(cgroup.path())?.memory;
    let limit = memory.limit.context("it has a limit")?;
    Ok((memory.watermark.saturating_sub(limit) / PAGE, memory.failcnt))
}

fn has_room(engine: &Engine, cgroup: &TestCgroup) -> Result<bool> {
    let show = engine.show()?;
    let memory = &show.cgroup(cgroup.path())?.memory;
    Ok(memory.limit.is_none_or(|limit| memory.usage <= limit))
}

fn pins() -> Pins {
    Pins::on(Path::new(leftovers::PINS))
}

fn kills(engine: &Engine) -> Result<Vec<Event>> {
    engine.events_of("oom-kill")
}

/// Well-behaved tasks, which must survive and still get memory.
struct Innocents(Vec<Task>);

impl Innocents {
    fn start(cgroups: &[&TestCgroup]) -> Result<Self> {
        let tasks = cgroups.iter().map(|cgroup| Task::start(cgroup, None));
        let mut innocents = Self(tasks.collect::<Result<_>>()?);
        innocents.touch(500)?;
        Ok(innocents)
    }

    fn touch(&mut self, nr_pages: u64) -> Result<()> {
        self.0.iter_mut().try_for_each(|task| task.touch(nr_pages).map(drop))
    }
}

/// Runs with one greedy task.
const RUNS: u32 = 200;

#[test]
fn only_the_greedy_task_is_killed() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let (greedy, sibling) = (top.child("greedy")?, top.child("sibling")?);
        let limit = format!("{}={}", greedy.path(), size(LIMIT));
        let args = ["--cgroup", top.path(), "--cgroup", greedy.path(), "--limit", &limit];
        let engine = Engine::start(args)?;
        let mut innocents = Innocents::start(&[&sibling, &top])?;
        let mut hogs = Vec::new();
        for run in 0..scaled(RUNS) {
            let builder = HogBuilder::pages(2 * LIMIT).cpu(run % 2);
            let builder = if run % 4 < 2 { builder } else { builder.catching_term() };
            let mut hog = builder.start(&greedy)?;
            hogs.push(hog.id());
            hog.was_killed().with_context(|| format!("run {run}"))?;
            innocents.touch(1)?;
        }
        let kills = engine.only_killed(&hogs)?;
        ensure!(kills.iter().all(|kill| kill.field("ancestor") == greedy.path()), "{kills:?}");
        let (over, failcnt) = overshoot(&engine, &greedy)?;
        eprintln!("{over} pages above the limit at the most, met {failcnt} times");
        ensure!(over <= engine.overshoot(LIMIT)? && failcnt > 0, "{over} pages above the limit");
        // The next one is announced at once, however soon it comes.
        let id = engine.show()?.cgroup(greedy.path())?.id;
        let maps = memstock::engine::Engine::open(&pins())?;
        try_poll_until(SOON, "the limit to be armed again", || {
            let (_, counter) = maps.find(id)?.context("a counter")?;
            Ok((counter.hit_at == 0).then_some(()))
        })?;
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

#[test]
fn two_greedy_tasks_below_a_limit_of_their_grandparent() -> Result<()> {
    /// So much that each of the two has more than an innocent task, however they share it.
    const BOTH: u64 = 2 * LIMIT;
    live(|| {
        let top = TestCgroup::new()?;
        let (parent, other) = (top.child("parent")?, top.child("other")?);
        let (a, b) = (parent.child("a")?, parent.child("b")?);
        let limit = format!("{}={}", top.path(), size(BOTH));
        let outside = TestCgroup::new()?;
        let args = ["--cgroup", top.path(), "--cgroup", outside.path(), "--limit", &limit];
        let engine = Engine::start(args)?;
        let mut innocents = Innocents::start(&[&other, &outside])?;
        let mut worst = 0;
        for run in 0..10 {
            let before = kills(&engine)?.len();
            let start = |cgroup, cpu| HogBuilder::pages(2 * BOTH).cpu(cpu).start(cgroup);
            let mut hogs = [start(&a, 0)?, start(&b, 1)?];
            // Each wants more than the limit: the first kill makes room for the other, but not enough.
            hogs.iter_mut().try_for_each(Hog::was_killed).with_context(|| format!("run {run}"))?;
            let kills = try_poll_until(SOON, "the events of both kills", || {
                let kills = kills(&engine)?;
                Ok((kills.len() >= before + 2).then_some(kills))
            })?;
            let mut victims: Vec<_> =
                kills[before..].iter().map(|k| k.field("victim").to_owned()).collect();
            let mut ids: Vec<_> = hogs.iter().map(|hog| hog.id().to_string()).collect();
            victims.sort();
            ids.sort();
            ensure!(victims == ids, "run {run}: killed {victims:?}, but the hogs were {ids:?}");
            ensure!(kills.iter().all(|kill| kill.field("ancestor") == top.path()), "{kills:?}");
            innocents.touch(1)?;
            worst = overshoot(&engine, &top)?.0;
        }
        eprintln!("{worst} pages above the limit at the most");
        ensure!(worst <= engine.overshoot(LIMIT)?, "{worst} pages above the limit");
        engine.stop().map(drop)
    })
}

/// A usage that no host can have is a corrupt counter. Once it is possible again the limit is seen to, though nobody charges
/// any more.
#[test]
fn nobody_is_killed_for_a_corrupt_counter() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::limited(LIMIT, &[&cgroup])?;
        let mut task = Task::start(&cgroup, None)?;
        task.touch(LIMIT / 2)?;
        let id = engine.show()?.cgroup(cgroup.path())?.id;
        let index = memstock::engine::Engine::open(&pins())?.index_of(id)?.context("a counter")?;
        let map = Map::Array(MapData::from_pin(pins().map("COUNTERS"))?);
        let mut counters: Array<_, Counter<u64>> = map.try_into()?;
        let sound = counters.get(&index, 0)?;
        let mut corrupt = |more| {
            let mut counter = sound;
            counter.memory.usage += more;
            counters.set(index, counter, 0)
        };
        corrupt(1 << 40)?;
        try_poll_until(SOON, "word of it", || {
            Ok(engine.stderr()?.contains("its limit is not enforced").then_some(()))
        })?;
        ensure!(kills(&engine)?.is_empty(), "{:?}", kills(&engine)?);
        corrupt(LIMIT)?;
        engine.only_killed(&[task.id()])?;
        engine.stop().map(drop)
    })
}

/// Of many small tasks, only as many as necessary are killed.
#[test]
fn a_bomb_of_small_tasks_is_thinned_out() -> Result<()> {
    const TASKS: u64 = 40;
    const EACH: u64 = 400;
    live(|| {
        let top = TestCgroup::new()?;
        let (bomb, sibling) = (top.child("bomb")?, top.child("sibling")?);
        let limit = format!("{}={}", bomb.path(), size(2 * LIMIT));
        let args = ["--cgroup", top.path(), "--cgroup", bomb.path(), "--limit", &limit];
        let engine = Engine::start(args)?;
        let mut innocents = Innocents::start(&[&sibling, &top])?;
        let mut hogs =
            (0..TASKS).map(|_| HogBuilder::pages(EACH).start(&bomb)).collect::<Result<Vec<_>>>()?;
        let ids: Vec<_> = hogs.iter().map(|hog| hog.id().to_string()).collect();
        // Each gets all it wants, unless it is killed before; some are afterwards.
        let _ = hogs.iter_mut().map(Hog::has_all).filter(Result::is_ok).count();
        // The last of them may be about to die, and a kill is recorded after it.
        let survivors = try_poll_until(SOON, "as many kills as there are dead", || {
            let survivors = hogs.iter_mut().map(Hog::lives).filter(|&lives| lives).count() as u64;
            let kills = kills(&engine)?;
            let victims: Vec<_> = kills.iter().map(|kill| kill.field("victim")).collect();
            ensure!(victims.iter().all(|victim| ids.iter().any(|id| id == victim)), "{victims:?}");
            let at_rest = survivors + victims.len() as u64 == TASKS && has_room(&engine, &bomb)?;
            Ok(at_rest.then_some(survivors))
        })?;
        let (over, _) = overshoot(&engine, &bomb)?;
        eprintln!("{survivors} of {TASKS} go on, {over} pages above the limit at the most");
        ensure!(survivors > 0 && survivors * EACH <= 2 * LIMIT, "{survivors} survivors");
        innocents.touch(1)?;
        ensure!(over <= engine.overshoot(LIMIT)?, "{over} pages above the limit");
        engine.stop().map(drop)
    })
}

/// The daemon does not kill for a huge page that does not fit, but for single pages that do not.
#[test]
fn a_huge_page_that_does_not_fit_kills_nobody() -> Result<()> {
    const HUGE: u64 = 512;
    live(|| {
        let top = TestCgroup::new()?;
        let args = ["--cgroup", top.path(), "--limit", &size(6 * HUGE)];
        let engine = Engine::start(args)?;
        // Its own pages and page tables are charged as well, so the sixth huge page does not fit.
        let mut holder = Holder::of(Mode::Huge).pages(6 * HUGE as u32).cgroup(&top).start()?;
        match holder.get() {
            Err(error) if error.is::<Unavailable>() => {
                skip("a_huge_page_that_does_not_fit_kills_nobody", &error.to_string());
                return engine.stop().map(drop);
            }
            got => got?,
        };
        let (over, failcnt) = overshoot(&engine, &top)?;
        ensure!(over > 0 && over < HUGE && failcnt > 0, "{over} pages above the limit");
        // The huge page counts as one small page, so there is room for almost as many as it has: here for a small
        // process, with some hundred pages of its own.
        let mut small = HogBuilder::pages(HUGE / 16).start(&top)?;
        small.has_all()?;
        ensure!(kills(&engine)?.is_empty(), "somebody was killed for a huge page");
        let mut hog = HogBuilder::pages(HUGE).start(&top)?;
        let kills = try_poll_until(SOON, "the event of a kill", || {
            let kills = kills(&engine)?;
            Ok((!kills.is_empty()).then_some(kills))
        })?;
        ensure!(kills[0].field("victim") == holder.id().to_string(), "{kills:?}");
        hog.has_all()?;
        let (over, _) = overshoot(&engine, &top)?;
        ensure!(over <= HUGE + engine.overshoot(HUGE)?, "{over} pages above the limit");
        ensure!(small.lives() && has_room(&engine, &top)?, "more than one was killed");
        engine.stop().map(drop)
    })
}

/// With `--oom-group`, all tasks of the cgroup at its limit and of its children are killed.
#[test]
fn a_group_goes_together() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let (group, sibling) = (top.child("group")?, top.child("sibling")?);
        let child = group.child("child")?;
        let limit = format!("{}={}", group.path(), size(LIMIT));
        let args =
            ["--oom-group", "--cgroup", top.path(), "--cgroup", group.path(), "--limit", &limit];
        let engine = Engine::start(args)?;
        let mut innocents = Innocents::start(&[&sibling, &top])?;
        let mut small = HogBuilder::pages(10).start(&child)?;
        small.has_all()?;
        let mut hog = HogBuilder::pages(2 * LIMIT).start(&group)?;
        hog.was_killed()?;
        small.was_killed()?;
        innocents.touch(1)?;
        engine.stop().map(drop)
    })
}

/// With `--observe`, no task is stopped or killed, and each report names the full ancestor.
#[test]
fn an_observed_limit_kills_nobody() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let (parent, other) = (top.child("parent")?, top.child("other")?);
        let (a, b) = (parent.child("a")?, parent.child("b")?);
        let limits = [(&parent, LIMIT), (&other, LIMIT)]
            .map(|(cgroup, limit)| format!("{}={}", cgroup.path(), size(limit)));
        let mut args = vec!["--observe", "--cgroup", top.path()];
        args.extend(["--cgroup", parent.path(), "--cgroup", other.path()]);
        args.extend(limits.iter().flat_map(|limit| ["--limit", limit.as_str()]));
        let engine = Engine::start(args)?;
        let begun = Instant::now();
        let mut hogs = [
            HogBuilder::pages(2 * LIMIT).cpu(0).start(&a)?,
            HogBuilder::pages(2 * LIMIT).cpu(1).start(&b)?,
            HogBuilder::pages(LIMIT + 100).catching_term().start(&other)?,
        ];
        hogs.iter_mut().try_for_each(Hog::has_all)?;
        // A throttle takes 0.9 ms for each page. Where there is none, a slow machine may take as long.
        let most = Duration::from_micros(600 * LIMIT);
        let may_be = begun.elapsed() < most || !engine.throttles()?;
        ensure!(may_be, "they were throttled: {:?}", begun.elapsed());
        ensure!(kills(&engine)?.is_empty(), "somebody was killed");
        let ids: Vec<_> = hogs.iter().map(|hog| hog.id().to_string()).collect();
        let reports = try_poll_until(SOON, "a report of each limit", || {
            let events = engine.events()?.into_iter().filter(|event| event.kind == "would-enforce");
            let reports: Vec<_> = events.collect();
            let of = |path: &str| reports.iter().any(|report| report.field("ancestor") == path);
            Ok((of(parent.path()) && of(other.path())).then_some(reports))
        })?;
        for report in &reports {
            let (victims, below) = match report.field("ancestor") {
                path if path == parent.path() => (&ids[..2], [a.path(), b.path()].to_vec()),
                path if path == other.path() => (&ids[2..], vec![other.path()]),
                path => anyhow::bail!("{path} is at no limit: {report:?}"),
            };
            // As long as `needed` is not above the limit, draining is enough.
            let needed: u64 = report.field("needed_pages").parse()?;
            let is_right = match needed > LIMIT {
                true => victims.iter().any(|id| id == report.field("victim")),
                false => report.field("victim").is_empty(),
            };
            ensure!(is_right, "{report:?}");
            ensure!(below.contains(&report.field("cgroup")), "{report:?}");
            let over: u64 = report.field("over_pages").parse()?;
            let stocked = report.field("stocked").split(',').filter_map(|of| of.split_once(':'));
            let stocked: u64 = stocked.filter_map(|(_, pages)| pages.parse::<u64>().ok()).sum();
            let is_enough = (stocked >= over).to_string();
            ensure!(over > 0 && report.field("drain_is_enough") == is_enough, "{report:?}");
        }
        let (over, failcnt) = overshoot(&engine, &parent)?;
        ensure!(over >= 3 * LIMIT && failcnt > 0, "{over} pages above the limit, all let through");
        // The summary at the end gives a verdict.
        let said = engine.stop()?.stdout;
        for cgroup in [&parent, &other] {
            ensure!(said.contains(&format!("\n{}: fits at ", cgroup.path())), "{said}");
            ensure!(said.contains(": oom (") && said.contains(", would have killed "), "{said}");
        }
        Ok(())
    })
}
