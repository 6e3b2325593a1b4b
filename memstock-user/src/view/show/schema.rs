//! The published schemas of all JSON (`docs/schema`), generated from the declarations and the printed types; the test
//! fails if one is out of date. Live tests check that real output conforms.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use memstock_common::Loss;
use memstock_common::stat::{CgroupStat, PageCounterStat, ProbeStat, Stat, Stats, Unit};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::json::{Drained, Numbers, Show};
use super::{audit, fleet, kernel, recommend, rehearse, replay, stat};
use crate::forecast::measure::{FIGURES, Scope, is_whole};
use crate::forecast::verdict::Verdict;
use crate::journal::Entry;
use crate::journal::tests::every_kind;

/// An object with these members.
fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> Schema {
    let properties: Map<_, _> =
        members.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    let required: Vec<_> = properties.keys().cloned().collect();
    json_schema!({ "type": "object", "properties": properties, "required": required })
}

/// A number as declared.
fn number(stat: Stat, mut schema: Schema) -> (&'static str, Value) {
    let unit = match stat.unit {
        Unit::Bytes => " Unit: bytes.",
        Unit::Pages => " Unit: pages.",
        Unit::Seconds => " Unit: seconds.",
        Unit::Count | Unit::Percent => "",
    };
    schema.insert("description".into(), format!("{}{unit}", stat.help).into());
    (stat.name, schema.into())
}

impl<T: Stats> JsonSchema for Numbers<T> {
    fn schema_name() -> Cow<'static, str> {
        "Numbers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        object(T::ALL.iter().map(|stat| count(stat.stat(), generator)))
    }
}

fn count(stat: Stat, generator: &mut SchemaGenerator) -> (&'static str, Value) {
    let schema = match can_be_none(stat) {
        true => Option::<u64>::json_schema(generator),
        false => u64::json_schema(generator),
    };
    number(stat, schema)
}

/// Null means no limit, or a kernel without tracepoints for page faults.
fn can_be_none(stat: Stat) -> bool {
    [PageCounterStat::Limit.stat().name, CgroupStat::Faults.stat().name].contains(&stat.name)
}

pub fn loss(generator: &mut SchemaGenerator) -> Schema {
    let lost = Loss::ALL.iter().map(|stat| stat.stat());
    let lost = lost.chain(ProbeStat::ALL.iter().map(|stat| stat.stat()));
    object(lost.map(|stat| number(stat, u64::json_schema(generator))))
}

pub fn verdict(_: &mut SchemaGenerator) -> Schema {
    let verdicts = [Verdict::Fits, Verdict::Reclaims, Verdict::Slow, Verdict::Oom];
    json_schema!({
        "enum": verdicts.map(Verdict::name),
        "description": "Nothing is reclaimed; page cache is; that takes 5 % more time; a process is killed.",
    })
}

pub fn verdict_or_none(_: &mut SchemaGenerator) -> Schema {
    let verdicts = [Verdict::Fits, Verdict::Reclaims, Verdict::Near, Verdict::Oom];
    let names = verdicts.map(|verdict| Value::from(verdict.name()));
    json_schema!({
        "enum": names.into_iter().chain([Value::Null]).collect::<Vec<_>>(),
        "description": "Nothing is reclaimed; page cache is; a process may be killed; a process is killed.",
    })
}

fn figures(schema: impl Fn(Scope, Stat) -> Schema) -> Schema {
    object(Scope::ALL.iter().map(|&scope| {
        let own = FIGURES.iter().filter(|(other, _)| *other == scope);
        let mut figures = object(own.map(|&(scope, stat)| number(stat, schema(scope, stat))));
        let about = match scope {
            Scope::Cgroup => "The command's cgroup, with its descendants.",
            Scope::Engine => {
                "The engine while the command ran: only the command, if own_engine is true."
            }
            Scope::Kernel => {
                "The kernel's own memory controller, for the cgroup and its descendants that still \
                 exist; null without --kernel-stock."
            }
            Scope::Process => "The process, as the kernel reported when it was waited for.",
        };
        figures.insert("description".into(), about.into());
        (scope.name(), figures.into())
    }))
}

