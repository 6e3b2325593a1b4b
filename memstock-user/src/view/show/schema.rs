//! The published schemas of all JSON, `docs/schema`, made from the declarations and the type of the records; the
//! test fails when one is out of date. That real output keeps to them is for the live tests.

use std::fs;
use std::path::Path;

use memstock_common::Loss;
use memstock_common::stat::{
    CgroupStat, CpuStat, CpuState, DrainStat, EngineStat, MemoryStat, PageCounterStat, ProbeStat,
    SlotStat, Stat, Unit,
};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::audit::stat;
use crate::journal::Entry;
use crate::journal::tests::every_kind;

/// Members of an object, in their order: name and schema.
type Members = Vec<(&'static str, Value)>;

/// Exactly these members.
fn object(members: Members) -> Value {
    let required: Vec<_> = members.iter().map(|(name, _)| *name).collect();
    let properties: Map<_, _> =
        members.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// With a member that may be missing.
fn with_optional(mut object: Value, name: &str, schema: Value) -> Value {
    object["properties"][name] = schema;
    object
}

fn described(mut schema: Value, about: &str) -> Value {
    schema["description"] = about.into();
    schema
}

/// Of a cgroup whose name had to be escaped.
fn with_path_hex(object: Value) -> Value {
    let about = "The bytes of the path in hexadecimal, if something in it was escaped.";
    with_optional(object, "path_hex", json!({ "description": about, "type": "string" }))
}

fn list(items: Value, about: &str) -> Value {
    json!({ "description": about, "type": "array", "items": items })
}

fn or_null(mut schema: Value) -> Value {
    let kind = schema["type"].take();
    schema["type"] = json!([kind, "null"]);
    schema
}

fn whole(about: &str) -> Value {
    json!({ "description": about, "type": "integer", "minimum": 0 })
}

fn flag(about: &str) -> Value {
    json!({ "description": about, "type": "boolean" })
}

fn path(about: &str) -> Value {
    or_null(json!({ "description": about, "type": "string" }))
}

/// A number as declared; `bytes` says whether memory is shown in bytes.
fn number(declared: Stat) -> (&'static str, Value) {
    let unit = match declared.unit {
        Unit::Bytes => " Unit: bytes.",
        Unit::Pages => " Unit: pages.",
        Unit::Count | Unit::Seconds | Unit::Percent => "",
    };
    (declared.name, whole(&format!("{}{unit}", declared.help)))
}

fn signed(declared: Stat) -> (&'static str, Value) {
    let (name, mut schema) = number(declared);
    schema.as_object_mut().unwrap().remove("minimum");
    (name, schema)
}

fn published(title: &str, mut schema: Value) -> Value {
    let mut all = Map::new();
    all.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    all.insert("title".into(), title.into());
    schema.as_object_mut().unwrap().remove("$schema");
    schema.as_object_mut().unwrap().remove("title");
    all.append(schema.as_object_mut().unwrap());
    all.into()
}

fn show() -> Value {
    let slot = object(
        [
            ("cgroup", path("Path of the cgroup that the slot is cached for; null for none.")),
            ("cgroup_id", or_null(whole("Its cgroup v2 id."))),
            ("uncharge_cgroup_id", or_null(whole("The cgroup that the uncharge batch is for."))),
        ]
        .into_iter()
        .chain(SlotStat::ALL.iter().map(|stat| number(stat.stat())))
        .collect(),
    );
    let cpu = object(
        [
            ("cpu", whole("Its number.")),
            (CpuState::Online.stat().name, flag("Whether the CPU is online.")),
            ("slots", list(slot, "Its stock.")),
        ]
        .into_iter()
        .chain(CpuStat::ALL.iter().map(|&stat| match (stat, number(stat.stat())) {
            (CpuStat::Faults, (name, schema)) => (name, or_null(schema)),
            (_, number) => number,
        }))
        .collect(),
    );
    let counter = || {
        PageCounterStat::ALL.iter().map(|&stat| match (stat, number(stat.stat())) {
            (PageCounterStat::Limit, (name, schema)) => (name, or_null(schema)),
            (_, number) => number,
        })
    };
    let parts = MemoryStat::ALL.iter().map(|stat| number(stat.stat()));
    let cgroup = object(
        [
            ("path", path("Path in the hierarchy, what is not printable escaped; null once it is removed.")),
            ("id", whole("cgroup v2 id.")),
            ("parent_id", or_null(whole("The nearest tracked ancestor."))),
            ("dying", flag("Whether it is removed, and only waits for its pages to be freed.")),
            ("memory", object(counter().chain(parts).collect())),
            ("memsw", object(counter().collect())),
        ]
        .into_iter()
        .chain(CgroupStat::ALL.iter().map(|&stat| match (stat, number(stat.stat())) {
            (CgroupStat::Faults, (name, schema)) => (name, or_null(schema)),
            (_, number) => number,
        }))
        .collect(),
    );
    let losses = Loss::ALL.iter().map(|loss| loss.stat());
    let losses = losses.chain(ProbeStat::ALL.iter().map(|stat| stat.stat()));
    let document = object(vec![
        ("cpus", list(cpu, "Every possible CPU.")),
        ("cgroups", list(with_path_hex(cgroup), "Every tracked and every dying cgroup, by path.")),
        number(EngineStat::Batch.stat()),
        ("loss", object(losses.map(number).collect())),
        (
            "degraded",
            list(
                json!({ "description": "What is wrong, after its name and a colon; as in /readyz.", "type": "string" }),
                "Why the daemon is degraded; empty when it is not.",
            ),
        ),
    ]);
    published("memstock show --json", document)
}

fn drain() -> Value {
    let nr_pages = DrainStat::NrPages.stat();
    let cpu = object(vec![("cpu", whole("Its number.")), number(nr_pages)]);
    let document = object(vec![
        ("cpus", list(cpu, "Every CPU that was asked.")),
        number(nr_pages),
        number(DrainStat::TookUs.stat()),
    ]);
    published("memstock drain --json", document)
}

fn audit() -> Value {
    let counts = || [stat::BOTH, stat::ONLY_OURS, stat::ONLY_KERNELS, stat::OTHER].map(number);
    let agreement = || {
        let (name, about) = (stat::AGREEMENT.name, stat::AGREEMENT.help);
        let percent = json!({
            "description": format!("{about} Null when there are none."),
            "type": ["number", "null"], "minimum": 0, "maximum": 100,
        });
        or_null(object(counts().into_iter().chain([(name, percent)]).collect()))
    };
    let named = || {
        vec![
            ("path", path("Path in the hierarchy; null once it is removed.")),
            ("id", whole("cgroup v2 id.")),
        ]
    };
    let (memsw, memsw_drift) = signed(stat::MEMSW_DRIFT);
    let books = [stat::USAGE, stat::OWNED, stat::UNUSED, stat::DRIFT, stat::FILE, stat::FILE_DRIFT]
        .map(signed);
    let mut cgroup = named();
    cgroup.push(("dying", flag("Whether it is charged no more.")));
    cgroup.extend(books);
    cgroup.push((memsw, or_null(memsw_drift)));
    cgroup.push(("kernel", agreement()));
    let moved = || [stat::ADOPTED, stat::DISOWNED].map(number);
    let mut repaired = named();
    repaired.extend(moved());
    let repaired = list(with_path_hex(object(repaired)), "By cgroup.");
    let repaired = object(moved().into_iter().chain([("cgroups", repaired)]).collect());
    let kinds = json!({
        "description": "The comparison with the kernel by kind of page; none without one.",
        "type": "object",
        "additionalProperties": object(counts().to_vec()),
    });
    let document = object(vec![
        (
            "cgroups",
            list(with_path_hex(object(cgroup)), "Every tracked and every dying cgroup, by path."),
        ),
        ("exact", flag("Whether nothing moved while it was read; else nothing is proved.")),
        number(stat::OWNED),
        number(stat::OWNERLESS),
        number(stat::STALE),
        ("kernel", agreement()),
        (
            "file",
            described(
                object([stat::BOTH, stat::ONLY_OURS, stat::ONLY_KERNELS].map(number).into()),
                "Pages with an owner that are page cache by memstock, by the kernel, or both.",
            ),
        ),
        ("kinds", kinds),
        ("repaired", or_null(repaired)),
    ]);
    published("memstock audit --json", document)
}

fn events() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = serde_json::to_value(generator.into_root_schema_for::<Entry>()).unwrap();
    // Not `additionalProperties`, to which the members of the kinds are additional.
    schema["unevaluatedProperties"] = false.into();
    // The others among the parts are part of a record.
    for name in ["Cgroup", "CpuPages"] {
        schema["$defs"][name]["additionalProperties"] = false.into();
    }
    published("a line of memstock events --json", schema)
}

fn documents() -> [(&'static str, Value); 4] {
    [("show", show()), ("audit", audit()), ("events", events()), ("drain", drain())]
}

#[test]
fn the_published_schemas_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    for (name, schema) in documents() {
        jsonschema::meta::validate(&schema).unwrap();
        let path = folder.join(format!("{name}.schema.json"));
        let text = format!("{schema:#}\n");
        if std::env::var_os("MEMSTOCK_BLESS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, text).unwrap();
            continue;
        }
        let published = fs::read_to_string(&path).unwrap_or_default();
        assert!(published == text, "docs/schema is out of date: cargo xtask test --bless");
    }
}

/// Of who would be killed, if anybody.
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
            // What is left out at times: the parts of a victim only all at once, which a schema for
            // flat members cannot say.
            let is_optional = ["since_event_ns", "path_hex"].contains(&member.as_str())
                // Nobody's, of a setting; nothing to add.
                || (line["kind"] == "config-changed" && ["cgroup", "note"].contains(&member.as_str()))
                || (line["kind"] == "would-enforce" && VICTIM.contains(&member.as_str()));
            assert!(is_optional || !schema.is_valid(&less), "{less} without {member}");
        }
    }
}
