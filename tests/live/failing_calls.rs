//! Any system call of the daemon may fail: the engine, its limits and what is counted stay, the daemon goes on or the next
//! one adopts, and what failed is told of. Control programs of the kernel half are run by such calls, too.
//!
//! strace has them fail in the daemon that is shipped. `MEMSTOCK_LOAD=10000` makes a thousand of the ten that a test run has.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use memstock_tests::busy::Busy;
use memstock_tests::live::name;
use memstock_tests::random::Random;
use memstock_tests::skip::skip;
use memstock_tests::strace::{self, Failing, Strace};
use memstock_tests::{leftovers, live, scaled};

/// Calls that fail.
const TIMES: u32 = 10;

#[test]
fn nothing_is_lost_whatever_fails() -> Result<()> {
    live(|| {
        if !strace::is_there() {
            skip(&name(), "strace is not installed");
            return Ok(());
        }
        let mut random = Random::seeded()?;
        let mut busy = Busy::new()?;
        let seen = Strace::attach(busy.engine.daemon(), None)?;
        busy.stir(true)?;
        let calls = strace::counts(&seen.detach()?);
        eprintln!("{calls:?}");
        let (mut failed, mut deaths, mut silent) = (0, 0, BTreeMap::<String, u32>::new());
        for time in 0..scaled(TIMES) {
            let failing = Failing::any(&calls, &mut random)?;
            eprintln!("{time}: {failing:?}");
            let told = busy.told()?;
            let strace = Strace::attach(busy.engine.daemon(), Some(&failing))?;
            let stirred = busy.stir(time % 4 == 0);
            let injected: Vec<_> =
                strace.detach()?.into_iter().filter(|line| line.contains("(INJECTED)")).collect();
            let what = || format!("{time}: {failing:?}: {injected:#?}");
            stirred.with_context(what)?;
            let died = busy.check().with_context(what)?;
            let is_told = died || busy.told()? > told;
            failed += injected.len();
            deaths += u32::from(died);
            if died {
                eprintln!("died: {}", what());
            }
            for line in injected.iter().filter(|_| !is_told) {
                eprintln!("silent: {line}");
                *silent.entry(failing.call.clone()).or_default() += 1;
            }
        }
        eprintln!("{failed} calls failed, {deaths} daemons died; not told of: {silent:?}");
        ensure!(failed > 0, "nothing failed");
        busy.engine.audit_at_rest::<&str>(&[])?;
        busy.engine.stop()?;
        leftovers::nothing_held()
    })
}
