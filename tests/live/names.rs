//! Odd names, closed pipes, full disks: each verb gives one clear answer.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use memstock_tests::cgroup::PREFIX;
use memstock_tests::poll::SOON;
use memstock_tests::process::{Finished, memstock};
use memstock_tests::{Engine, TestCgroup, binaries, events, leftovers, live};
use serde_json::Value;

const USAGE: i32 = 2;
const OTHER: i32 = 125;

/// Names of cgroups: all bytes are allowed except `/`, NUL and newline.
fn names() -> Vec<Vec<u8>> {
    vec![
        b"two words  and more".to_vec(),
        b" ".to_vec(),
        b"\x1b[31mred\x1b]0;title\x07\x1b[2J".to_vec(),
        b"tab\treturn\rback\x08del\x7f".to_vec(),
        b"\xff\xfe\x80 not text \xc3".to_vec(),
        // Reads like the next one when it is escaped.
        b"ff\xff".to_vec(),
        b"ff\\xff".to_vec(),
        vec![b'x'; 255],
        // cgroupfs does not enforce NAME_MAX.
        vec![b'y'; 1000],
        vec![0xff; 255],
        b"--json".to_vec(),
        b"-n".to_vec(),
        b"a=b".to_vec(),
        b"key=1M".to_vec(),
        b"\"quoted\" 'twice' `so`".to_vec(),
        b"dev-disk-by\\x2duuid.swap".to_vec(),
        "\u{202e}desrever\u{2066}".into(),
        "zero\u{200b}width\u{feff}".into(),
        "\u{301}mark e\u{301}".into(),
        "漢字🐧".into(),
        b"kind=ended seq=1".to_vec(),
        b"(dying)".to_vec(),
    ]
}

/// A cgroup with an odd name. Removed with its parent.
struct Odd {
    path: OsString,
    id: u64,
}

impl Odd {
    fn make(top: &TestCgroup, name: &[u8]) -> Result<Self> {
        let dir = top.dir().join(OsStr::from_bytes(name));
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        let path = [top.path().as_bytes(), b"/", name].concat();
        // On 64-bit systems a cgroup's id is the inode number of its folder.
        Ok(Self { path: OsString::from_vec(path), id: fs::metadata(&dir)?.ino() })
    }
}

fn with<'a>(args: &[&'a str], more: &[&'a OsStr]) -> Vec<&'a OsStr> {
    args.iter().map(|&arg| OsStr::new(arg)).chain(more.iter().copied()).collect()
}

/// Checks for success, and that nothing is printed that a terminal would interpret or not show.
fn fine(args: &[&OsStr]) -> Result<String> {
    let finished = memstock(args)?.finish(SOON)?;
    ensure!(finished.code() == 0 && finished.stderr.is_empty(), "{args:?}: {finished:?}");
    harmless(&finished.stdout).with_context(|| format!("{args:?}"))?;
    Ok(finished.stdout)
}

fn harmless(text: &str) -> Result<()> {
    let is_bad = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(c, '\u{feff}' | '\u{fffd}')
    };
    ensure!(!text.contains(is_bad), "it would reach the terminal: {text:?}");
    Ok(())
}

/// The path's bytes in a JSON object with `path` and, if that is not exact, `path_hex`.
fn exact(cgroup: &Value) -> Result<Vec<u8>> {
    let Some(hex) = cgroup["path_hex"].as_str() else {
        return Ok(cgroup["path"].as_str().context("no path")?.as_bytes().to_vec());
    };
    let pairs = hex.as_bytes().chunks(2).map(|pair| Ok(std::str::from_utf8(pair)?));
    pairs.map(|pair: Result<_>| Ok(u8::from_str_radix(pair?, 16)?)).collect()
}

fn engine(top: &TestCgroup, odd: &[Odd]) -> Result<Engine> {
    let mut args = vec![OsString::from("--cgroup"), top.path().into()];
    for Odd { path, .. } in odd {
        let limit = [path.as_bytes(), b"=64M"].concat();
        args.extend(["--cgroup".into(), path.clone(), "--limit".into(), OsString::from_vec(limit)]);
    }
    Engine::start(args)
}

fn odd_ones(top: &TestCgroup) -> Result<Vec<Odd>> {
    names().iter().map(|name| Odd::make(top, name)).collect()
}

