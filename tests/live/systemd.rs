//! memstock's package under a real systemd: `systemctl` starts, reloads and stops the unit; it is watched, killed,
//! upgraded and removed; and units have their names and limits.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::systemd::System;
use memstock_tests::{PAGE, live};
use serde_json::Value;

use super::package::root_and_packages;

const MIB: u64 = 1 << 20;
const UNIT: &str = "memstock.service";
const VICTIM: &str = "/system.slice/victim.service";
/// A shorter watchdog: the unit's own would make the test a minute longer.
const WATCHDOG: &str = "[Service]\nWatchdogSec=5\n";

/// A script that allocates so many MiB, and as many again at each SIGUSR1, and then makes a folder. It is in a file,
/// since systemd parses a script in a transient unit's arguments differently after a daemon-reload. It has no huge
/// pages (`PR_SET_THP_DISABLE`): where they are always on, khugepaged may enlarge it while its figures are compared.
const HOLD: &str = "#!/usr/bin/perl
use Config;
syscall($Config{archname} =~ /^x86_64/ ? 157 : 167, 41, 1, 0, 0, 0) == 0 or die 'prctl';
my $size = shift() << 20;
my @memory;
sub more { push @memory, 'x' x $size }
$SIG{USR1} = sub { more(); mkdir '/run/held' };
more();
sleep while 1;
";

/// Starts the script with `systemd-run`.
fn hold(system: &System, options: &[&str], mib: &str) -> Result<()> {
    system.tell(&[&["systemd-run"], options, &["/usr/local/bin/hold", mib]].concat()).map(drop)
}

/// A configuration with a limit for the unit `victim`, and with all of a slice.
fn configuration(mib: u64) -> String {
    format!(
        "[[cgroup]]\nunit = 'victim'\nmemory = '{mib}M'\n[[cgroup]]\nunit = 'web.slice'\n\
         memory = '256M'\n"
    )
}

/// Waits until a property of the daemon's unit has this value.
fn is(system: &System, name: &str, value: &str) -> Result<()> {
    let wanted = format!("{name}={value} of {UNIT}");
    try_poll_until(2 * SOON, &wanted, || Ok((system.property(UNIT, name)? == value).then_some(())))
}

/// Waits until the cgroup is tracked and has this limit. Returns its id.
fn is_limited(system: &System, path: &str, mib: u64) -> Result<u64> {
    try_poll_until(SOON, &format!("{mib} MiB for {path}"), || {
        let show = system.show()?;
        let found = show.cgroup(path).ok();
        Ok(found.filter(|it| it.memory.limit == Some(mib * MIB)).map(|it| it.id))
    })
}

/// The victim's figures that must survive a daemon. It is idle meanwhile, but its stock may be drained.
fn figures(system: &System) -> Result<[u64; 10]> {
    let show = system.show()?;
    let it = show.cgroup(VICTIM)?;
    let memory = &it.memory;
    let held = [it.id, memory.limit.unwrap_or(0), memory.needed, memory.watermark, memory.failcnt];
    let counted =
        [it.faults.unwrap_or(0), it.charged_pages, it.from_stock_pages, it.singles, it.forced];
    let mut all = [0; 10];
    all[..5].copy_from_slice(&held);
    all[5..].copy_from_slice(&counted);
    Ok(all)
}

