//! `memstock run --metrics`: what it answers, to whom, and how it reports that its figures are unreliable.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use memstock::engine::pins::Pins;
use memstock_common::Counter;
use memstock_tests::events::Follower;
use memstock_tests::exposition::Exposition;
use memstock_tests::http::{ask, get};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::show::Cgroup;
use memstock_tests::{Engine, PAGE, Show, Task, TestCgroup, leftovers, live};
use rustix::process::Signal;

/// Events that the ring buffer holds: see `events.rs`.
const RING_EVENTS: u32 = 256 * 1024 / 64;

/// Starts an engine that serves metrics on a port that the kernel chooses.
fn serving(cgroup: &TestCgroup, more: &[&str]) -> Result<(Engine, SocketAddr)> {
    let args = ["--cgroup", cgroup.path(), "--metrics", "0"];
    let engine = Engine::start(args.iter().chain(more))?;
    let at = engine.metrics()?;
    ensure!(at.ip().is_loopback(), "it serves the network: {at}");
    Ok((engine, at))
}

#[test]
fn bad_addresses_and_a_port_in_use() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let taken = [taken.local_addr()?.to_string(), taken.local_addr()?.port().to_string()];
        let bad = ["", ":", "65536", "-1", "localhost:9464", "::1", "1.2.3:4", "9464x"];
        let usage = bad.iter().map(|bad| (*bad, 2));
        // An address that no host has (RFC 5737).
        let cannot = taken.iter().map(String::as_str).chain(["192.0.2.1:9464"]);
        for (address, code) in usage.chain(cannot.map(|address| (address, 121))) {
            let flag = format!("--metrics={address}");
            let finished = memstock(["run", "--cgroup", cgroup.path(), &flag])?.finish(SOON)?;
            let line = &finished.stderr;
            ensure!(finished.code() == code && finished.stdout.is_empty(), "{flag}: {finished:?}");
            ensure!(line.starts_with("memstock: ") && line.lines().count() == 1, "{finished:?}");
            ensure!(line.contains("--metrics") && line.contains(address), "{finished:?}");
            let left = leftovers::pins_and_lock();
            ensure!(left.is_empty(), "{flag} left {left:?}");
        }
        Ok(())
    })
}

#[test]
fn it_speaks_http() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let (engine, at) = serving(&cgroup, &[])?;
        ensure!(get(at, "/healthz")? == "alive\n");
        ensure!(engine.degraded(at)?.is_empty());
        for headers in [&[][..], &["Accept: application/openmetrics-text"]] {
            let plain = ask(at, "GET", "/metrics?x=y", headers)?;
            let kind = plain.header("content-type");
            ensure!(kind.starts_with("text/plain; version=0.0.4"), "{plain:?}");
        }
        let head = ask(at, "HEAD", "/metrics", &[])?;
        ensure!(head.status == 200 && head.body.is_empty(), "{head:?}");
        for (method, path, status) in
            [("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 405)]
        {
            let answer = ask(at, method, path, &[])?;
            ensure!(answer.status == status, "{method} {path}: {answer:?}");
            ensure!((status == 405) == (answer.header("allow") == "GET, HEAD"), "{answer:?}");
        }
        // Neither garbage nor a flood of headers does any harm.
        for nonsense in [
            b"\x16\x03\x01\0\xff\r\n\r\n".to_vec(),
            [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 1 << 20]].concat(),
        ] {
            let mut stream = TcpStream::connect(at)?;
            stream.set_read_timeout(Some(SOON))?;
            // The server may close the connection before the end.
            let _ = stream.write_all(&nonsense);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
        ensure!(get(at, "/healthz")? == "alive\n");
        engine.stop().map(drop)
    })
}

#[test]
fn silent_clients_hinder_nobody() -> Result<()> {
    /// More clients than are served at once.
    const SILENT: usize = 20;
    live(|| {
        let cgroup = TestCgroup::new()?;
        let (engine, at) = serving(&cgroup, &[])?;
        let mut follower = Follower::start()?;
        let connect = |_| TcpStream::connect(at).context("a silent client");
        let silent: Vec<_> = (0..SILENT).map(connect).collect::<Result<_>>()?;
        let child = cgroup.child("meanwhile")?;
        follower.wait_for("a cgroup that is followed meanwhile", |all| {
            all.iter().any(|record| record.path("cgroup") == child.path())
        })?;
        // This request is behind them in the queue.
        ensure!(get(at, "/healthz")? == "alive\n");
        // And beside many more: some have sent half a request, and some do not read the answer.
        let mut slow: Vec<_> = (0..8 * SILENT).map(connect).collect::<Result<_>>()?;
        for (n, client) in slow.iter_mut().enumerate() {
            let request = ["", "GET /metrics HTTP/1.1\r\nHost", "GET /metrics HTTP/1.1\r\n\r\n"];
            // The server may have closed the first of them.
            let _ = client.write_all(request[n % request.len()].as_bytes());
            if n % SILENT == 0 {
                let start = Instant::now();
                ensure!(get(at, "/metrics")?.contains("memstock_"));
                let took = start.elapsed();
                ensure!(took < Duration::from_secs(1), "answered after {took:?}");
            }
        }
        let long = format!("X: {}", "x".repeat(1 << 16));
        let refused = ask(at, "GET", "/healthz", &[long.as_str()]);
        ensure!(refused.is_err() || refused.is_ok_and(|answer| answer.status == 431));
        engine.stop()?;
        drop((silent, slow));
        Ok(())
    })
}