#[test]
fn each_name_has_its_row() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let odd = odd_ones(&top)?;
        let engine = engine(&top, &odd)?;

        for verb in ["show", "audit"] {
            let table = fine(&with(&[verb], &[]))?;
            // Only the table of cgroups has these names: no slot holds pages of any.
            let below = format!("{}/", top.path());
            let rows = table.lines().filter(|line| line.starts_with(&below)).count();
            ensure!(rows == odd.len(), "{verb}: {rows} rows of {}: {table}", odd.len());

            let json: Value = serde_json::from_str(&fine(&with(&[verb, "--json"], &[]))?)?;
            let cgroups = json["cgroups"].as_array().context("no cgroups")?;
            check_names(&odd, cgroups).with_context(|| format!("{verb} --json"))?;
        }
        let show: Value = serde_json::from_str(&fine(&with(&["show", "--json"], &[]))?)?;
        let limits = show["cgroups"].as_array().context("no cgroups")?.iter();
        let limited = limits.filter(|cgroup| cgroup["memory"]["limit"] == 64 << 20).count();
        ensure!(limited == odd.len(), "{limited} limits of {}", odd.len());

        let text = fine(&with(&["events"], &[]))?;
        let added: Vec<_> =
            events::read()?.into_iter().filter(|it| it.kind() == "cgroup-added").collect();
        let lines =
            text.lines().filter(|line| line.starts_with("event: cgroup-added cgroup=")).count();
        ensure!(lines == odd.len() + 1 && added.len() == lines, "{lines} lines: {text}");
        ensure!(text.lines().all(|line| line.starts_with("event: ")), "{text}");
        let json = fine(&with(&["events", "--json"], &[]))?;
        let records = json.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let cgroups: Vec<_> = records.iter().map(|record| record["cgroup"].clone()).collect();
        check_names(&odd, &cgroups).context("events --json")?;
        engine.stop().map(drop)
    })
}

/// Checks that each is listed once, by its id, with the exact bytes of its name.
fn check_names(odd: &[Odd], cgroups: &[Value]) -> Result<()> {
    for Odd { path, id } in odd {
        let with_id: Vec<_> = cgroups.iter().filter(|cgroup| cgroup["id"] == *id).collect();
        ensure!(with_id.len() == 1, "{path:?}: {with_id:?}");
        ensure!(exact(with_id[0])? == path.as_bytes(), "{path:?}: {with_id:?}");
    }
    Ok(())
}

#[test]
fn each_name_can_be_named() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let odd = odd_ones(&top)?;
        let engine = engine(&top, &odd)?;
        for Odd { path, id } in &odd {
            fine(&with(&["drain", "--cgroup"], &[path]))?;
            fine(&with(&["limit", "--memory", "32M"], &[path]))?;
            fine(&with(&["force-empty"], &[path]))?;
            let show: Value = serde_json::from_str(&fine(&with(&["show", "--json"], &[]))?)?;
            let cgroups = show["cgroups"].as_array().context("no cgroups")?;
            let own =
                cgroups.iter().find(|cgroup| cgroup["id"] == *id).context("it is not shown")?;
            ensure!(own["memory"]["limit"] == 32 << 20, "{path:?}: {own}");
            // A cgroup below it that is not tracked.
            let other = [path.as_bytes(), b"/none"].concat();
            let finished = memstock(with(&["drain", "--cgroup"], &[OsStr::from_bytes(&other)]))?;
            check_line(&finished.finish(SOON)?, 122, "no cgroup")?;
        }
        engine.stop()?;
        // Newline is the only byte besides `/` and NUL that no name can have.
        let name = format!("{}/a\nb", top.path());
        check_line(&memstock(["run", "--cgroup", &name])?.finish(SOON)?, 122, top.path())?;
        let made = memstock(["run", "--new", &name, "--", "true"])?;
        check_line(&made.finish(SOON)?, 122, top.path())?;
        Ok(())
    })
}

#[test]
#[ignore = "long"]
fn a_cgroup_with_an_odd_name_is_made_and_removed() -> Result<()> {
    live(|| {
        for name in names().iter().filter(|name| name.len() < 200) {
            let name = OsString::from_vec([PREFIX.as_bytes(), name].concat());
            let finished =
                memstock(with(&["run", "--new"], &[&name, "--".as_ref(), "true".as_ref()]))?;
            let finished = finished.finish(SOON)?;
            ensure!(finished.code() == 0, "{name:?}: {finished:?}");
            harmless(&finished.stderr).with_context(|| format!("{name:?}"))?;
            leftovers::none().with_context(|| format!("{name:?}"))?;
        }
        Ok(())
    })
}

