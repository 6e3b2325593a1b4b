//! Limits belong to paths: a cgroup that is removed and made again gets them back, whoever set them and whichever
//! daemon runs by then. A threaded cgroup has none.

use std::fs;

use anyhow::{Context, Result, ensure};
use memstock_tests::config::{ConfigFile, entry, limits};
use memstock_tests::hog::{HogBuilder, size};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::{Engine, PAGE, TestCgroup, live};
use rustix::process::Signal;

/// The limit in most tests, in pages.
const LIMIT: u64 = 4096;

/// Waits until the cgroup is tracked.
fn is_tracked(engine: &Engine, cgroup: &TestCgroup) -> Result<()> {
    try_poll_until(SOON, "the cgroup to be tracked", || {
        Ok(engine.show()?.cgroup(cgroup.path()).is_ok().then_some(()))
    })
}

/// Checks that a restarted service is killed at its previous limit.
fn is_limited(engine: &Engine, cgroup: &TestCgroup) -> Result<()> {
    is_tracked(engine, cgroup)?;
    let limit = limits(engine, cgroup)?[0];
    ensure!(limit == Some(LIMIT * PAGE), "{}: {limit:?}", cgroup.path());
    HogBuilder::pages(2 * LIMIT).start(cgroup)?.was_killed()
}

fn set(cgroup: &TestCgroup, nr_pages: u64) -> Result<()> {
    let set = memstock(["limit", cgroup.path(), "--memory", &size(nr_pages)])?.finish(SOON)?;
    ensure!(set.code() == 0, "{set:?}");
    Ok(())
}

/// A restarted service that a configuration names, also after its limit was changed by hand and by a reload.
#[test]
fn a_service_of_the_configuration() -> Result<()> {
    live(|| {
        let [service, other] = [TestCgroup::new()?, TestCgroup::new()?];
        let limited = format!("memory = {}", LIMIT * PAGE);
        let file = ConfigFile::new(entry(&service, &limited) + &entry(&other, ""))?;
        let mut engine = file.start()?;
        let mut service = service;
        is_limited(&engine, &service)?;
        for _ in 0..3 {
            service = service.again()?;
            is_limited(&engine, &service)?;
        }
        set(&service, 2 * LIMIT)?;
        service = service.again()?;
        is_tracked(&engine, &service)?;
        ensure!(limits(&engine, &service)?[0] == Some(2 * LIMIT * PAGE), "what was set last");
        // A reload sets the limit of the file again, which by now is another one.
        let limited = format!("memory = {}", 3 * LIMIT * PAGE);
        file.write(entry(&service, &limited) + &entry(&other, ""))?;
        engine.process().signal(Signal::HUP)?;
        try_poll_until(SOON, "the reload", || {
            Ok((!engine.events_of("config-reloaded")?.is_empty()).then_some(()))
        })?;
        service = service.again()?;
        is_tracked(&engine, &service)?;
        ensure!(limits(&engine, &service)?[0] == Some(3 * LIMIT * PAGE), "what was set last");
        // A cgroup that was named without a limit is tracked again, too.
        let other = other.again()?;
        is_tracked(&engine, &other)?;
        ensure!(limits(&engine, &other)?[0].is_none(), "{:?}", limits(&engine, &other)?);
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// A service that does not exist yet at a start, at a reload, and when a daemon adopts.
#[test]
fn a_service_that_is_yet_to_come() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let limited = format!("memory = {}", LIMIT * PAGE);
        let [first, second, third] = ["first", "second", "third"]
            .map(|name| format!("[[cgroup]]\npath = '{}/{name}/./'\n{limited}\n", top.path()));
        let file = ConfigFile::new(&first)?;
        let mut engine = file.start()?;
        let said = engine.stderr()?;
        ensure!(
            said.contains("/first yet: it is tracked, with its limits, when it is made"),
            "{said}"
        );
        ensure!(engine.show()?.cgroups.is_empty(), "{:?}", engine.show()?);
        let check = memstock(["run", "--config", file.path(), "--check"])?.finish(SOON)?;
        ensure!(check.code() == 0 && check.stdout.contains("/first yet\n"), "{check:?}");
        let service = top.child("first")?;
        is_limited(&engine, &service)?;
        // An ancestor cannot be tracked afterwards.
        ensure!(engine.show()?.cgroup(top.path()).is_err(), "{:?}", engine.show()?);
        // The last one is removed from the file before it exists.
        for (times, text) in
            [(1, [&*first, &second, &third].concat()), (2, [&*first, &second].concat())]
        {
            file.write(text)?;
            engine.process().signal(Signal::HUP)?;
            try_poll_until(SOON, "the reload", || {
                Ok((engine.events_of("config-reloaded")?.len() == times).then_some(()))
            })?;
        }
        is_limited(&engine, &top.child("second")?)?;
        let none = top.child("third")?;
        is_tracked(&engine, &none)?;
        ensure!(limits(&engine, &none)?[0].is_none(), "{:?}", limits(&engine, &none)?);
        drop(none);
        engine.kill()?;
        let service = service.again()?;
        file.write(first + &second + &third)?;
        engine.adopt(["--config", file.path(), "--no-adopt"])?;
        is_limited(&engine, &service)?;
        is_limited(&engine, &top.child("third")?)?;
        engine.stop().map(drop)
    })
}

