//! What is published matches the code: `docs/doctor.md`, and the command line of the unit. After a change,
//! `MEMSTOCK_BLESS=1 cargo test -p memstock --test published` regenerates `docs/doctor.md`.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use memstock::cli::Cli;
use memstock::cli::doctor::facilities;

/// Compares a file of the repository with `text`, or, when blessing, writes it.
fn publish(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if std::env::var_os("MEMSTOCK_BLESS").is_some() {
        fs::write(&file, text).expect("the file can be written");
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == text,
        "{path} is stale: MEMSTOCK_BLESS=1 cargo test -p memstock --test published"
    );
}

#[test]
fn the_facilities() {
    let mut text = "\
# What memstock needs

`memstock doctor` looks for each of these on the host and says found, absent or unknown; `--json` is described by
[doctor.schema.json](schema/doctor.schema.json). It never goes by the kernel's version: it loads programs, briefly
attaches to the tracepoints, opens files and makes system calls.

Exit codes: 0 if everything required is found; 121 if the host lacks any of it; 120 if only privilege is missing,
or something is unknown without it.

This page is generated from the declarations (`memstock-user/src/cli/doctor/facility.rs`).

| facility | need | for | without it | remedy |
|---|---|---|---|---|
"
    .to_owned();
    for facility in facilities() {
        let (need, name) = (facility.need.name(), &facility.name);
        let (purpose, without, remedy) = (facility.purpose, facility.without, facility.remedy);
        text += &format!("| {name} | {need} | {purpose} | {without} | `{remedy}` |\n");
    }
    publish("docs/doctor.md", &text);
}

/// This version accepts the unit's command line.
#[test]
fn the_unit_starts_memstock() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd/memstock.service");
    let unit = fs::read_to_string(unit).expect("the unit is there");
    let starts: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    let [start] = starts[..] else { panic!("{starts:?}") };
    Cli::try_parse_from(start.split_whitespace()).expect("it is a command line of memstock");
}
