//! Containers of real runtimes appear in output and metrics and are selected by the names that people know, follow
//! renames, and leave nothing behind.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use memstock_tests::config::ConfigFile;
use memstock_tests::container::{NO_PODMAN, NO_RUNC, Place, Podman, Runc};
use memstock_tests::exposition::Exposition;
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::{Finished, memstock};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, TestCgroup, live, scaled};
use serde_json::Value;

/// Containers to start and remove.
const MANY: u32 = 50;
/// Exit code: no such cgroup.
const CGROUP: i32 = 122;

fn ask(args: &[&str]) -> Result<Finished> {
    memstock(args)?.finish(SOON)
}

fn json(args: &[&str]) -> Result<Value> {
    let answer = ask(args)?;
    ensure!(answer.code() == 0, "{args:?}: {answer:?}");
    serde_json::from_str(&answer.stdout).context(answer.stdout)
}

/// The name of the cgroup at `path` in `memstock show`; null if it has none.
fn shown(path: &str) -> Result<Value> {
    let show = json(&["show", "--json"])?;
    let all = show["cgroups"].as_array().context("no cgroups")?;
    let found = all.iter().find(|cgroup| cgroup["path"] == path);
    found.map(|cgroup| cgroup["name"].clone()).with_context(|| format!("no {path} in {show}"))
}

/// Waits until the cgroup at `path` has this name.
fn is_called(path: &str, name: &str) -> Result<()> {
    try_poll_until(SOON, &format!("{path} to be called {name}"), || {
        let found = shown(path)?;
        Ok((found["name"] == name && found["kind"] == "container").then_some(()))
    })
}

fn own(name: &str) -> String {
    format!("memstock-test-{}-{name}", std::process::id())
}

#[test]
fn containers_of_runc_have_their_names() -> Result<()> {
    live(|| {
        let Some(runc) = Runc::find()? else {
            skip(&name(), NO_RUNC);
            return Ok(());
        };
        let place = Place::new()?;
        let other = TestCgroup::new()?;
        let args = ["--cgroup", place.path(), "--cgroup", other.path(), "--metrics", "0"];
        let engine = Engine::start(args)?;
        let (web, db) = (own("web"), own("db"));
        let first = runc.run(&place, "a", &web)?;
        let second = runc.run(&place, "b", &db)?;
        is_called(&first.path, &web)?;
        is_called(&second.path, &db)?;
        ensure!(shown(&first.path)?["container"] == *web, "{:?}", shown(&first.path));
        ensure!(shown(place.path())?.is_null() && shown(other.path())?.is_null(), "names of none");

        // The table has the name first, and the path last.
        let table = ask(&["show"])?.stdout;
        let row = table.lines().find(|line| line.starts_with(&web)).context(table.clone())?;
        ensure!(row.ends_with(&first.path), "{table}");
        let top = ask(&["top", "-b", "-n", "1"])?.stdout;
        ensure!(top.lines().any(|line| line.trim_start().starts_with(&web)), "{top}");

        // Metrics have the name as a label.
        let exposition = Exposition::get(engine.metrics()?)?;
        let path = &first.path;
        exposition.value(&format!(
            "memstock_cgroup_memory_usage_bytes{{cgroup=\"{path}\",container=\"{web}\"}}"
        ))?;
        let of_other = format!("memstock_cgroup_memory_usage_bytes{{cgroup=\"{}\"}}", other.path());
        exposition.value(&of_other)?;

        // Events have it.
        let added = json_lines(&["events", "--json"])?;
        let is_first =
            |event: &&Value| event["kind"] == "cgroup-added" && event["cgroup"]["path"] == **path;
        let added = added.iter().find(is_first).context("no cgroup-added")?;
        ensure!(added["cgroup"]["name"]["name"] == *web, "{added}");
        let text = ask(&["events"])?.stdout;
        ensure!(text.contains(&format!("cgroup=\"{web} ({path})\"")), "{text}");

        // `--container` selects by the name.
        let only = json(&["show", "--json", "--container", &web])?;
        let paths: Vec<_> = only["cgroups"]
            .as_array()
            .context("no cgroups")?
            .iter()
            .map(|it| &it["path"])
            .collect();
        ensure!(paths == [&Value::from(path.as_str())], "{paths:?}");
        let limited = ask(&["limit", "--container", &web, "--memory", "64M"])?;
        ensure!(limited.code() == 0, "{limited:?}");
        ensure!(engine.show()?.cgroup(path)?.memory.limit == Some(64 << 20), "no limit");
        for verb in ["drain", "force-empty"] {
            let done = ask(&[verb, "--container", &web])?;
            ensure!(done.code() == 0, "{done:?}");
        }
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("recording");
        let file = file.to_str().context("a path of text")?;
        let recorded = ask(&["record", "--container", &web, "--seconds", "1", "-o", file])?;
        ensure!(recorded.code() == 0, "{recorded:?}");
        let judged = ask(&["rehearse", file])?;
        ensure!(judged.stdout.contains(&web), "{judged:?}");
        ensure!(json(&["rehearse", "--json", file])?["name"]["name"] == *web, "no name in JSON");

        // An unknown name, and an ambiguous one.
        let unknown = ask(&["limit", "--container", "no-such", "--memory", "1M"])?;
        ensure!(unknown.code() == CGROUP && unknown.stderr.lines().count() == 1, "{unknown:?}");
        ensure!(unknown.stderr.contains(&web) && unknown.stderr.contains(&db), "{unknown:?}");
        let both = own("*");
        let ambiguous = ask(&["show", "--container", &both])?;
        ensure!(ambiguous.code() == CGROUP && ambiguous.stderr.contains(path), "{ambiguous:?}");
        let usage = ask(&["show", "--container", &web, "--cgroup", path])?;
        ensure!(usage.code() == 2, "{usage:?}");
        drop((first, second));
        engine.stop().map(drop)
    })
}

