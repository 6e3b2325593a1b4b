//! What is published of declarations is what is declared: the JSON schemas in `docs/schema`, `docs/doctor.md`, and
//! the command line of the unit. After a change,
//! `MEMSTOCK_BLESS=1 cargo test -p memstock --test published` writes them anew.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use memstock::cli::Cli;
use memstock::cli::doctor::{Need, State, facilities};
use memstock::forecast::measure::{FIGURES, Scope, is_whole};
use memstock_common::stat::{Loss, ProbeStat, Stat, Unit};
use serde_json::{Map, Value, json};

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

fn object(description: &str, properties: Map<String, Value>) -> Value {
    let required: Vec<_> = properties.keys().cloned().collect();
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn document(title: &str, properties: Value) -> String {
    let Value::Object(properties) = properties else { panic!("{properties}") };
    let mut schema = Map::new();
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), title.into());
    let Value::Object(rest) = object("", properties) else { panic!("no object") };
    schema.extend(rest.into_iter().filter(|(key, _)| key != "description"));
    format!("{:#}\n", Value::Object(schema))
}

fn unit(stat: Stat) -> &'static str {
    match stat.unit {
        Unit::Bytes => " In bytes.",
        Unit::Pages => " In pages.",
        Unit::Count => "",
        Unit::Seconds => " In seconds.",
        Unit::Percent => " In percent.",
    }
}

fn described(stat: Stat, mut schema: Map<String, Value>) -> (String, Value) {
    schema.insert("description".into(), format!("{}{}", stat.help, unit(stat)).into());
    (stat.name.into(), schema.into())
}

/// The mean over runs need not be a whole number, and some figures cannot be told of every run.
fn number(scope: Scope, stat: Stat) -> (String, Value) {
    let is_known = !["max_rss", "faults"].contains(&stat.name);
    let is_always =
        scope != Scope::Kernel && (is_whole(stat.unit) && is_known || stat.unit == Unit::Seconds);
    let kind = if is_always { json!("number") } else { json!(["number", "null"]) };
    described(stat, Map::from_iter([("type".into(), kind), ("minimum".into(), json!(0))]))
}

fn integer(stat: Stat) -> (String, Value) {
    described(
        stat,
        Map::from_iter([("type".into(), json!("integer")), ("minimum".into(), json!(0))]),
    )
}

fn figures(scope: Scope) -> Value {
    let own = FIGURES.iter().filter(|(other, _)| *other == scope);
    let description = match scope {
        Scope::Cgroup => "Of the cgroup that was made for the command, with those below it.",
        Scope::Engine => {
            "Of the engine while the command ran: the command's, if own_engine is true."
        }
        Scope::Kernel => {
            "Of the kernel's own memory controller, for the cgroup and those below it that are still there; null without --kernel-stock."
        }
        Scope::Process => "Of the process, as the kernel told who waited for it.",
    };
    object(description, own.map(|&(_, stat)| number(scope, stat)).collect())
}

fn deviations(scope: Scope) -> (String, Value) {
    let number = |&(_, stat): &(Scope, Stat)| {
        (stat.name.to_owned(), json!({ "type": ["number", "null"], "minimum": 0 }))
    };
    let own = FIGURES.iter().filter(|(other, _)| *other == scope);
    (scope.name().into(), object("In the units of the means.", own.map(number).collect()))
}

#[test]
fn the_schema_of_stat() {
    let lost = Loss::ALL.iter().map(|loss| loss.stat());
    let lost = lost.chain(ProbeStat::ALL.iter().map(|stat| stat.stat()));
    let loss = object(
        "What was lost, skipped or merged meanwhile, by the whole engine.",
        lost.map(integer).collect(),
    );
    let mut stddev = object(
        "Standard deviations over the runs.",
        Scope::ALL.map(deviations).into_iter().collect(),
    );
    stddev["type"] = json!(["object", "null"]);
    let properties = json!({
        "command": {
            "description": "COMMAND and its arguments, control characters and bytes that are no text escaped.",
            "type": "array",
            "items": { "type": "string" },
            "minItems": 1,
        },
        "exit_code": {
            "description": "COMMAND's, in the last run: 128 + N after signal N.",
            "type": "integer",
            "minimum": 0,
            "maximum": 255,
        },
        "runs": { "description": "Of these the figures are the mean.", "type": "integer", "minimum": 1 },
        "cgroup_path": { "description": "Where COMMAND ran; removed since.", "type": "string" },
        "own_engine": {
            "description": "Whether an engine was started for COMMAND, and tracked nothing else.",
            "type": "boolean",
        },
        "batch": { "description": "Pages charged at once on a miss.", "type": "integer", "minimum": 1 },
        "cgroup": figures(Scope::Cgroup),
        "engine": figures(Scope::Engine),
        "kernel": figures(Scope::Kernel),
        "process": figures(Scope::Process),
        "stddev": stddev,
        "loss": loss,
    });
    publish("docs/schema/stat.schema.json", &document("memstock stat --json", properties));
}

#[test]
fn the_schema_of_doctor() {
    let states = [State::Found, State::Absent, State::Unknown].map(State::name);
    let text = |description: &str| json!({ "description": description, "type": "string" });
    let facility = object(
        "Something that a host can have.",
        Map::from_iter([
            ("name".into(), text("Its name, the same on every host.")),
            (
                "need".into(),
                json!({
                    "description": "Whether memstock can do without.",
                    "enum": [Need::Required.name(), Need::Optional.name()],
                }),
            ),
            (
                "state".into(),
                json!({
                    "description": "Whether the host has it; unknown when that could not be told.",
                    "enum": states,
                }),
            ),
            ("detail".into(), text("What exactly was found, or why not. For people.")),
            (
                "said".into(),
                json!({
                    "description": "What the kernel says of each program that it refuses.",
                    "type": "array",
                    "items": { "type": "string" },
                }),
            ),
            ("purpose".into(), text("What memstock does with it.")),
            ("without".into(), text("What follows if it is absent.")),
            (
                "remedy".into(),
                json!({
                    "description": "The one command, or kernel setting, that helps; null when it is found.",
                    "type": ["string", "null"],
                }),
            ),
        ]),
    );
    let properties = json!({
        "runs_here": {
            "description": "Whether all that is required was found.",
            "type": "boolean",
        },
        "missing": {
            "description": "The names of what is required and was not found.",
            "type": "array",
            "items": { "type": "string" },
        },
        "engine": text("What is said of a running engine. For people."),
        "facilities": { "type": "array", "items": facility, "minItems": 1 },
    });
    publish("docs/schema/doctor.schema.json", &document("memstock doctor --json", properties));
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