/// Every figure of a cgroup, by the end of its metric's name.
fn figures(cgroup: &Cgroup) -> Vec<(String, u64)> {
    let counters = [("memory", &cgroup.memory.counter), ("memsw", &cgroup.memsw)];
    let counted = counters.into_iter().flat_map(|(resource, counter)| {
        [
            (format!("{resource}_usage_bytes"), counter.usage),
            (format!("{resource}_watermark_bytes"), counter.watermark),
            (format!("{resource}_failcnt_total"), counter.failcnt),
        ]
    });
    let own = [
        ("stocked_bytes", cgroup.stocked),
        ("charged_bytes_total", cgroup.charged_pages * PAGE),
        ("from_stock_bytes_total", cgroup.from_stock_pages * PAGE),
        ("memory_file_bytes", cgroup.memory.file),
        ("memory_needed_bytes", cgroup.memory.needed),
        ("memory_needed_watermark_bytes", cgroup.memory.needed_watermark),
        ("memory_file_over_limit_bytes", cgroup.memory.file_over_limit),
        ("singles_total", cgroup.singles),
        ("forced_total", cgroup.forced),
    ];
    // Where the kernel has tracepoints for them.
    let faults = cgroup.faults.map(|faults| ("faults_total", faults));
    let own = own.into_iter().chain(faults);
    counted.chain(own.map(|(name, value)| (name.to_owned(), value))).collect()
}

fn same(found: &Exposition, series: &str, value: u64) -> Result<()> {
    ensure!(found.value(series)? == value as f64, "{series} is not {value}: {}", found.text);
    Ok(())
}

/// A sample and an exposition between which nothing changed.
fn at_rest(engine: &Engine, at: SocketAddr) -> Result<(Show, Exposition)> {
    let figures = |show: &Show| format!("{:?}{:?}", show.cgroups, show.cpus);
    try_poll_until(SOON, "a moment without motion", || {
        let before = engine.show()?;
        let found = Exposition::get(at)?;
        Ok((figures(&before) == figures(&engine.show()?)).then_some((before, found)))
    })
}

#[test]
fn figures_are_those_of_show() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let low = top.child("a \"b\"\\x2d")?;
        let limits = [format!("{}={}", top.path(), 600 * PAGE), format!("{}=1G", low.path())];
        let (engine, at) = serving(
            &top,
            &[
                "--memsw",
                "--observe",
                "--cgroup",
                low.path(),
                "--limit",
                &limits[0],
                "--limit",
                &limits[1],
                "--slots",
                "2",
            ],
        )?;
        let mut tasks = [Task::start(&top, Some(0))?, Task::start(&low, None)?];
        tasks[0].touch(200)?;
        tasks[1].touch(100)?;
        let (show, found) = at_rest(&engine, at)?;
        let label = |path: &str| path.replace('\\', "\\\\").replace('"', "\\\"");
        for cgroup in &show.cgroups {
            let path = label(cgroup.name());
            for (name, value) in figures(cgroup) {
                same(&found, &format!("memstock_cgroup_{name}{{cgroup=\"{path}\"}}"), value)?;
            }
            let limit = cgroup.memory.limit.context("both have a limit")?;
            same(
                &found,
                &format!("memstock_cgroup_memory_limit_bytes{{cgroup=\"{path}\"}}"),
                limit,
            )?;
            let parent = cgroup.parent_id.map_or("", |_| top.path());
            let id = cgroup.id;
            let labels = format!("{{cgroup=\"{path}\",cgroup_id=\"{id}\",parent=\"{parent}\"}}");
            same(&found, &format!("memstock_cgroup_info{labels}"), 1)?;
            // The parent's limit is exceeded, as `--observe` permits.
            let left = &show.cgroup(top.path())?.memory;
            let left = left.limit.context("a limit")? as f64 - left.needed as f64;
            ensure!(left < 0.0, "no task has less than its limit: {left}");
            let labels = format!("{{cgroup=\"{path}\",ancestor=\"{}\"}}", top.path());
            let headroom = format!("memstock_cgroup_memory_headroom_bytes{labels}");
            ensure!(found.value(&headroom)? == left, "{headroom} is not {left}: {}", found.text);
            same(&found, &format!("memstock_cgroup_memory_limit_binding{labels}"), 1)?;
        }
        let own = format!("{{cgroup=\"{0}\",ancestor=\"{0}\"}}", label(low.path()));
        same(&found, &format!("memstock_cgroup_memory_limit_binding{own}"), 0)?;
        // Without a limit there is no value.
        ensure!(found.of("memstock_cgroup_memsw_limit_bytes").next().is_none());
        for cpu in &show.cpus {
            let (n, label) = (cpu.cpu, format!("{{cpu=\"{}\"}}", cpu.cpu));
            for (name, value) in [
                ("online", u64::from(cpu.online)),
                ("charged_bytes_total", cpu.charged_pages * PAGE),
                ("from_stock_bytes_total", cpu.from_stock_pages * PAGE),
                ("refills_total", cpu.refills),
                ("drains_total", cpu.drains),
                ("charges_total", cpu.charges),
                ("uncharges_total", cpu.uncharges),
            ]
            .into_iter()
            .chain(cpu.faults.map(|faults| ("faults_total", faults)))
            {
                same(&found, &format!("memstock_cpu_{name}{label}"), value)?;
            }
            for (slot, has) in cpu.slots.iter().enumerate() {
                let label = format!("{{cpu=\"{n}\",slot=\"{slot}\"}}");
                same(&found, &format!("memstock_slot_bytes{label}"), has.nr_pages * PAGE)?;
                let batch = format!("memstock_slot_uncharge_bytes{label}");
                same(&found, &batch, has.uncharge_pages * PAGE)?;
            }
        }
        same(&found, "memstock_batch_bytes", show.batch * PAGE)?;
        same(&found, "memstock_cgroups", show.cgroups.len() as u64)?;
        same(&found, "memstock_events_total{kind=\"cgroup-added\"}", 2)?;
        same(&found, "memstock_counters_missing_total", show.loss.counters_missing)?;
        engine.stop().map(drop)
    })
}