fn json_lines(args: &[&str]) -> Result<Vec<Value>> {
    let answer = ask(args)?;
    ensure!(answer.code() == 0, "{answer:?}");
    answer.stdout.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

#[test]
fn what_the_configuration_names_is_followed() -> Result<()> {
    live(|| {
        let Some(runc) = Runc::find()? else {
            skip(&name(), NO_RUNC);
            return Ok(());
        };
        let place = Place::new()?;
        let web = own("web");
        let named = format!("[[cgroup]]\ncontainer = '{}'\nmemory = '32M'\n", own("w*b"));
        let file = ConfigFile::new(named)?;
        let engine = file.start()?;
        // In another cgroup each time, like a recreated container.
        for round in ["first", "second"] {
            let container = runc.run(&place, round, &web)?;
            try_poll_until(SOON, "the limit of what is named", || {
                let show = engine.show()?;
                let found = show.cgroup(&container.path);
                Ok(found.is_ok_and(|it| it.memory.limit == Some(32 << 20)).then_some(()))
            })?;
            is_called(&container.path, &web)?;
        }
        // A container that the file does not name is not tracked.
        let other = runc.run(&place, "third", &own("other"))?;
        try_poll_until(SOON, "the end of the second", || {
            Ok(engine.show()?.cgroups.iter().all(|cgroup| cgroup.path.is_none()).then_some(()))
        })?;
        ensure!(engine.show()?.cgroup(&other.path).is_err(), "it is tracked");
        drop(other);
        // Nor is the path of a removed container: its note is removed, too.
        try_poll_until(SOON, "the end of the notes", || {
            let notes = fs::read_dir("/sys/fs/bpf/memstock/names");
            Ok(notes.map_or(true, |mut notes| notes.next().is_none()).then_some(()))
        })?;
        engine.stop().map(drop)
    })
}

/// Descriptors of a process.
fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"))?.count())
}

#[test]
fn many_that_come_and_go_leave_nothing() -> Result<()> {
    live(|| {
        let Some(runc) = Runc::find()? else {
            skip(&name(), NO_RUNC);
            return Ok(());
        };
        let place = Place::new()?;
        let engine = Engine::start(["--cgroup", place.path(), "--metrics", "0"])?;
        let address = engine.metrics()?;
        Exposition::get(address)?;
        let before = descriptors(engine.daemon())?;
        for n in 0..scaled(MANY) {
            let id = own(&format!("c{n}"));
            let container = runc.run(&place, &format!("c{n}"), &id)?;
            is_called(&container.path, &id)?;
            let exposition = Exposition::get(address)?;
            ensure!(exposition.text.contains(&format!("container=\"{id}\"")), "{id} has no label");
        }
        let text = try_poll_until(SOON, "the end of the last one", || {
            let text = Exposition::get(address)?.text;
            Ok((!text.contains("container=")).then_some(text))
        })?;
        ensure!(!text.contains(&own("c")), "a name is left: {text}");
        try_poll_until(SOON, "as many descriptors as before", || {
            Ok((descriptors(engine.daemon())? <= before).then_some(()))
        })?;
        ensure!(
            fs::read_dir(place.cgroup().dir())?.flatten().all(|it| !it.path().is_dir()),
            "a cgroup"
        );
        engine.stop().map(drop)
    })
}

#[test]
fn a_rename_of_podmans_is_followed() -> Result<()> {
    live(|| {
        let Some(podman) = Podman::find()? else {
            skip(&name(), NO_PODMAN);
            return Ok(());
        };
        let place = Place::new()?;
        let mut engine = Engine::start(["--cgroup", place.path(), "--metrics", "0"])?;
        let (web, api) = (own("web"), own("api"));
        let pod = podman.run(&place, &web)?;
        let path = pod.path(&place);
        is_called(&path, &web)?;
        podman.tell(&["rename", &web, &api])?;
        is_called(&path, &api)?;
        let exposition = Exposition::get(engine.metrics()?)?;
        exposition.value(&format!(
            "memstock_cgroup_memory_usage_bytes{{cgroup=\"{path}\",container=\"{api}\"}}"
        ))?;
        ensure!(ask(&["show", "--container", &web])?.code() == CGROUP, "it has its old name");
        // Names work without memstock's daemon.
        engine.kill()?;
        is_called(&path, &api)?;
        drop(pod);
        let stopped = ask(&["stop"])?;
        ensure!(stopped.code() == 0, "{stopped:?}");
        Ok(())
    })
}
