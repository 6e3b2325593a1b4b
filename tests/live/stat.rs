//! `memstock stat`, with an engine of its own and below a running one: its figures match closed forms and the kernel's
//! own, its exit codes are right, and nothing is left behind.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use memstock_tests::cgroup::PREFIX;
use memstock_tests::measured::{self, figure, grew, hog};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::{Finished, Process, memstock};
use memstock_tests::{Engine, PAGE, Resident, Task, TestCgroup, binaries, leftovers, live};
use rustix::process::Signal;
use serde_json::Value;

const SCHEMA: &str = include_str!("../../docs/schema/stat.schema.json");

/// Runs `memstock stat --json` with these arguments, and checks the report against its schema.
fn stat(args: &[&str]) -> Result<(Value, Finished)> {
    let (report, finished) = measured::stat(args)?;
    valid(&report)?;
    Ok((report, finished))
}

fn valid(report: &Value) -> Result<()> {
    let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA)?)?;
    let errors: Vec<_> = schema.iter_errors(report).map(|error| error.to_string()).collect();
    ensure!(errors.is_empty(), "{}: {report:#}", errors.join("; "));
    Ok(())
}

/// Two runs that differ only in the number of pages they touch, so that the program's own cost cancels out.
#[test]
fn figures_keep_closed_forms_and_the_kernels_word() -> Result<()> {
    const MORE: u64 = 16384;
    /// Page tables for them, charged without a fault.
    const TABLES: u64 = MORE / 512;
    /// A program's address is random, and so are some faults at its start: fewer than 20 were seen.
    const START: u64 = 48;
    live(|| {
        let _files = Resident::program(&binaries::workload()?)?;
        for batch in [32, 8] {
            let flag = batch.to_string();
            let few = hog(1000, &["--batch", &flag])?;
            let many = hog(1000 + MORE, &["--batch", &flag])?;
            for report in [&few, &many] {
                valid(report)?;
                ensure!(report["own_engine"] == true && report["batch"] == batch, "{report:#}");
                let is_0 = |name: &str| report["cgroup"][name] == 0;
                ensure!(["singles", "forced", "failcnt"].into_iter().all(is_0), "{report:#}");
                let [peak, end, stranded] = ["/cgroup/peak", "/cgroup/end", "/cgroup/stranded"]
                    .map(|pointer| figure(report, pointer));
                let (peak, end, stranded) = (peak?, end?, stranded?);
                ensure!(peak >= (1000 * PAGE) as f64 && peak >= end, "{report:#}");
                ensure!(end >= stranded, "what is stranded is charged: {report:#}");
                // A stock and an uncharge batch on each CPU.
                let cpus = fs::read_to_string("/proc/cpuinfo")?.matches("\nprocessor").count() + 1;
                let room = 2 * batch * PAGE * u64::try_from(cpus)?;
                ensure!(stranded <= room as f64, "{room} bytes of room: {report:#}");
                let [charged, from_stock, needed] =
                    ["/cgroup/charged_pages", "/cgroup/from_stock_pages", "/cgroup/needed_peak"]
                        .map(|pointer| figure(report, pointer));
                ensure!(charged? >= from_stock? && needed? <= peak, "{report:#}");
            }
            if !few["cgroup"]["faults"].is_null() {
                grew(&few, &many, "/cgroup/faults", MORE, START)?;
            }
            grew(&few, &many, "/cgroup/charged_pages", MORE + TABLES, START)?;
            grew(
                &few,
                &many,
                "/cgroup/needed_peak",
                (MORE + TABLES) * PAGE,
                (2 * batch + START) * PAGE,
            )?;
            // One batch more or less in flight.
            grew(&few, &many, "/cgroup/peak", (MORE + TABLES) * PAGE, (2 * batch + START) * PAGE)?;
            // Each page is charged once and uncharged once, in batches.
            let batches = (MORE + TABLES) / batch;
            let tolerance = START / batch + batches / 50 + 4;
            grew(&few, &many, "/engine/charges", batches, tolerance)?;
            grew(&few, &many, "/engine/refills", batches, tolerance)?;
            grew(&few, &many, "/engine/uncharges", batches, tolerance)?;
            grew(&few, &many, "/engine/shared_operations", 2 * batches, 2 * tolerance)?;
            let rate = figure(&many, "/cgroup/hit_rate")?;
            let expected = 100.0 - 100.0 / batch as f64;
            ensure!((rate - expected).abs() < 1.0, "about {expected} %: {many:#}");
            // The kernel's count of resident pages is off by up to 64 per CPU, and does not include page tables.
            let max_rss = figure(&many, "/process/max_rss")?;
            ensure!(max_rss >= ((1000 + MORE) * PAGE - 128 * PAGE) as f64, "{many:#}");
            let peak = figure(&many, "/cgroup/peak")?;
            // It includes file pages, which were in memory before and are not charged here.
            ensure!((peak - max_rss).abs() < (2048 * PAGE) as f64, "{peak}: {many:#}");
            ensure!(figure(&many, "/process/wall_time")? > 0.0, "{many:#}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "long"]
fn the_exit_code_and_the_output_are_commands() -> Result<()> {
    live(|| {
        for (script, code) in [
            ("echo out; echo err >&2", 0),
            ("echo out; exit 7", 7),
            ("echo out; kill -KILL $$", 128 + 9),
            // What COMMAND leaves running is killed with the cgroup.
            ("echo out; sleep 600 >/dev/null & exit 3", 3),
        ] {
            let finished = memstock(["stat", "--", "sh", "-c", script])?.finish(SOON)?;
            ensure!(finished.code() == code, "{script} is {code}: {finished:?}");
            ensure!(finished.stdout == "out\n", "{finished:?}");
            for word in ["peak", "faults", "shared_operations", "wall_time", "an engine of its own"]
            {
                ensure!(finished.stderr.contains(word), "no {word}: {finished:?}");
            }
            ensure!(finished.stderr.contains("err\n") == (code == 0), "{finished:?}");
            leftovers::none().context(script)?;
            let (report, _) = stat(&["--", "sh", "-c", script])?;
            ensure!(report["exit_code"] == code && report["runs"] == 1, "{report:#}");
        }
        // JSON on standard error is one document.
        let finished = memstock(["stat", "--json", "--", "true"])?.finish(SOON)?;
        valid(&serde_json::from_str(&finished.stderr).context(finished.stderr.clone())?)?;
        ensure!(finished.code() == 0 && finished.stdout.is_empty(), "{finished:?}");
        Ok(())
    })
}

/// Checks that a command is refused with one line and changes nothing.
fn refused(args: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let before = leftovers::find()?;
    let finished = memstock([&["stat"], args].concat())?.finish(SOON)?;
    ensure!(finished.code() == code, "{args:?} is {code}: {finished:?}");
    ensure!(finished.stderr.lines().count() == 1 && finished.stdout.is_empty(), "{finished:?}");
    for word in words {
        ensure!(finished.stderr.contains(word), "no {word}: {finished:?}");
    }
    let after = leftovers::find()?;
    ensure!(before == after, "{args:?}: left {after:?}, found {before:?}");
    Ok(())
}

#[test]
fn what_cannot_be_measured_is_refused() -> Result<()> {
    live(|| {
        let folder = tempfile::tempdir()?;
        let report = folder.path().join("report");
        let output = report.to_str().context("a path that is not UTF-8")?;
        refused(&["--output", output, "--", "memstock-no-such"], 127, &["not found"])?;
        ensure!(!report.exists(), "a report of nothing");
        refused(&["--", "/etc/passwd"], 126, &["/etc/passwd"])?;
        let missing = format!("{output}/no/such");
        refused(&["--output", &missing, "--", "true"], 125, &["cannot write", &missing])?;
        let cgroup = format!("/{PREFIX}no-such");
        refused(&["--cgroup", &cgroup, "--", "true"], 122, &[&cgroup, "mkdir"])?;
        refused(&["--repeat", "0", "--", "true"], 2, &["--repeat"])?;
        refused(&["--batch", "0", "--", "true"], 2, &["--batch"])?;
        refused(&[], 2, &["COMMAND"])
    })
}

#[test]
fn runs_are_repeated_until_one_fails() -> Result<()> {
    live(|| {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("runs");
        let file = file.to_str().context("a path that is not UTF-8")?;
        let script = format!("echo x >> {file}; test $(wc -l < {file}) -lt 5");
        let run = ["--repeat", "3", "--", "sh", "-c", &script];
        let (report, finished) = stat(&run)?;
        ensure!(finished.code() == 0 && report["runs"] == 3, "{report:#}");
        ensure!(figure(&report, "/stddev/process/wall_time")? > 0.0, "{report:#}");
        ensure!(fs::read_to_string(file)?.lines().count() == 3, "not three runs");
        // The fifth run in all is the second of these.
        let (report, finished) = stat(&run)?;
        ensure!(finished.code() == 1 && report["runs"] == 2, "{report:#}");
        ensure!(report["exit_code"] == 1, "{report:#}");
        leftovers::none()
    })
}

/// A limit has to be enough for each run, so the limits that are named go by the largest.
#[test]
fn limits_are_those_of_the_largest_run() -> Result<()> {
    live(|| {
        let folder = tempfile::tempdir()?;
        let script = format!(
            "cd {}; if [ -e run ]; then n=10; else n=60; : >run; fi; head -c ${{n}}M /dev/zero | tail -c ${{n}}M >/dev/null",
            folder.path().display()
        );
        let finished =
            memstock(["stat", "--repeat", "2", "--", "sh", "-c", &script])?.finish(3 * SOON)?;
        let limits = finished.stderr.lines().find(|line| line.starts_with("a limit fits at "));
        let fits = limits.and_then(|line| line.split_whitespace().nth(4)?.strip_suffix("MiB"));
        let fits: f64 = fits.with_context(|| format!("{finished:?}"))?.parse()?;
        ensure!(fits > 60.0, "{finished:?}");
        Ok(())
    })
}

/// Starts `memstock stat` with a shell that sets this trap, prints `up` and loops for ever. Waits for `up`.
fn up(trap: &str) -> Result<Process> {
    let script = format!("{trap}; echo up; while :; do sleep 0.02; done");
    let stat = memstock(["stat", "--", "sh", "-c", &script])?.start()?;
    try_poll_until(SOON, "COMMAND", || Ok((stat.stdout()? == "up\n").then_some(())))?;
    Ok(stat)
}

#[test]
#[ignore = "long"]
fn signals_reach_command_and_the_report_comes() -> Result<()> {
    live(|| {
        for (trap, signal, code) in [
            ("trap 'exit 5' INT", Signal::INT, 5),
            ("trap 'exit 6' TERM", Signal::TERM, 6),
            ("true", Signal::INT, 128 + 2),
            ("true", Signal::TERM, 128 + 15),
            ("trap '' TERM", Signal::TERM, 128 + 9),
        ] {
            let mut stat = up(trap)?;
            stat.signal(signal)?;
            let finished = stat.wait(SOON)?;
            ensure!(finished.code() == code, "{trap} {signal:?} is {code}: {finished:?}");
            ensure!(finished.stderr.contains("shared_operations"), "no report: {finished:?}");
            leftovers::none().context(trap)?;
        }
        Ok(())
    })
}

#[test]
fn below_a_running_engine_the_figures_are_the_cgroups_own() -> Result<()> {
    const MORE: u64 = 4096;
    live(|| {
        let (tracked, other) = (TestCgroup::new()?, TestCgroup::new()?);
        let mut engine = Engine::start(["--cgroup", tracked.path()])?;
        refused(&["--", "true"], 123, &["running", "--cgroup", "memstock stop"])?;
        refused(&["--cgroup", other.path(), "--", "true"], 123, &["running", other.path()])?;
        let below = ["--cgroup", tracked.path()];
        refused(&[&below[..], &["--batch", "8", "--", "true"]].concat(), 123, &["--batch"])?;
        refused(&[&below[..], &["--", "memstock-no-such"]].concat(), 127, &["not found"])?;
        refused(&["--cgroup", "/no/such", "--", "true"], 122, &["/no/such"])?;

        // Meanwhile another task of the engine is busy on the other CPU.
        let mut task = Task::start(&tracked, Some(0))?;
        task.touch(1000)?;
        let few = hog(1000, &below)?;
        task.touch(2000)?;
        let many = hog(1000 + MORE, &below)?;
        for report in [&few, &many] {
            let path = report["cgroup_path"].as_str().unwrap_or_default();
            ensure!(path.starts_with(&format!("{}/memstock-", tracked.path())), "{report:#}");
            ensure!(report["own_engine"] == false, "{report:#}");
            // The engine's figures are those of all cgroups. Each charge is a batch of 32; what the start freed and
            // took again from a stock, less than half, needs no charge.
            let own = figure(report, "/cgroup/charged_pages")? / 32.0;
            ensure!(figure(report, "/engine/charges")? >= own / 2.0, "{report:#}");
        }
        if !few["cgroup"]["faults"].is_null() {
            grew(&few, &many, "/cgroup/faults", MORE, 48)?;
        }
        grew(&few, &many, "/cgroup/peak", (MORE + MORE / 512) * PAGE, 112 * PAGE)?;
        ensure!(tracked.dir().read_dir()?.flatten().all(|entry| !entry.path().is_dir()), "left");
        engine.show()?.cgroup(tracked.path())?;

        // Without a daemon to track the new cgroup, it is refused.
        engine.kill()?;
        refused(&[&below[..], &["--", "true"]].concat(), 123, &["daemon died", "memstock stop"])?;
        drop(engine);
        Ok(())
    })
}

/// If two start at once, one gets the engine and the other is refused.
#[test]
fn the_second_of_two_is_refused() -> Result<()> {
    live(|| {
        let mut first = up("true")?;
        refused(&["--", "true"], 123, &["running"])?;
        first.signal(Signal::INT)?;
        ensure!(first.wait(SOON)?.code() == 128 + 2, "the first one");
        leftovers::none()
    })
}

/// In a cgroup below an existing one, which stays.
#[test]
fn an_engine_of_its_own_below_a_cgroup() -> Result<()> {
    live(|| {
        let above = TestCgroup::new()?;
        let dir = above.dir().display().to_string();
        for path in [above.path(), &dir] {
            let (report, finished) =
                stat(&["--cgroup", path, "--", "grep", "^0::", "/proc/self/cgroup"])?;
            let cgroup = report["cgroup_path"].as_str().unwrap_or_default();
            ensure!(cgroup.starts_with(&format!("{}/memstock-", above.path())), "{report:#}");
            ensure!(finished.stdout == format!("0::{cgroup}\n"), "{finished:?}");
            ensure!(!Path::new(&format!("{dir}/{cgroup}")).exists(), "it is left");
        }
        ensure!(above.dir().exists(), "somebody else's cgroup was removed");
        Ok(())
    })
}
