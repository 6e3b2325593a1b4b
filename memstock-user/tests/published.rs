//! What is published of declarations is what is declared: `docs/doctor.md`, and the command line of the unit. After a change,
//! `MEMSTOCK_BLESS=1 cargo test -p memstock --test published` writes them anew.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use memstock::cli::Cli;
use memstock::cli::doctor::facilities;

/// Compares a file of the repository with what it has to be, or writes it.
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
[doctor.schema.json](schema/doctor.schema.json). Nothing is judged by the kernel's version: programs are loaded, the
tracepoints attached to for a moment, files opened, system calls made.

Exit codes: 0 if all that is required is found; 121 if the host lacks any of it; 120 if only privilege is missing,
or what is unknown without it.

This page is made from the declarations (`memstock-user/src/cli/doctor/facility.rs`).

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

/// The unit starts what this version takes.
#[test]
fn the_unit_starts_memstock() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd/memstock.service");
    let unit = fs::read_to_string(unit).expect("the unit is there");
    let starts: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    let [start] = starts[..] else { panic!("{starts:?}") };
    Cli::try_parse_from(start.split_whitespace()).expect("it is a command line of memstock");
}