/// A mean over runs need not be a whole number, and some figures are not known for every run.
pub fn means(_: &mut SchemaGenerator) -> Schema {
    figures(|scope, stat| {
        let is_always = scope != Scope::Kernel
            && !can_be_none(stat)
            && (is_whole(stat.unit) && stat.name != "max_rss" || stat.unit == Unit::Seconds);
        let kind = if is_always { json!("number") } else { json!(["number", "null"]) };
        json_schema!({ "type": kind, "minimum": 0 })
    })
}

pub fn deviations(_: &mut SchemaGenerator) -> Schema {
    let mut scopes = figures(|_, _| json_schema!({ "type": ["number", "null"], "minimum": 0 }));
    scopes.insert("type".into(), json!(["object", "null"]));
    scopes
}

/// Forbids other members in objects.
fn strict(schema: &mut Schema) {
    if schema.get("properties").is_some() {
        schema.insert("additionalProperties".into(), false.into());
    }
}

/// Compares the schema of a verb's output with the published one, or, when blessing, publishes it.
pub fn publish<T: JsonSchema>(verb: &str) {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with(|settings| settings.inline_subschemas = true);
    let generator = settings.with_transform(RecursiveTransform(strict)).into_generator();
    let schema = serde_json::to_value(generator.into_root_schema_for::<T>()).unwrap();
    compare(verb, &titled(&format!("memstock {verb} --json"), schema));
}

/// Puts the title first.
fn titled(title: &str, mut schema: Value) -> Value {
    let mut all = Map::from_iter([("$schema".into(), schema["$schema"].take())]);
    all.insert("title".into(), title.into());
    let rest = schema.as_object().unwrap().clone().into_iter();
    all.extend(rest.filter(|(name, _)| !["$schema", "title"].contains(&&**name)));
    all.into()
}

fn compare(verb: &str, schema: &Value) {
    jsonschema::meta::validate(schema).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let path = folder.join(format!("{}.schema.json", verb.replace(" --", "-")));
    let text = format!("{schema:#}\n");
    if std::env::var_os("MEMSTOCK_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(published == text, "docs/schema is out of date: cargo xtask test --bless");
}

fn events() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = serde_json::to_value(generator.into_root_schema_for::<Entry>()).unwrap();
    // Not `additionalProperties`, which would reject the members of each kind.
    schema["unevaluatedProperties"] = false.into();
    // The other definitions are flattened into a record.
    for name in ["Cgroup", "CpuPages"] {
        schema["$defs"][name]["additionalProperties"] = false.into();
    }
    titled("a line of memstock events --json", schema)
}

#[test]
fn the_published_schemas_are_up_to_date() {
    publish::<Show<'_>>("show");
    publish::<audit::Document>("audit");
    publish::<Drained>("drain");
    publish::<kernel::Document>("kernel");
    publish::<stat::Document<'_>>("stat");
    publish::<rehearse::Document>("rehearse");
    publish::<recommend::Document>("recommend");
    publish::<fleet::Document>("recommend --prometheus");
    publish::<replay::Document>("replay");
    compare("events", &events());
}

/// Members that describe who would be killed, if anybody.
const VICTIM: [&str; 6] =
    ["victim", "comm", "rss_pages", "swap_pages", "page_table_pages", "oom_score_adj"];

#[test]
fn records_of_every_kind_keep_to_theirs_and_others_do_not() {
    let schema = jsonschema::validator_for(&events()).unwrap();
    for record in every_kind() {
        let entry = Entry { seq: 1, time_ns: 2, time: "then".into(), record };
        let line = serde_json::to_value(&entry).unwrap();
        let errors: Vec<_> = schema.iter_errors(&line).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{line}: {errors:?}");
        let mut more = line.clone();
        more["more"] = 1.into();
        assert!(!schema.is_valid(&more), "{more}");
        for member in line.as_object().unwrap().keys() {
            let mut less = line.clone();
            less.as_object_mut().unwrap().remove(member);
            // Members that may be absent. Those of a victim are absent all at once, which a schema for flat members
            // cannot express.
            let is_optional = ["since_event_ns", "path_hex"].contains(&member.as_str())
                // A setting of no cgroup; a change without a note.
                || (line["kind"] == "config-changed" && ["cgroup", "note"].contains(&member.as_str()))
                || (line["kind"] == "would-enforce" && VICTIM.contains(&member.as_str()));
            assert!(is_optional || !schema.is_valid(&less), "{less} without {member}");
        }
    }
}
