//! Conservation for every cgroup and level, after load of all kinds with continuous drains: not one page too many or
//! too few.

use std::sync::atomic::Ordering::Relaxed;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memstock_tests::audit::beside;
use memstock_tests::live::{live, name};
use memstock_tests::load::{Frozen, Load};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, KernelCgroup, TestCgroup, lru, scaled};

const RUNS: u32 = 10;
/// Duration of the load before each pause.
const RUN: Duration = Duration::from_secs(6);

/// Three levels with tasks at each.
struct Cgroups {
    /// From the top: parents before children.
    v2: Vec<TestCgroup>,
    /// The kernel's own, if it has any: one for all tasks. Tasks that move do so in the v2 hierarchy.
    kernel: Option<KernelCgroup>,
}

impl Cgroups {
    fn new() -> Result<Self> {
        let top = TestCgroup::new()?;
        let kernel = KernelCgroup::beside(&top)?;
        let (a, b) = (top.child("a")?, top.child("b")?);
        let (ax, ay, bz) = (a.child("x")?, a.child("y")?, b.child("z")?);
        Ok(Self { v2: vec![top, a, b, ax, ay, bz], kernel })
    }

    fn load(&self) -> Result<(Load, Vec<String>)> {
        let [top, a, b, ax, ay, bz] = self.v2.as_slice() else {
            anyhow::bail!("six cgroups were made");
        };
        let kernel = self.kernel.as_ref();
        let mut load = Load::default();
        load.wander(&[ax, bz, top], kernel, 0)?;
        load.wander(&[bz, ay, a, ax], kernel, 1)?;
        load.spawn(b, kernel)?;
        let mut left_out = Vec::new();
        for (mode, pages, cgroup) in [
            (Mode::AnonReadWrite, 3000, ax),
            (Mode::Mremap, 2000, ay),
            (Mode::HugePartial, 2048, bz),
            (Mode::Huge, 1024, top),
            (Mode::MadvFree, 1500, a),
            (Mode::Memfd, 1000, b),
            (Mode::SysvShm, 500, ax),
            (Mode::TmpfsWrite, 2500, top),
            (Mode::FileCopy, 800, ay),
            (Mode::MmapFileShared, 700, bz),
            (Mode::ForkStorm, 100, ay),
            (Mode::Pipe, 300, b),
        ] {
            left_out.extend(load.hold(mode, pages, cgroup, kernel)?);
        }
        Ok((load, left_out))
    }
}

#[test]
fn nothing_is_lost_under_load_and_drains() -> Result<()> {
    live(|| {
        let cgroups = Cgroups::new()?;
        let engine = Engine::start(["--cgroup", cgroups.v2[0].path()])?;
        try_poll_until(SOON, "all cgroups to be tracked", || {
            Ok((engine.show()?.cgroups.len() == cgroups.v2.len()).then_some(()))
        })?;
        let (mut load, left_out) = cgroups.load()?;
        let drains = load.drain();
        for number in 1..=scaled(RUNS) {
            let before = drains.load(Relaxed);
            sleep(RUN);
            load.check()?;
            // Until there was a drain, if one takes longer than the run.
            try_poll_until(SOON, "a drain", || Ok((drains.load(Relaxed) > before).then_some(())))?;
            let frozen = Frozen::freeze(&cgroups.v2[0])?;
            balanced(&engine, &cgroups).with_context(|| format!("run {number}"))?;
            drop(frozen);
        }
        load.end()?;
        eprintln!("{} drains", drains.load(Relaxed));
        drop(load);
        empty(&engine, &cgroups)?;
        if !left_out.is_empty() {
            skip(&name(), &left_out.join("; "));
        }
        engine.stop().map(drop)
    })
}

/// Checks conservation with an exact audit. Page tables that were freed before the pause may take a moment to go.
fn balanced(engine: &Engine, cgroups: &Cgroups) -> Result<()> {
    let kernel = cgroups.kernel.as_ref().map(|kernel| beside(&cgroups.v2[0], kernel));
    let audit = engine.audit_at_rest(kernel.as_ref().map_or(&[][..], |args| args))?;
    eprintln!("{} pages owned; {audit}", audit.owned);
    let owned = audit.cgroup(cgroups.v2[0].path())?.owned;
    ensure!(owned > 1000, "the load was not on: {audit:#?}");
    // The same by `show`.
    engine.show()?.check()
}

/// Waits until all pages are gone with the tasks, except some blocks of the disk's file system that making files has
/// brought into the cache.
fn empty(engine: &Engine, cgroups: &Cgroups) -> Result<()> {
    const METADATA: i64 = 64;
    let mut left = String::new();
    try_poll_until(SOON, "the end of all pages", || {
        lru::drain()?;
        let audit = engine.audit::<&str>([])?;
        let owned = audit.cgroup(cgroups.v2[0].path())?.owned;
        left = format!("{owned} pages; {audit}");
        if audit.exact && owned <= METADATA {
            return audit.check().map(Some);
        }
        engine.heal()?;
        Ok(None)
    })
    .with_context(|| left.clone())?;
    eprintln!("left: {left}");
    Ok(())
}