/// As in `events.rs`: a stopped daemon, and more events than the ring buffer holds. The unit tests of `health.rs`,
/// which set the clock, show that the reason ends.
#[test]
fn lost_events_are_a_reason() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let (mut engine, at) = serving(&cgroup, &[])?;
        ensure!(engine.degraded(at)?.is_empty());
        engine.process().signal(Signal::STOP)?;
        let made = (0..=RING_EVENTS).try_for_each(|_| {
            let dir = cgroup.dir().join("comes-and-goes");
            fs::create_dir(&dir)?;
            fs::remove_dir(&dir)
        });
        engine.process().signal(Signal::CONT)?;
        made.context("making cgroups")?;
        let reasons = try_poll_until(SOON, "a reason", || {
            let reasons = engine.degraded(at)?;
            Ok((!reasons.is_empty()).then_some(reasons))
        })?;
        ensure!(reasons.len() == 1 && reasons[0].starts_with("events-lost: "), "{reasons:?}");
        let found = Exposition::get(at)?;
        same(&found, "memstock_degraded{reason=\"events-lost\"}", 1)?;
        same(&found, "memstock_degraded{reason=\"drift\"}", 0)?;
        same(&found, "memstock_events_lost_total", engine.show()?.loss.events_lost)?;
        ensure!(get(at, "/healthz")? == "alive\n", "degraded is alive");
        engine.stop().map(drop)
    })
}

/// Corrupts the map as a defect would.
#[test]
#[ignore = "long"]
fn drift_is_found_while_nobody_looks() -> Result<()> {
    const PAGES: u64 = 5;
    live(|| {
        let cgroup = TestCgroup::new()?;
        let (engine, at) = serving(&cgroup, &[])?;
        let pins = Pins::on(Path::new(leftovers::PINS));
        let id = engine.show()?.cgroup(cgroup.path())?.id;
        let index = memstock::engine::Engine::open(&pins)?.index_of(id)?.context("a counter")?;
        let map = Map::Array(MapData::from_pin(pins.map("COUNTERS"))?);
        let mut counters: Array<_, Counter<u64>> = map.try_into()?;
        let sound = counters.get(&index, 0)?;
        let mut drifted = sound;
        drifted.memory.usage += PAGES;
        counters.set(index, drifted, 0)?;
        let reasons = try_poll_until(6 * SOON, "the drift", || {
            let reasons = engine.degraded(at)?;
            Ok((!reasons.is_empty()).then_some(reasons))
        })?;
        let expected = format!("drift: {PAGES} pages of {} do not add up, ", cgroup.path());
        ensure!(reasons.len() == 1 && reasons[0].starts_with(&expected), "{reasons:?}");
        same(&Exposition::get(at)?, "memstock_drift_bytes", PAGES * PAGE)?;
        counters.set(index, sound, 0)?;
        try_poll_until(6 * SOON, "that all adds up", || {
            Ok(engine.degraded(at)?.is_empty().then_some(()))
        })?;
        let found = Exposition::get(at)?;
        same(&found, "memstock_drift_bytes", 0)?;
        ensure!(found.value("memstock_checks_total{result=\"exact\"}")? >= 2.0, "{}", found.text);
        engine.stop().map(drop)
    })
}
