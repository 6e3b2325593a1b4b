//! `memstock rehearse` and `recommend` on a recording whose figures can be computed by hand: exit codes, formats,
//! schemas, and files that are no recording. `verify` against the kernel's own limit.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use memstock_tests::poll::SOON;
use memstock_tests::process::{Finished, memstock};
use memstock_tests::{binaries, live};
use serde_json::Value;
use tempfile::TempDir;

use crate::recorded;

const REHEARSE: &str = include_str!("../../docs/schema/rehearse.schema.json");
const RECOMMEND: &str = include_str!("../../docs/schema/recommend.schema.json");

fn run(dir: &Path, line: &str) -> Result<Finished> {
    let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
    words.insert(1, dir.join("memstock.data").display().to_string());
    memstock(words)?.finish(3 * SOON)
}

fn recording() -> Result<TempDir> {
    let dir = TempDir::new()?;
    recorded::write(&dir.path().join("memstock.data"))?;
    Ok(dir)
}

fn valid(finished: &Finished, schema: &str) -> Result<Value> {
    let value: Value =
        serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:?}"))?;
    let schema = jsonschema::validator_for(&serde_json::from_str(schema)?)?;
    let errors: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
    ensure!(errors.is_empty(), "{}: {value:#}", errors.join("; "));
    Ok(value)
}

#[test]
fn the_worst_verdict_is_the_exit_code() -> Result<()> {
    let dir = recording()?;
    for (flags, code, part) in [
        ("", 0, "recommend  MemoryMax="),
        (" --limit 310M", 0, "310.0MiB  fits"),
        (" --limit 250M", 0, "250.0MiB  reclaims"),
        (" --limit 250M --limit 210M", 10, "7.7 %  /usr/lib/cc1 30.0MiB"),
        (" --limit 210M --kernel mglru", 10, "generations"),
        (" --limit 210M --limit 150M", 11, "cc1plus (7), 90.0MiB anonymous, at 5.0 s"),
        (" --limit 150M --swap 80M", 0, "80.0MiB of swap"),
        (" --limit 150M --high", 10, "throttled for"),
    ] {
        let finished = run(dir.path(), &format!("rehearse{flags}"))?;
        ensure!(finished.code() == code && finished.stdout.contains(part), "{flags}: {finished:?}");
        ensure!(finished.stderr.is_empty(), "{finished:?}");
        let json = run(dir.path(), &format!("rehearse --json{flags}"))?;
        let value = valid(&json, REHEARSE)?;
        ensure!(json.code() == code && value["peak"].as_u64() > Some(0), "{json:?}");
    }
    Ok(())
}

#[test]
fn a_recommendation_can_be_pasted() -> Result<()> {
    let dir = recording()?;
    let value = valid(&run(dir.path(), "recommend --format json")?, RECOMMEND)?;
    let [max, high] =
        ["max", "high"].map(|name| value["recommend"][name].as_u64().unwrap_or(0) >> 20);
    // 5 % slower allows 19.5 of 40 MiB to be read again, so 20.5 MiB must fit beside 200 MiB. Of one figure `high` is
    // rounded up to a MiB, and a tenth above it, `max`, to the nearest.
    ensure!((220..=224).contains(&high) && (high * 11 / 10).abs_diff(max) <= 1, "{value:#}");
    for (format, parts) in [
        (
            "systemd",
            [format!("[Service]\nMemoryMax={max}M\nMemoryHigh={high}M\n"), "# memstock".into()],
        ),
        (
            "yaml",
            [
                format!("limits:\n    memory: {max}Mi\n"),
                format!("requests:\n    memory: {high}Mi\n"),
            ],
        ),
        ("table", [format!("MemoryMax={max}M\n"), "because  200.0MiB needed".into()]),
    ] {
        let finished = run(dir.path(), &format!("recommend --format {format}"))?;
        ensure!(parts.iter().all(|part| finished.stdout.contains(part)), "{finished:?}");
    }
    let slower = run(dir.path(), "recommend --format json --slower 50 --margin 0")?;
    let value = valid(&slower, RECOMMEND)?;
    ensure!(value["recommend"]["max"] == 206 << 20, "{value:#}");
    Ok(())
}

#[test]
fn what_is_no_recording_is_one_line() -> Result<()> {
    let dir = recording()?;
    let file = dir.path().join("memstock.data");
    let whole = fs::read(&file)?;
    fs::write(&file, &whole[..whole.len() - 5])?;
    let cut = run(dir.path(), "rehearse")?;
    ensure!(cut.code() == 0 && cut.stdout.contains("the recording was cut off"), "{cut:?}");
    for bytes in [&b""[..], b"no recording at all", &whole[..9]] {
        fs::write(&file, bytes)?;
        let refused = run(dir.path(), "rehearse")?;
        ensure!(refused.code() == 125 && refused.stderr.lines().count() == 1, "{refused:?}");
    }
    fs::remove_file(&file)?;
    for verb in ["rehearse", "recommend", "report --svg /dev/null"] {
        let missing = run(dir.path(), verb)?;
        ensure!(missing.code() == 125 && missing.stderr.lines().count() == 1, "{missing:?}");
    }
    Ok(())
}

/// The recording says that 200 MiB are needed. The programs run need a few MiB, or more than the limit. No swap is
/// used.
#[test]
fn what_happens_stands_beside_what_was_foretold() -> Result<()> {
    live(|| {
        let dir = recording()?;
        let file = dir.path().join("memstock.data").display().to_string();
        let workload = binaries::workload()?.display().to_string();
        let verify = |limit: &str, command: &[&str]| {
            let flags = ["verify", "--limit", limit, &file, "--"];
            memstock(flags.iter().chain(command))?.finish(6 * SOON)
        };
        let lives = verify("310M", &["sh", "-c", "exit 3"])?;
        let nothing = "COMMAND ended with 3: this says nothing about the limit";
        ensure!(lives.code() == 3 && lives.stderr.contains(nothing), "{lives:?}");
        let lives = verify("310M", &["true"])?;
        ensure!(lives.code() == 0 && lives.stderr.contains("as predicted"), "{lives:?}");
        let dies = verify("32M", &[&workload, "hog", "--pages", "16384"])?;
        ensure!(dies.code() == 11 && dies.stderr.contains("1 task\n"), "{dies:?}");
        // More page cache than there is room for.
        let large = tempfile::Builder::new().prefix("memstock-test-").tempfile_in("/var/tmp")?;
        fs::write(large.path(), vec![1; 64 << 20])?;
        large.as_file().sync_all()?;
        rustix::fs::fadvise(large.as_file(), 0, None, rustix::fs::Advice::DontNeed)?;
        let reads = verify("24M", &["cat", large.path().to_str().context("UTF-8")?])?;
        let happened = reads.stderr.lines().find(|line| line.trim_start().starts_with("verdict"));
        ensure!(happened.is_some_and(|line| line.ends_with("reclaims")), "{}", reads.stderr);
        let missing = verify("310M", &["memstock-no-such-command"])?;
        ensure!(missing.code() == 127, "{missing:?}");
        Ok(())
    })
}
