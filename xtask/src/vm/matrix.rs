//! `cargo xtask vm --matrix`: runs the same tests in each guest of the matrix, and writes the table of results, between
//! two marks in `docs/kernels.md`.
//!
//! A row is the last run in its guest; rows of guests that did not run stay.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::kernel::Kernel;
use super::{Cgroups, Guest, Preempt, Work, boot, build, prepare};
use crate::test::tally::Tally;
use crate::{exec, setup};

const DOCUMENT: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- by cargo xtask vm --matrix: begin -->\n";
const END: &str = "<!-- by cargo xtask vm --matrix: end -->\n";
const HEAD: &str = "| guest | kernel | tests | passed | failed | skipped | minutes |\n|---|---|---|---|---|---|---|\n";

/// The guests: each kernel with the least and the most preemption, and other set-ups that matter to memstock.
pub fn guests() -> Vec<Guest> {
    let v2 = |kernel, preempt| Guest::of(kernel, 4, Cgroups::V2, preempt);
    let nohz_full = |kernel| Guest { nohz_full: true, ..v2(kernel, Preempt::Full) };
    vec![
        v2("6.1", Preempt::None),
        v2("6.1", Preempt::Voluntary),
        v2("6.1", Preempt::Full),
        Guest::of("6.1", 4, Cgroups::Hybrid, Preempt::Voluntary),
        v2("6.12", Preempt::None),
        v2("6.12", Preempt::Full),
        Guest::of("6.12", 8, Cgroups::Hybrid, Preempt::Full),
        nohz_full("6.12"),
        Guest::of("6.12", 4, Cgroups::None, Preempt::Voluntary),
        v2("6.18", Preempt::None),
        v2("6.18", Preempt::Lazy),
        v2("6.18", Preempt::Full),
        v2("7.3", Preempt::Lazy),
        v2("7.3", Preempt::Full),
        nohz_full("7.3"),
    ]
}

/// Runs the tests in the guests with these kernels or names, or in all.
pub fn run(wanted: &[String], work: &Work) -> Result<()> {
    let is_wanted = |guest: &Guest| {
        let name = guest.to_string();
        wanted.is_empty() || wanted.iter().any(|one| *one == guest.kernel || *one == name)
    };
    let guests: Vec<_> = guests().into_iter().filter(is_wanted).collect();
    ensure!(!guests.is_empty(), "the matrix has no guest of {}", wanted.join(", or "));
    let bpf = setup::ensure()?;
    prepare()?;
    build(&bpf, work)?;
    let mut all = Tally::default();
    for guest in guests {
        let start = Instant::now();
        let mut one = Tally::default();
        if let Err(error) = boot(&mut one, &bpf, &guest, work) {
            one.broken("vm", &error);
        }
        exec::say("Guest", format_args!("{guest}: {}", one.closing()));
        // After each guest, because a run of hours may be interrupted.
        write(&row(&guest, work, &one, start.elapsed().as_secs() / 60))?;
        all.add(&guest.to_string(), one);
    }
    print!("{all}");
    if all.failed() > 0 {
        std::process::exit(1);
    }
    Ok(())
}

fn row(guest: &Guest, work: &Work, tally: &Tally, minutes: u64) -> String {
    let release = Kernel::get(&guest.kernel, guest.arch)
        .map_or_else(|_| "none".to_owned(), |kernel| kernel.release);
    let names: Vec<_> = work.tests.iter().chain(&work.benches).map(String::as_str).collect();
    let names = if names.is_empty() { "all".to_owned() } else { names.join(", ") };
    let built = if work.dev { ", debug build" } else { "" };
    let (passed, failed, skipped) = tally.counts();
    let mut failures = failed.to_string();
    for failure in tally.failures() {
        // Its message follows the name of a test.
        let name = failure.lines().next().and_then(|line| line.split(": ").next());
        failures.push_str(": ");
        failures.push_str(&name.unwrap_or_default().replace('|', "/"));
    }
    let load = work.load;
    format!(
        "| {guest} | {release} | {names}; {load} % of the repetitions{built} | {passed} | {failures} | {skipped} | {minutes} |\n"
    )
}

fn write(row: &str) -> Result<()> {
    let path = exec::root().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    fs::write(&path, with(&text, row)?).with_context(|| format!("cannot write {}", path.display()))
}

/// The document with this row in place of its guest's old one, in the order of the matrix.
fn with(text: &str, row: &str) -> Result<String> {
    let marks = || format!("{DOCUMENT} lacks the marks of the matrix");
    let (before, rest) = text.split_once(BEGIN).with_context(marks)?;
    let (table, after) = rest.split_once(END).with_context(marks)?;
    let first = |row: &str| row.trim_start_matches("| ").split(" | ").next().map(str::to_owned);
    let mut rows: Vec<_> = table.split_inclusive('\n').skip(2).collect();
    rows.retain(|old| first(old) != first(row));
    rows.push(row);
    let order: Vec<_> = guests().iter().map(Guest::to_string).collect();
    rows.sort_by_key(|row| order.iter().position(|guest| first(row).as_ref() == Some(guest)));
    Ok(format!("{before}{BEGIN}{HEAD}{}{END}{after}", rows.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_place_of_its_guests() {
        let guests = guests();
        let row = |n: usize, passed: u32| format!("| {} | x | {passed} |\n", guests[n]);
        let document = |rows: &str| format!("# It\n{BEGIN}{HEAD}{rows}{END}end\n");
        let one = with(&document(""), &row(4, 1)).unwrap();
        assert_eq!(one, document(&row(4, 1)));
        let two = with(&one, &row(0, 2)).unwrap();
        assert_eq!(two, document(&(row(0, 2) + &row(4, 1))));
        assert_eq!(with(&two, &row(4, 3)).unwrap(), document(&(row(0, 2) + &row(4, 3))));
        assert!(with("# It\n", &row(0, 1)).is_err());
    }
}