fn check_line(finished: &Finished, code: i32, word: &str) -> Result<()> {
    let Finished { stdout, stderr, .. } = finished;
    ensure!(finished.code() == code && stdout.is_empty(), "{code} expected: {finished:?}");
    ensure!(stderr.lines().count() == 1 && stderr.starts_with("memstock: "), "{finished:?}");
    ensure!(stderr.contains(word), "no {word:?}: {finished:?}");
    harmless(stderr)
}

/// All commands that print something and end, with a running engine that tracks `cgroup`.
fn printing<'a>(cgroup: &'a str, config: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["show"],
        vec!["show", "--json"],
        vec!["drain"],
        vec!["drain", "--json"],
        vec!["audit"],
        vec!["audit", "--json"],
        vec!["events"],
        vec!["events", "--json"],
        vec!["force-empty", cgroup],
        vec!["run", "--config", config, "--check"],
        vec!["--help"],
        vec!["run", "--help"],
        vec!["--version"],
    ]
}

/// Runs a command with this standard output. Returns its exit code and standard error.
fn run_into(args: &[&str], stdout: impl Into<Stdio>) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binaries::memstock()?);
    let done = command.args(args).stdin(Stdio::null()).stdout(stdout).output()?;
    Ok((done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned()))
}

#[test]
#[ignore = "long"]
fn readers_go_away_and_disks_are_full() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("memstock.toml");
        fs::write(&config, format!("[[cgroup]]\npath = '{}'\n", cgroup.path()))?;
        let full = || File::options().write(true).open("/dev/full").context("/dev/full");
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        for args in printing(cgroup.path(), config.to_str().context("a path")?) {
            let (reader, writer) = std::io::pipe()?;
            drop(reader);
            let (code, stderr) = run_into(&args, OwnedFd::from(writer))?;
            ensure!(
                code == Some(0) && stderr.is_empty(),
                "closed pipe: {args:?}: {code:?} {stderr}"
            );

            let (code, stderr) = run_into(&args, full()?)?;
            let is_line = stderr.starts_with("memstock: ") && stderr.lines().count() == 1;
            ensure!(code == Some(OTHER) && is_line, "full disk: {args:?}: {code:?} {stderr}");
            ensure!(stderr.contains("No space left"), "full disk: {args:?}: {stderr}");
        }
        engine.stop()?;
        // Limits matter more than tables: it reports the first failure, goes on, and says at its end that it has not
        // printed.
        let run = ["run", "--seconds", "3", "--cgroup", cgroup.path()];
        let (code, stderr) = run_into(&run, full()?)?;
        let lines: Vec<_> = stderr.lines().collect();
        let [event, error] = lines[..] else { bail!("two lines expected: {stderr}") };
        ensure!(event.starts_with("event: part-failed part=table error=\""), "{event}");
        ensure!(error.starts_with("memstock: ") && error.contains("No space left"), "{error}");
        ensure!(code == Some(OTHER), "{code:?} {stderr}");
        leftovers::pins_and_lock().is_empty().then_some(()).context("an engine is left")
    })
}

#[test]
fn flags_that_are_bad_for_each_verb() -> Result<()> {
    live(|| {
        for (args, word) in [
            (&["run", "--cgroup"][..], "--cgroup"),
            (&["run", "--config"], "--config"),
            (&["run", "--check"], "--config"),
            (&["run", "--observe=yes"], "--observe"),
            (&["run", "--batch", "1", "--batch", "2"], "--batch"),
            (&["run", "--memsw-limit", "1\n2"], "--memsw-limit"),
            (&["run", "stray"], "stray"),
            (&["show", "--jsn"], "--jsn"),
            (&["show", "stray"], "stray"),
            (&["drain", "--cgroup"], "--cgroup"),
            (&["drain", "--cpu", "-1"], "-1"),
            (&["drain", "--repeat", "x"], "--repeat"),
            (&["limit"], "CGROUP"),
            (&["limit", "/a"], "--memory"),
            (&["limit", "/a", "--memory", "1.55G"], "1.55G"),
            (&["limit", "--memory", "1G"], "CGROUP"),
            (&["force-empty"], "CGROUP"),
            (&["force-empty", "/a", "/b"], "/b"),
            (&["audit", "--repair=maybe"], "--repair"),
            (&["audit", "--kernel-cgroup", ""], "--kernel-cgroup"),
            (&["events", "--follow", "--since", "1"], "--since"),
            (&["stop", "--now"], "--now"),
            (&["\u{1b}[31m\u{202e}"], "unrecognized"),
            (&[""], "unrecognized"),
        ] {
            let finished = memstock(args)?.finish(SOON)?;
            check_line(&finished, USAGE, word).with_context(|| format!("{args:?}"))?;
        }
        leftovers::none()
    })
}
