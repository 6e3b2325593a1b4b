//! memstock's kernel memory: a little for each possible CPU and each tracked cgroup, and next to nothing for
//! inspecting a host.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aya::maps::{MapData, MapType};
use memstock::engine::attach::probing;
use memstock::engine::load::{Settings, object};
use memstock::engine::pins::Pins;
use memstock::host;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::{Engine, TestCgroup, live};

/// The pinned maps of the running engine.
fn maps() -> Result<Vec<MapData>> {
    let maps = Pins::on(host::BPFFS.as_ref()).map("STOCK");
    let maps = maps.parent().context("a pin without a directory")?;
    let mut found = Vec::new();
    for entry in fs::read_dir(maps)? {
        found.extend(MapData::from_pin(entry?.path()));
    }
    Ok(found)
}

/// Bytes per CPU in all per-CPU maps.
fn bytes_a_cpu() -> Result<u64> {
    let mut bytes = 0;
    for map in maps()? {
        let info = map.info()?;
        if matches!(info.map_type()?, MapType::PerCpuArray | MapType::PerCpuHash) {
            bytes += u64::from(info.value_size().next_multiple_of(8) * info.max_entries());
        }
    }
    Ok(bytes)
}

/// Kernel memory of this process's BPF objects, in bytes (`bpf_map_show_fdinfo`).
fn memlock() -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // One entry is the descriptor of this directory, already closed.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        bytes += line.map_or(Ok(0), |text| text.trim().parse::<u64>())?;
    }
    Ok(bytes)
}

#[test]
fn a_cpu_costs_at_most_64_kib() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut last = Instant::now();
        let mut took = || std::mem::replace(&mut last, Instant::now()).elapsed();
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let started = took();
        engine.show()?;
        let sampled = took();
        engine.drain::<&str>([])?;
        let drained = took();
        let default = bytes_a_cpu()?;
        let (before, maps) = (memlock()?, maps()?);
        let taken = (memlock()? - before) >> 10;
        drop(maps);
        eprintln!(
            "{} possible CPUs: {default} bytes each, all maps {taken} KiB; start {started:.1?}, sample {sampled:.1?}, \
             drain {drained:.1?}",
            aya::util::nr_cpus().map_err(|(_, error)| error)?,
        );
        ensure!((1..=64 << 10).contains(&default), "{default} bytes a CPU");
        engine.stop()?;
        let engine = Engine::start(["--cgroup", cgroup.path(), "--max-cgroups", "16384"])?;
        let most = bytes_a_cpu()?;
        ensure!(most > 10 * default, "{most} bytes a CPU for 16 times the cgroups, not {default}");
        engine.stop().map(drop)
    })
}

#[test]
fn to_try_the_programs_takes_less_than_2_mib() -> Result<()> {
    live(|| {
        let before = memlock()?;
        // Both at once, as in `memstock doctor`.
        let tried = (probing()?, object(Settings::default(), true)?);
        let taken = memlock()? - before;
        drop(tried);
        eprintln!("{} KiB to try the programs", taken >> 10);
        ensure!((1..2 << 20).contains(&taken), "{taken} bytes");
        Ok(())
    })
}

/// A cgroup for which there is no counter is charged to the one above it, and that is reported.
#[test]
fn one_more_than_fit_is_left_out() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let first = top.child("first")?;
        let engine = Engine::start(["--cgroup", top.path(), "--max-cgroups", "2"])?;
        let is_tracked = || Ok(engine.show()?.cgroup(first.path()).is_ok().then_some(()));
        try_poll_until(SOON, "what is below to be tracked", is_tracked)?;
        let second = top.child("second")?;
        ensure!(engine.show()?.cgroup(second.path()).is_err());
        // There is room again, for the one that is waiting.
        drop(first);
        try_poll_until(SOON, "the second to be tracked", || {
            Ok(engine.show()?.cgroup(second.path()).is_ok().then_some(()))
        })?;
        let said = engine.stop()?.stderr;
        ensure!(said.contains("--max-cgroups"), "{said}");
        Ok(())
    })
}
