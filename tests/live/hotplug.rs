//! CPU 1 goes offline and online under load, with and without a daemon: nothing is lost, and an offline CPU has no
//! pages.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use memstock::engine;
use memstock::engine::pins::Pins;
use memstock::host;
use memstock_common::StockWord;
use memstock_tests::hotplug::{CpuOffline, can_go_offline};
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::{Engine, Task, TestCgroup, scaled};
use rustix::process::Signal;

/// The CPU to take offline.
const CPU: u32 = 1;
/// How long an offline CPU may have pages, from the return of the write to its `online` file.
const DRAINED: Duration = Duration::from_millis(100);

/// A busy task on each CPU, and the maps of the engine that charges them.
struct Busy {
    maps: engine::Engine,
    other: Task,
    ours: Task,
}

impl Busy {
    fn start(cgroup: &TestCgroup) -> Result<Self> {
        let maps = engine::Engine::open(&Pins::on(host::BPFFS.as_ref()))?;
        let (mut other, mut ours) =
            (Task::start(cgroup, Some(0))?, Task::start(cgroup, Some(CPU))?);
        other.churn()?;
        ours.churn()?;
        Ok(Self { maps, other, ours })
    }

    /// Pages stocked or pending, and pages in uncharge batches, on the CPU; and pages charged there.
    fn stock(&self) -> Result<(u32, u32, u64)> {
        let (mut stocked, mut batched, mut charged) = (0, 0, 0);
        for slot in 0..self.maps.info().slots {
            for (_, stock) in self.maps.stocks(slot)?.iter().filter(|&&(cpu, _)| cpu == CPU) {
                stocked += StockWord(stock.word).charged();
                batched += StockWord(stock.uncharge_batch).charged();
                charged += stock.from_stock + stock.missed;
            }
        }
        Ok((stocked, batched, charged))
    }

    /// Takes the CPU offline under load. Also returns how long its stock still had pages.
    fn take(&self) -> Result<(CpuOffline, Duration)> {
        // The task lost its affinity when the CPU went offline the last time.
        self.ours.keep_on(CPU)?;
        let (_, _, charged) = self.stock()?;
        try_poll_until(SOON, "load on the CPU that goes", || {
            Ok((self.stock()?.2 > charged + 100).then_some(()))
        })?;
        let offline = CpuOffline::take(CPU)?;
        let gone = Instant::now();
        try_poll_until(DRAINED, "the end of the dead CPU's stock", || {
            let (stocked, batched, _) = self.stock()?;
            Ok((stocked + batched == 0).then_some(()))
        })?;
        Ok((offline, gone.elapsed()))
    }

    fn pause(&mut self) -> Result<()> {
        ensure!(self.other.pause()? > 0 && self.ours.pause()? > 0, "the load was not on");
        Ok(())
    }
}

#[test]
fn two_hundred_cycles_lose_no_page() -> Result<()> {
    live(|| {
        if !can_go_offline(CPU) {
            skip(&name(), "CPU 1 cannot be taken offline here");
            return Ok(());
        }
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let mut busy = Busy::start(&cgroup)?;
        let told = |kind: &str, times: usize| {
            poll_until(SOON, &format!("{times} events {kind}"), || {
                let events = engine.events().unwrap_or_default();
                let of_cpu = |field| field == CPU.to_string();
                let count = events.iter().filter(|e| e.kind == kind && of_cpu(e.field("cpu")));
                (count.count() == times).then_some(())
            })
        };
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        let cycles = scaled(200) as usize;
        for cycle in 1..=cycles {
            let (offline, took) = busy.take()?;
            longest = longest.max(took);
            told("cpu-dead", cycle)?;
            offline.back()?;
            told("cpu-online", cycle)?;
        }
        busy.pause()?;
        engine.audit_at_rest::<&str>(&[])?;
        engine.show()?.check()?;
        // Each cycle has its drain event, and there was something to drain.
        let events = engine.events()?;
        let drains: Vec<u64> = events
            .iter()
            .filter(|event| event.kind == "drain" && event.field("why") == "cpu-dead")
            .map(|event| event.field("nr_pages").parse())
            .collect::<Result<_, _>>()?;
        let pages: u64 = drains.iter().sum();
        ensure!(drains.len() == cycles && pages > 0, "{pages} pages: {drains:?}");
        eprintln!(
            "{cycles} cycles in {:?}, {pages} pages drained, seen empty after {longest:?} at the most",
            start.elapsed()
        );
        engine.stop().map(drop)
    })
}

/// By the kernel half alone.
#[test]
fn cpus_go_and_come_without_a_daemon() -> Result<()> {
    const CYCLES: u32 = 25;
    live(|| {
        if !can_go_offline(CPU) {
            skip(&name(), "CPU 1 cannot be taken offline here");
            return Ok(());
        }
        let cgroup = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
        engine.process().signal(Signal::KILL)?;
        engine.process().wait(SOON)?;
        let mut busy = Busy::start(&cgroup)?;
        let drains = || Ok::<_, anyhow::Error>(engine.show()?.cpu(CPU)?.drains);
        let before = drains()?;
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        for _ in 0..CYCLES {
            let (offline, took) = busy.take()?;
            longest = longest.max(took);
            offline.back()?;
        }
        busy.pause()?;
        let drained = drains()? - before;
        ensure!(drained > 0, "there was never anything to drain");
        engine.audit_at_rest::<&str>(&[])?;
        eprintln!(
            "{CYCLES} cycles in {:?}, {drained} drains, seen empty after {longest:?} at the most",
            start.elapsed()
        );
        let stop = memstock(["stop"])?.finish(SOON)?;
        ensure!(stop.code() == 0, "{stop:?}");
        Ok(())
    })
}
