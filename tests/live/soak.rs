//! One daemon runs for a long time with every kind of work and an occasional failing system call: nothing is lost, and
//! it does not grow.
//!
//! `cargo xtask soak --minutes 60` runs it for an hour instead of seconds.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memstock_tests::busy::Busy;
use memstock_tests::hotplug::can_go_offline;
use memstock_tests::live::name;
use memstock_tests::random::Random;
use memstock_tests::scale::minutes;
use memstock_tests::skip::skip;
use memstock_tests::strace::{self, Failing, Strace};
use memstock_tests::{leftovers, live};

const DEFAULT: Duration = Duration::from_secs(15);
/// The fewest rounds.
const FEWEST: u32 = 16;
/// Once in this many rounds a call fails, and halfway between, a CPU goes offline.
const ROUNDS: u32 = 8;

/// The resources of a process.
#[derive(Clone, Copy, Debug)]
struct Has {
    files: usize,
    threads: u64,
    /// Private memory, without the engine's maps, which it maps only temporarily.
    kib: u64,
}

impl Has {
    fn of(pid: u32) -> Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(process.join("status"))?;
        let field = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.context(key.to_owned())?.parse().context(key.to_owned())
        };
        Ok(Self {
            files: fs::read_dir(process.join("fd"))?.count(),
            threads: field("Threads:")?,
            kib: field("RssAnon:")?,
        })
    }
}

/// The medians of the first and the second half.
fn middles(mut values: Vec<u64>) -> (u64, u64) {
    let last = values.split_off(values.len() / 2);
    let middle = |mut half: Vec<u64>| {
        half.sort_unstable();
        half.get(half.len() / 2).copied().unwrap_or_default()
    };
    (middle(values), middle(last))
}

#[test]
#[ignore = "long"]
fn a_daemon_that_lasts_does_not_grow() -> Result<()> {
    live(|| {
        let time = DEFAULT.max(Duration::from_secs(60 * minutes()));
        let mut random = Random::seeded()?;
        let mut busy = Busy::new()?;
        let calls = if strace::is_there() {
            let seen = Strace::attach(busy.engine.daemon(), None)?;
            busy.stir(true)?;
            strace::counts(&seen.detach()?)
        } else {
            skip(&name(), "no call fails: strace is not installed");
            busy.stir(true)?;
            Default::default()
        };
        let start = Instant::now();
        let (mut rounds, mut failed, mut deaths, mut figures) = (0, 0, 0, Vec::new());
        let mut backtraces = 0;
        // In a slow guest, few rounds fit into the time; the first ones do some things for the first time.
        while start.elapsed() < time || rounds < FEWEST || figures.len() < 2 {
            rounds += 1;
            let failing = (rounds % ROUNDS == 0 && !calls.is_empty())
                .then(|| Failing::any(&calls, &mut random))
                .transpose()?;
            let strace = match &failing {
                Some(_) => Some(Strace::attach(busy.engine.daemon(), failing.as_ref())?),
                None => None,
            };
            let stirred = busy.stir(rounds % ROUNDS == ROUNDS / 2);
            let seen = strace.map(Strace::detach).transpose()?.unwrap_or_default();
            failed += seen.iter().filter(|line| line.contains("(INJECTED)")).count();
            let checked = stirred.and_then(|()| busy.check());
            let died =
                checked.with_context(|| format!("round {rounds}, {failing:?}: {seen:#?}"))?;
            // If a part panics, std prints a backtrace, since the test sets RUST_BACKTRACE, and keeps the 50 MiB of
            // debugging symbols that it read for it.
            let shown = busy.engine.stderr()?.matches("stack backtrace:").count();
            let is_new = died || std::mem::replace(&mut backtraces, shown) != shown;
            deaths += u32::from(died);
            if is_new {
                // Earlier figures can no longer be compared.
                figures.clear();
            } else {
                figures.push(Has::of(busy.engine.daemon())?);
            }
        }
        let last = figures.last().context("there are two at least")?;
        eprintln!("{rounds} rounds, {failed} calls failed, {deaths} daemons died; {last:?}");
        let grown = |of: fn(&Has) -> u64| middles(figures.iter().map(of).collect());
        for (what, (before, after), may) in [
            // For a worker, and for HTTP clients.
            ("files", grown(|has| has.files as u64), 4),
            ("threads", grown(|has| has.threads), 2),
            // For what malloc does not return to the system.
            ("KiB", grown(|has| has.kib), 1024),
        ] {
            ensure!(after <= before + may, "{what}: {before}, then {after}");
        }
        if !can_go_offline(1) {
            skip(&name(), "CPU 1 cannot go offline");
        }
        busy.engine.audit_at_rest::<&str>(&[])?;
        busy.engine.stop()?;
        leftovers::nothing_held()
    })
}
