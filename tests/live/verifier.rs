//! Every program passes the verifier, at no more than the cost recorded in `verifier-budget.json`.
//!
//! The counts depend on the kernel, on its build (Debian's 6.18 differs from another by a few instructions) and on the
//! compiler of the BPF object, so they are recorded for each pair of kernel and compiler, separately for the guests of
//! `cargo xtask vm`. They are ceilings, which `cargo xtask test --bless` raises.
//! For a pair without a record, the skip is reported, and the ceiling is four times the largest recorded count. That
//! catches a walk that is no longer bounded, far below the million instructions at which the kernel gives up.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use memstock::engine::load::{Coalescing, Settings, object};
use memstock::engine::object::COMPILER;
use memstock_common::{MAX_BATCH, MAX_SLOTS};
use memstock_tests::skip::{in_guest, skip};
use memstock_tests::{live, release};
use serde::{Deserialize, Serialize};

/// Program -> counts.
type Counts = BTreeMap<String, Count>;
/// "kernel, compiler" -> counts.
type Budget = BTreeMap<String, Counts>;

/// Named fields, as in the file that combines the records of several kernels.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Count {
    /// Instructions of the program, after the verifier's rewriting.
    translated: u32,
    /// Instructions that the verifier processed.
    verified: u32,
}

fn count(settings: Settings) -> Result<Counts> {
    let mut ebpf = object(settings, true)?;
    // `learn` is loaded separately.
    ebpf.programs_mut()
        .filter(|(_, program)| program.fd().is_ok())
        .map(|(name, program)| {
            let info = program.info()?;
            let verified = info.verified_instruction_count().context("needs Linux 5.16")?;
            let translated = info.size_translated().context("no xlated_prog_len")? / 8;
            Ok((name.to_owned(), Count { verified, translated }))
        })
        .collect()
}

/// Its line, and whose build it is; of another architecture than most records are of, for which.
fn kernel() -> Result<String> {
    let whose = if in_guest() { " of Debian" } else { "" };
    let arch = if ARCH == "x86_64" { String::new() } else { format!(" for {ARCH}") };
    release().map(|(version, level)| format!("{version}.{level}{whose}{arch}"))
}

#[test]
fn every_setting_passes_the_verifier() -> Result<()> {
    live(|| {
        let (memsw, trace) = (true, true);
        for settings in [
            Settings { memsw, ..Settings::default() },
            Settings { slots: MAX_SLOTS, ..Settings::default() },
            Settings { slots: 7, ..Settings::default() },
            Settings { batch: 1, ..Settings::default() },
            Settings { batch: MAX_BATCH, slots: 8, memsw, trace, ..Settings::default() },
            Settings { coalescing: Coalescing::Nothing, ..Settings::default() },
            Settings { coalescing: Coalescing::Uncharges(32), ..Settings::default() },
        ] {
            assert!(!count(settings)?.is_empty(), "{settings:?}");
        }
        Ok(())
    })
}

const TEST: &str = "no_program_costs_more_than_on_record";

#[test]
fn no_program_costs_more_than_on_record() -> Result<()> {
    live(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier-budget.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
        let mut budget: Budget = serde_json::from_str(&text).context("verifier-budget.json")?;
        let pair = format!("Linux {}, {COMPILER}", kernel()?);
        let counts = count(Settings::default())?;
        if std::env::var_os("MEMSTOCK_BLESS").is_some() {
            budget.insert(pair, counts);
            fs::write(&path, serde_json::to_string_pretty(&budget)? + "\n")?;
            return Ok(());
        }
        if let Some(recorded) = budget.get(&pair) {
            let fits = |name: &String, count: &Count| {
                recorded.get(name).is_some_and(|most| {
                    count.verified <= most.verified && count.translated <= most.translated
                })
            };
            let over: Vec<_> = counts.iter().filter(|(name, count)| !fits(name, count)).collect();
            assert!(
                over.is_empty(),
                "{over:?} are new or more than on record; if that is meant: cargo xtask test --bless"
            );
            return Ok(());
        }
        for (name, count) in counts {
            let recorded = budget.values().filter_map(|counts| counts.get(&name));
            let largest = recorded.map(|count| count.verified).max();
            let ceiling = largest.with_context(|| format!("{name} has no record at all"))? * 4;
            assert!(count.verified <= ceiling, "{name}: {count:?} is over {ceiling}");
        }
        skip(TEST, &format!("no record for {pair}"));
        Ok(())
    })
}
