//! Who is spared when a limit kills, and who is killed instead: adjusted tasks, and a group with the daemon among it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use memstock_tests::growing::{FuseServer, Grower};
use memstock_tests::hog::{HogBuilder, size};
use memstock_tests::live::name;
use memstock_tests::skip::skip;
use memstock_tests::workload::grow::Order;
use memstock_tests::{Engine, TestCgroup, live};
use rustix::process::{Pid, Signal, kill_process};

/// The limit, in pages.
const LIMIT: u64 = 8192;

/// A point of `oom_score_adj` is a thousandth of the limit that is set, whatever the other one is.
#[test]
fn a_point_of_adjustment_weighs_a_thousandth_of_the_limit() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::limited(LIMIT, &[&cgroup])?;
        let order = Order { first: 256, adj: Some(1), ..Order::default() };
        let mut small = Grower::start(&cgroup, &order)?;
        let order = Order { more: 2 * LIMIT as u32, ..Order::default() };
        let mut hog = Grower::start(&cgroup, &order)?;
        ensure!(!hog.grow(), "it got all of it");
        hog.was_killed()?;
        engine.only_killed(&[hog.id()])?;
        ensure!(small.lives(), "the small one was killed");
        engine.stop().map(drop)
    })
}

/// With `--oom-group`, those in the daemon's own cgroup are spared, and the rest of the group is killed.
#[test]
fn the_rest_of_a_group_goes_without_the_daemon() -> Result<()> {
    live(|| {
        let group = TestCgroup::new()?;
        let below = group.child("below")?;
        let limit = size(LIMIT);
        let engine = Engine::start(["--oom-group", "--cgroup", group.path(), "--limit", &limit])?;
        fs::write(group.dir().join("cgroup.procs"), engine.daemon().to_string())?;
        let mut beside = HogBuilder::pages(10).start(&group)?;
        beside.has_all()?;
        let mut small = HogBuilder::pages(10).start(&below)?;
        small.has_all()?;
        let mut hog = HogBuilder::pages(2 * LIMIT).start(&below)?;
        hog.was_killed()?;
        small.was_killed()?;
        engine.only_killed(&[hog.id()])?;
        ensure!(beside.lives(), "one in the daemon's cgroup was killed");
        engine.stop().map(drop)
    })
}

/// Somebody else has killed a task, which cannot end: its memory is enough.
#[test]
fn nobody_is_killed_while_another_is_dying() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let Some(server) = FuseServer::start(None, true)? else {
            skip(&name(), "there is no /dev/fuse");
            return Ok(());
        };
        let engine = Engine::limited(LIMIT, &[&cgroup])?;
        let order = Order {
            first: 3072,
            mounts_of: Some(server.id()),
            waits_for: Some(server.file()),
            ..Order::default()
        };
        let mut dying = Grower::start(&cgroup, &order)?;
        let pid = Pid::from_raw(dying.id().cast_signed()).context("a process")?;
        kill_process(pid, Signal::KILL)?;
        let order = Order { first: 4096, more: 2048, ..Order::default() };
        let mut other = Grower::start(&cgroup, &order)?;
        ensure!(other.grow() && other.lives(), "it was killed: {:?}", engine.events()?);
        ensure!(engine.events_of("oom-kill")?.is_empty(), "somebody was killed");
        ensure!(dying.lives(), "it could end: that is another case");
        drop(server);
        drop(dying);
        engine.stop().map(drop)
    })
}
