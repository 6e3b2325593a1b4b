//! The JSON of the verbs conforms to the published schemas, to the last member.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use jsonschema::Validator;
use memstock_tests::hog::{self, size};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::{Engine, KernelCgroup, Task, TestCgroup, events, live};
use serde_json::Value;

fn schema(name: &str) -> Result<Validator> {
    let file = format!("../docs/schema/{name}.schema.json");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
    let text = fs::read_to_string(path).context(file)?;
    Ok(jsonschema::validator_for(&serde_json::from_str(&text)?)?)
}

/// The standard output of a verb that must succeed.
fn printed(args: &[&str]) -> Result<String> {
    let finished = memstock(args)?.finish(3 * SOON)?;
    ensure!(finished.code() == 0, "{args:?}: {finished:?}");
    Ok(finished.stdout)
}

fn check(schema: &Validator, text: &str) -> Result<Value> {
    let value: Value = serde_json::from_str(text).with_context(|| text.to_owned())?;
    let errors: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
    ensure!(errors.is_empty(), "{errors:?} in {text}");
    Ok(value)
}

/// Checks that the schema rejects a missing or an additional member, wherever it is.
fn is_strict(schema: &Validator, value: &Value) -> Result<()> {
    let places = ["", "/cpus/0", "/cpus/0/slots/0", "/cgroups/0", "/cgroups/0/memory", "/loss"];
    for place in places {
        let Some(Value::Object(there)) = value.pointer(place) else { continue };
        let changed = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
            let mut other = value.clone();
            if let Some(Value::Object(object)) = other.pointer_mut(place) {
                change(object);
            }
            other
        };
        let more = changed(&|object| drop(object.insert("more".into(), 1.into())));
        ensure!(!schema.is_valid(&more), "one more at {place:?}");
        for member in there.keys() {
            let less = changed(&|object| drop(object.remove(member)));
            ensure!(!schema.is_valid(&less), "no {member} at {place:?}");
        }
    }
    Ok(())
}

#[test]
fn samples_audits_and_drains() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let low = top.child("low")?;
        let kernel = KernelCgroup::beside(&low)?;
        let limit = format!("{}=1G", low.path());
        let args = ["--memsw", "--cgroup", top.path(), "--cgroup", low.path(), "--limit", &limit];
        let engine = Engine::start(args)?;
        let mut task = match &kernel {
            Some(kernel) => Task::start_in_both(&low, kernel, None)?,
            None => Task::start(&low, None)?,
        };
        task.touch(100)?;
        let (show, audit, drain) = (schema("show")?, schema("audit")?, schema("drain")?);
        is_strict(&show, &check(&show, &printed(&["show", "--json"])?)?)?;
        is_strict(&drain, &check(&drain, &printed(&["drain", "--json"])?)?)?;
        is_strict(&audit, &check(&audit, &printed(&["audit", "--json"])?)?)?;
        check(&audit, &printed(&["audit", "--json", "--repair"])?)?;
        if let Some(kernel) = &kernel {
            let pair = format!("{}={}", low.path(), kernel.argument());
            // One root is tracked, and another cgroup is named.
            let named = ["audit", "--json", "--kernel-cgroup", &pair];
            let compared = check(&audit, &printed(&named)?)?;
            ensure!(compared["kernel"].is_object(), "{compared}");
        }
        // A removed cgroup no longer has a name.
        let gone = top.child("gone")?;
        let mut other = Task::start(&gone, None)?;
        other.touch(10)?;
        drop((other, gone));
        check(&show, &printed(&["show", "--json"])?)?;
        engine.stop().map(drop)
    })
}

#[test]
fn events_of_a_life() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start_adopting(["--cgroup", cgroup.path(), "--limit", &size(500)])?;
        let child = cgroup.child("comes and goes")?;
        try_poll_until(SOON, "the child", || {
            let all = events::read()?;
            let is_there = all.iter().any(|record| record.path("cgroup") == child.path());
            Ok(is_there.then_some(()))
        })?;
        drop(child);
        let mut hog = hog::HogBuilder::pages(2000).start(&cgroup)?;
        hog.was_killed()?;
        printed(&["drain"])?;
        let wanted =
            ["cgroup-added", "cgroup-dying", "limit-near", "limit-hit", "oom-kill", "drain"];
        try_poll_until(SOON, "events of many kinds", || {
            let all = events::read()?;
            let has = |kind: &&str| all.iter().any(|record| record.kind() == *kind);
            Ok(wanted.iter().all(has).then_some(()))
        })?;
        let schema = schema("events")?;
        for line in printed(&["events", "--json"])?.lines() {
            check(&schema, line)?;
        }
        engine.stop().map(drop)
    })
}