/// A limit set by hand on a cgroup below a named one, while daemons come and go.
#[test]
fn a_limit_that_was_set_by_hand() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", top.path()])?;
        let service = top.child("a service.d")?;
        is_tracked(&engine, &service)?;
        set(&service, LIMIT)?;
        let service = service.again()?;
        is_limited(&engine, &service)?;
        engine.kill()?;
        let service = service.again()?;
        engine.adopt(["--no-adopt"])?;
        is_limited(&engine, &service)?;
        drop(service);
        engine.kill()?;
        engine.adopt(["--no-adopt"])?;
        let service = top.child("a service.d")?;
        is_limited(&engine, &service)?;
        // A removed limit stays removed.
        let lifted = memstock(["limit", service.path(), "--memory", "max"])?.finish(SOON)?;
        ensure!(lifted.code() == 0, "{lifted:?}");
        let service = service.again()?;
        is_tracked(&engine, &service)?;
        ensure!(limits(&engine, &service)?[0].is_none(), "{:?}", limits(&engine, &service)?);
        engine.stop()?;
        // The limit is forgotten with the engine.
        let engine = Engine::start(["--cgroup", top.path()])?;
        ensure!(limits(&engine, &service)?[0].is_none(), "{:?}", limits(&engine, &service)?);
        engine.stop().map(drop)
    })
}

/// A named cgroup with nothing tracked above it, made again while no daemon ran and no event was kept.
#[test]
fn a_service_that_was_restarted_without_a_daemon() -> Result<()> {
    live(|| {
        let (service, other) = (TestCgroup::new()?, TestCgroup::new()?);
        let mut engine = Engine::limited(LIMIT, &[&service, &other])?;
        engine.kill()?;
        let lost = || Ok::<_, anyhow::Error>(engine.show()?.loss.events_lost);
        let before = lost()?;
        while lost()? == before {
            for _ in 0..1000 {
                let dir = other.dir().join("comes-and-goes");
                fs::create_dir(&dir)?;
                fs::remove_dir(&dir)?;
            }
        }
        let service = service.again()?;
        engine.adopt(["--no-adopt"])?;
        is_limited(&engine, &service)?;
        engine.stop().map(drop)
    })
}

/// Tasks that start right after the cgroup was made cannot keep what they allocated before the limit was set.
#[test]
fn it_is_there_in_no_time() -> Result<()> {
    live(|| {
        let mut service = TestCgroup::new()?;
        let limit = size(LIMIT);
        let engine = Engine::start_adopting(["--cgroup", service.path(), "--limit", &limit])?;
        for time in 0..20 {
            service = service.again()?;
            let mut hog = HogBuilder::pages(2 * LIMIT).start(&service)?;
            hog.was_killed().with_context(|| format!("time {time}"))?;
        }
        engine.stop().map(drop)
    })
}

/// What they allocated before the cgroups were tracked is charged to these then, however late that is.
#[test]
fn what_its_tasks_hold_already_counts() -> Result<()> {
    live(|| {
        let mut services = [TestCgroup::new()?, TestCgroup::new()?];
        let limits = services.each_ref().map(|it| format!("{}={}", it.path(), size(LIMIT)));
        let named = services.iter().zip(&limits);
        let named = named.flat_map(|(it, limit)| ["--cgroup", it.path(), "--limit", limit]);
        let mut engine = Engine::start_adopting(named.collect::<Vec<_>>())?;
        for time in 0..6 {
            // The second half: no daemon at all.
            let dies = time >= 3;
            if dies {
                engine.kill()?;
            } else {
                engine.process().signal(Signal::STOP)?;
            }
            let [one, other] = services;
            services = [one.again()?, other.again()?];
            let mut hogs = Vec::new();
            for service in &services {
                let mut hog = HogBuilder::pages(2 * LIMIT).start(service)?;
                hog.has_all()?;
                hogs.push(hog);
            }
            if dies {
                engine.adopt::<&str>([])?;
            } else {
                engine.process().signal(Signal::CONT)?;
            }
            for hog in &mut hogs {
                hog.was_killed().with_context(|| format!("time {time}"))?;
            }
            engine.audit_at_rest::<&str>(&[])?;
        }
        engine.stop().map(drop)
    })
}