/// memstock's files and cgroups in the system.
fn left(system: &System) -> Result<Vec<PathBuf>> {
    let slice = system.dir().join("system.slice");
    let mut found = Vec::new();
    for dir in [system.file("/sys/fs/bpf"), system.file("/run"), slice, system.dir()] {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("memstock") {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn starts(system: &System) -> Result<()> {
    system.tell(&["dpkg", "--install", "/srv/memstock.deb"])?;
    // Installation neither enables nor starts it.
    is(system, "ActiveState", "inactive")?;
    is(system, "UnitFileState", "disabled")?;
    system.write("/etc/memstock.toml", &configuration(32))?;
    system.write("/etc/systemd/system/memstock.service.d/watchdog.conf", WATCHDOG)?;
    system.tell(&["systemctl", "daemon-reload"])?;
    system.write("/usr/local/bin/hold", HOLD)?;
    system.tell(&["chmod", "755", "/usr/local/bin/hold"])?;
    hold(system, &["--unit=victim"], "6")?;
    system.tell(&["systemctl", "enable", "--now", UNIT])?;
    // `enable --now` returns when the daemon is ready.
    ensure!(system.property(UNIT, "ActiveState")? == "active", "it is not ready");
    ensure!(system.property(UNIT, "Type")? == "notify", "it is not a notify service");
    let status = system.property(UNIT, "StatusText")?;
    ensure!(status.starts_with("cgroups tracked: "), "{status}");
    is_limited(system, VICTIM, 32)?;
    // Its memory is adopted; further memory is charged as it is allocated.
    system.tell(&["systemctl", "kill", "--signal=USR1", "victim"])?;
    try_poll_until(SOON, "more memory", || Ok(system.file("/run/held").exists().then_some(())))?;
    let charged = system.show()?.cgroup(VICTIM)?.charged_pages;
    ensure!(charged >= 6 * MIB / PAGE, "{charged} pages were charged");
    Ok(())
}

/// Ends the daemon in some way, and waits until another one has adopted its engine with all counts. Returns systemd's
/// result, and how long that took.
fn replaced(system: &System, nth: usize, end: &[&str]) -> Result<(String, Duration)> {
    let before = figures(system)?;
    let (daemon, start) = (system.property(UNIT, "MainPID")?, Instant::now());
    system.tell(end)?;
    is(system, "NRestarts", &nth.to_string())?;
    is(system, "ActiveState", "active")?;
    let took = start.elapsed();
    ensure!(system.property(UNIT, "MainPID")? != daemon, "it is the same daemon");
    let journal = try_poll_until(SOON, "the event of an adoption", || {
        let journal = system.journal(UNIT)?;
        Ok((journal.matches("event: engine-adopted").count() == nth).then_some(journal))
    })?;
    let after = figures(system)?;
    ensure!(before == after, "{before:?} became {after:?}: {journal}");
    eprintln!("{}: replaced after {took:.1?}, with {after:?}", end.join(" "));
    let why = journal.lines().rfind(|line| line.contains("Failed with result"));
    Ok((why.context(journal.clone())?.to_owned(), took))
}

fn is_watched_and_survives(system: &System) -> Result<()> {
    let stop = ["systemctl", "kill", "--kill-who=main", "--signal=STOP", UNIT];
    let (why, took) = replaced(system, 1, &stop)?;
    ensure!(why.contains("'watchdog'") && took > Duration::from_secs(2), "{why}, {took:?}");
    let kill = ["systemctl", "kill", "--kill-who=main", "--signal=KILL", UNIT];
    let (why, _) = replaced(system, 2, &kill)?;
    ensure!(why.contains("'signal'"), "{why}");
    Ok(())
}

fn is_reloaded(system: &System) -> Result<()> {
    let daemon = system.property(UNIT, "MainPID")?;
    system.write("/etc/memstock.toml", &configuration(48))?;
    system.tell(&["systemctl", "reload", UNIT])?;
    is_limited(system, VICTIM, 48)?;
    is(system, "ActiveState", "active")?;
    ensure!(system.property(UNIT, "MainPID")? == daemon, "it was restarted");
    // A mistake changes and ends nothing.
    system.write("/etc/memstock.toml", "batch = x\n")?;
    system.tell(&["systemctl", "reload", UNIT])?;
    try_poll_until(SOON, "the refusal", || {
        Ok(system.journal(UNIT)?.contains("event: config-refused").then_some(()))
    })?;
    is(system, "ActiveState", "active")?;
    is_limited(system, VICTIM, 48)?;
    system.write("/etc/memstock.toml", &configuration(48))
}

/// Whoever restarts a service, its limit returns in its new cgroup, and holds there.
fn limits_return(system: &System) -> Result<()> {
    let before = is_limited(system, VICTIM, 48)?;
    let start = Instant::now();
    system.tell(&["systemctl", "restart", "victim"])?;
    try_poll_until(SOON, "another cgroup", || {
        let id = is_limited(system, VICTIM, 48)?;
        Ok((id != before).then_some(()))
    })?;
    eprintln!("systemctl restart victim: limited again after {:.1?}", start.elapsed());
    system.tell(&["systemctl", "stop", "victim"])?;

    // It needs more than its limit, and systemd restarts it each time.
    hold(system, &["--unit=victim", "--property=Restart=on-failure"], "64")?;
    let killed = "event: oom-kill";
    try_poll_until(2 * SOON, "two more starts", || {
        let restarts: u32 = system.property("victim", "NRestarts")?.parse()?;
        Ok((restarts >= 2).then_some(()))
    })?;
    let (own, journal) = (system.journal("victim")?, system.journal(UNIT)?);
    ensure!(
        own.contains("status=9/KILL") && journal.matches(killed).count() >= 2,
        "{own}\n{journal}"
    );
    eprintln!("started {} times, and killed at its limit", journal.matches(killed).count());
    system.tell(&["systemctl", "stop", "victim"]).map(drop)
}

/// The names that `memstock show` has for the cgroup.
fn called(system: &System, path: &str) -> Result<Value> {
    let show: Value = serde_json::from_str(&system.tell(&["memstock", "show", "--json"])?)?;
    let all = show["cgroups"].as_array().context("no cgroups")?;
    let found = all.iter().find(|cgroup| cgroup["path"] == path);
    Ok(found.map(|cgroup| cgroup["name"].clone()).unwrap_or_default())
}

fn units_have_names(system: &System) -> Result<()> {
    hold(system, &["--slice=web", "--unit=api"], "1")?;
    hold(system, &["--slice=web-batch", "--unit=job@3"], "1")?;
    let scope =
        ["--slice=web", "--scope", "--unit=shell", "sh", "-c", "sleep 600 > /dev/null 2>&1 &"];
    system.tell(&[&["systemd-run"], &scope[..]].concat())?;
    for (path, name) in [
        ("/web.slice", "web.slice"),
        ("/web.slice/api.service", "api.service"),
        ("/web.slice/shell.scope", "shell.scope"),
        ("/web.slice/web-batch.slice", "web-batch.slice"),
        ("/web.slice/web-batch.slice/job@3.service", "job@3.service"),
    ] {
        try_poll_until(SOON, &format!("{path} to be called {name}"), || {
            let found = called(system, path)?;
            Ok((found["kind"] == "unit" && found["name"] == name).then_some(()))
        })?;
    }
    let only = system.tell(&["memstock", "show", "--unit", "api"])?;
    ensure!(only.contains("api.service") && !only.contains("job@3"), "{only}");
    let limit = ["memstock", "limit", "--unit", "job@3", "--memory", "64M"];
    system.tell(&limit)?;
    is_limited(system, "/web.slice/web-batch.slice/job@3.service", 64).map(drop)
}

fn stops(system: &System) -> Result<()> {
    system.tell(&["systemctl", "stop", UNIT])?;
    ensure!(system.property(UNIT, "Result")? == "success", "it has failed");
    // The unit's sandbox refused nothing.
    let journal = system.journal(UNIT)?;
    let warned =
        journal.lines().find(|line| line.contains("[WARN") || line.contains("part-failed"));
    ensure!(warned.is_none(), "{warned:?}");
    let left = left(system)?;
    ensure!(left.is_empty(), "a stop leaves {left:?}");
    let asked = system.ask(&["memstock", "show"])?;
    ensure!(asked.code() == 124, "{asked:?}");
    Ok(())
}

/// Upgrade and removal while an engine runs.
fn is_upgraded_and_removed(system: &System) -> Result<()> {
    system.tell(&["systemctl", "start", UNIT])?;
    let daemon = system.property(UNIT, "MainPID")?;
    system.tell(&["dpkg", "--install", "/srv/newer.deb"])?;
    is(system, "ActiveState", "active")?;
    ensure!(system.property(UNIT, "MainPID")? != daemon, "the old one runs");
    is_limited(system, "/web.slice", 256)?;
    system.tell(&["dpkg", "--remove", "memstock"])?;
    let of_engine = left(system)?;
    ensure!(of_engine.is_empty(), "a removal leaves {of_engine:?}");
    ensure!(!system.file("/usr/bin/memstock").exists(), "the program");
    system.tell(&["dpkg", "--purge", "memstock"])?;
    fs::remove_dir_all(system.file("/etc/systemd/system/memstock.service.d"))?;
    system.tell(&["systemctl", "daemon-reload"])?;
    is(system, "LoadState", "not-found")?;
    let wants = system.file("/etc/systemd/system/multi-user.target.wants/memstock.service");
    ensure!(wants.symlink_metadata().is_err(), "it is enabled still");
    // The tracked service is not affected.
    ensure!(system.property("api", "ActiveState")? == "active", "api has ended");
    Ok(())
}

fn it_comes_works_and_goes(system: &System) -> Result<()> {
    starts(system)?;
    is_watched_and_survives(system)?;
    is_reloaded(system)?;
    limits_return(system)?;
    units_have_names(system)?;
    stops(system)?;
    is_upgraded_and_removed(system)
}

#[test]
#[ignore = "long"]
fn it_is_a_service_of_a_real_systemd() -> Result<()> {
    let Some((archive, packages)) = root_and_packages(&["--systemd"])? else { return Ok(()) };
    live(|| {
        let system = System::boot(&archive, packages.path())?;
        let done = it_comes_works_and_goes(&system);
        done.with_context(|| {
            let said = [system.journal(UNIT), system.tell(&["memstock", "events"])];
            said.map(Result::unwrap_or_default).join("\n")
        })
    })
}