#[test]
fn a_threaded_cgroup_has_no_limit() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let threads = top.child("threads")?;
        fs::write(threads.dir().join("cgroup.type"), "threaded")?;
        let limit = format!("{}={}", threads.path(), size(LIMIT));
        let args = ["run", "--cgroup", top.path(), "--cgroup", threads.path(), "--limit", &limit];
        let says = |stderr: &str| {
            stderr.lines().count() == 1
                && stderr.contains(&format!("{} is a threaded cgroup", threads.path()))
                && stderr.contains(&format!("in {}: limit that", top.path()))
        };
        let refused = memstock(args)?.finish(SOON)?;
        ensure!(refused.code() == 122 && says(&refused.stderr), "{refused:?}");
        let engine = Engine::start(&args[1..5])?;
        let limit = ["limit", threads.path(), "--memory", &size(LIMIT)];
        let refused = memstock(limit)?.finish(SOON)?;
        ensure!(refused.code() == 122 && says(&refused.stderr), "{refused:?}");
        set(&top, LIMIT)?;
        ensure!(limits(&engine, &top)?[0] == Some(LIMIT * PAGE), "the domain can have one");
        ensure!(limits(&engine, &threads)?[0].is_none(), "{:?}", limits(&engine, &threads)?);
        engine.stop().map(drop)
    })
}

/// Each removed service leaves files in memory, which do not take the place of the next one.
#[test]
fn a_service_that_leaves_files() -> Result<()> {
    live(|| {
        let folder = tempfile::tempdir()?;
        let mut service = TestCgroup::new()?;
        let limit = size(LIMIT);
        let args = ["--cgroup", service.path(), "--limit", &limit, "--max-cgroups", "4"];
        let engine = Engine::start(args)?;
        for n in 0..8 {
            let file = folder.path().join(n.to_string());
            HogBuilder::pages(64).file(&file).start(&service)?.has_all()?;
            service = service.again()?;
            is_tracked(&engine, &service).with_context(|| format!("restart {n}"))?;
        }
        is_limited(&engine, &service)?;
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// It is tracked, with its limit, as soon as there is room.
#[test]
fn a_service_that_finds_no_room() -> Result<()> {
    live(|| {
        let [top, service] = [TestCgroup::new()?, TestCgroup::new()?];
        let limit = format!("{}={}", service.path(), size(LIMIT));
        let mut args = ["--cgroup", top.path(), "--cgroup", service.path()].to_vec();
        args.extend(["--limit", &limit, "--max-cgroups", "3"]);
        let engine = Engine::start(args)?;
        let name = service.path()[1..].to_owned();
        drop(service);
        let jobs =
            ["a", "b"].map(|name| top.child(name)).into_iter().collect::<Result<Vec<_>>>()?;
        jobs.iter().try_for_each(|job| is_tracked(&engine, job))?;
        let service = TestCgroup::named(&name)?;
        try_poll_until(SOON, "it to be left out", || {
            Ok(engine.show()?.degraded.iter().any(|why| why.contains("left-out")).then_some(()))
        })?;
        ensure!(engine.show()?.cgroup(service.path()).is_err(), "there is no room");
        drop(jobs);
        is_limited(&engine, &service)?;
        engine.stop().map(drop)
    })
}

/// The events of its removal and its return are lost.
#[test]
fn a_service_of_which_nothing_was_heard() -> Result<()> {
    live(|| {
        let service = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", service.path(), "--limit", &size(LIMIT)])?;
        engine.process().signal(Signal::STOP)?;
        for _ in 0..4000 {
            drop(TestCgroup::new()?);
        }
        let service = service.again()?;
        engine.process().signal(Signal::CONT)?;
        try_poll_until(SOON, "lost events", || {
            Ok((engine.show()?.loss.events_lost > 0).then_some(()))
        })?;
        is_limited(&engine, &service)?;
        engine.stop().map(drop)
    })
}

#[test]
fn the_same_limit_once_more() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        for _ in 0..2 {
            let mut hog = HogBuilder::pages(2 * LIMIT).start(&cgroup)?;
            hog.has_all()?;
            let forced = ["limit", cgroup.path(), "--memory", &size(LIMIT), "--force"];
            ensure!(memstock(forced)?.finish(SOON)?.code() == 0, "the limit is not set");
            hog.was_killed()?;
            let lifted = ["limit", cgroup.path(), "--memory", "max"];
            ensure!(memstock(lifted)?.finish(SOON)?.code() == 0, "the limit is not lifted");
        }
        engine.stop().map(drop)
    })
}
