//! The examples in the README and in docs/ are right: each memstock command line runs, each `cargo xtask` command line
//! is valid, and each event shown is one that the stream can have.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use memstock::journal::Entry;
use memstock_tests::cgroup::PREFIX;
use memstock_tests::examples::{Block, blocks, documents, substitute, variants};
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, poll_until};
use memstock_tests::process::{Finished, Program};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, KernelCgroup, TestCgroup, binaries, kernel_cgroup, leftovers, live};
use rustix::process::Signal;

use crate::recorded;

/// Command lines that other tests run or skip (`kernel_stock.rs`, `replay.rs`, `containers.rs`, `prometheus.rs`).
const ELSEWHERE: [&str; 7] = [
    "memstock stat --kernel-stock",
    "memstock replay",
    " --container ",
    " --pod ",
    " --unit ",
    " --prometheus ",
    "docker rename ",
];
/// Verbs that need a running engine.
const ASKING: [&str; 8] =
    ["show", "top", "drain", "limit", "force-empty", "audit", "events", "stop"];
/// The cargo that starts xtask.
const CARGO: &str = env!("CARGO");
/// Examples that go on until they are interrupted get this long to fail by themselves.
const LONG: Duration = Duration::from_millis(1500);

/// The cgroups and files that the documents name, made for this test.
struct World {
    a: TestCgroup,
    below: TestCgroup,
    x: TestCgroup,
    kernel: Option<KernelCgroup>,
    jobs: String,
}

impl World {
    fn new() -> Result<Self> {
        let a = TestCgroup::new()?;
        Ok(Self {
            below: a.child("b")?,
            a,
            x: TestCgroup::new()?,
            kernel: KernelCgroup::new()?,
            jobs: format!("{PREFIX}jobs-{}", std::process::id()),
        })
    }

    fn command(&self, example: &str) -> String {
        let kernel = self.kernel.as_ref().map(|kernel| kernel.dir().display().to_string());
        substitute(
            example,
            &[
                ("/a", self.a.path()),
                ("/a/b", self.below.path()),
                ("/system.slice/x", self.x.path()),
                ("/my.slice", self.x.path()),
                ("/x", kernel.as_deref().unwrap_or("/x")),
                ("jobs", &self.jobs),
                ("PATH", self.a.path()),
                ("COMMAND", "true"),
                ("N", "0"),
            ],
        )
    }
}

#[test]
#[ignore = "long"]
fn every_command_line_works() -> Result<()> {
    live(|| {
        let mut ran = BTreeSet::new();
        for document in documents() {
            for block in read(&document)? {
                for example in block.commands() {
                    if ran.insert(example.clone()) {
                        try_out(&example).with_context(|| {
                            format!("{}:{}: {example}", document.display(), block.line)
                        })?;
                    }
                }
            }
        }
        ensure!(ran.len() >= 15, "only {} examples were found", ran.len());
        Ok(())
    })
}

#[test]
fn every_event_is_one() -> Result<()> {
    let mut kinds = BTreeSet::new();
    for document in documents() {
        for block in read(&document)? {
            for event in block.events() {
                let place = || format!("{}:{}: {event}", document.display(), block.line);
                let kind = if event.starts_with('{') {
                    let entry: Entry = serde_json::from_str(event).with_context(place)?;
                    // The example has all fields in order.
                    ensure!(serde_json::to_string(&entry)? == event, "{}", place());
                    continue;
                } else {
                    event.split(' ').nth(1).with_context(place)?.to_owned()
                };
                kinds.insert(kind);
            }
        }
    }
    // The page that documents all kinds.
    let known = fs::read_to_string(events_page()).context("docs/events.md")?;
    for kind in &kinds {
        ensure!(known.contains(&format!("`{kind}`")), "{kind} is shown, and explained nowhere");
    }
    ensure!(kinds.len() >= 4, "only {kinds:?} are shown");
    Ok(())
}

fn events_page() -> std::path::PathBuf {
    documents().into_iter().find(|path| path.ends_with("events.md")).unwrap_or_default()
}

fn read(document: &Path) -> Result<Vec<Block>> {
    let text = fs::read_to_string(document).with_context(|| document.display().to_string())?;
    Ok(blocks(&text))
}

fn try_out(example: &str) -> Result<()> {
    if ELSEWHERE.iter().any(|part| example.contains(part)) {
        return Ok(());
    }
    if let Some(verb) = example.strip_prefix("cargo xtask ") {
        if !Path::new(CARGO).exists() {
            skip(&name(), &format!("{example}: the cargo that built this test is not here"));
            return Ok(());
        }
        return is_a_verb(verb);
    }
    let world = World::new()?;
    if example.contains("--kernel-cgroup") && world.kernel.is_none() {
        skip(&name(), &format!("{example}: {}", kernel_cgroup::ABSENT));
        return Ok(());
    }
    for variant in variants(example) {
        let command = world.command(&variant);
        run(&world, &command).with_context(|| command.clone())?;
        leftovers_but(&world).with_context(|| command)?;
    }
    Ok(())
}

/// Leftovers, without the world itself, which outlives one command line.
fn leftovers_but(world: &World) -> Result<()> {
    let [a, x] = [&world.a, &world.x].map(|cgroup| cgroup.dir().display().to_string());
    let kernel = world.kernel.as_ref().map(|kernel| kernel.dir().display().to_string());
    let mut found = leftovers::find()?;
    found.retain(|path| {
        !path.starts_with(&a) && !path.starts_with(&x) && Some(path) != kernel.as_ref()
    });
    ensure!(found.is_empty(), "it left {}", found.join(", "));
    Ok(())
}

fn run(world: &World, command: &str) -> Result<()> {
    let words: Vec<_> = command.split(' ').collect();
    ensure!(words[0] == "memstock", "who runs {}? Name it in ELSEWHERE", words[0]);
    let asks = words.get(1).is_some_and(|verb| ASKING.contains(verb));
    // A command that adopts needs an engine whose daemon was killed.
    let adopts = command == "memstock run";
    let mut engine = match asks || adopts {
        true => Some(Engine::start(["--cgroup", world.a.path()])?),
        false => None,
    };
    if let Some(engine) = engine.as_mut().filter(|_| adopts) {
        engine.kill()?;
    }
    let finished = start(command, lasts(&words))?;
    // One limit in the documents is meant to be too low, both for a compiler and for the recording made here.
    let code = if words.contains(&"64M") { 11 } else { 0 };
    // A guest has few programs; where this was built, one that is not there is a mistake of the document.
    if !Path::new(CARGO).exists() && finished.stderr.contains("command not found") {
        skip(&name(), &format!("{command}: {}", finished.stderr.trim()));
    } else {
        ensure!(finished.code() == code, "{finished:?}");
    }
    match engine {
        Some(engine) if asks && words[1] != "stop" => engine.stop().map(drop),
        Some(mut engine) => engine.process().wait(SOON).map(drop),
        None => Ok(()),
    }
}

/// Whether the command runs until it is interrupted.
fn lasts(words: &[&str]) -> bool {
    let has = |word| words.contains(&word);
    match words.get(1) {
        Some(&"run") => !has("--") && !has("--check"),
        Some(&"top") => !has("-n"),
        _ => has("--follow") || has("--watch"),
    }
}

/// Runs the command in a shell, as a reader would, with memstock in `PATH`.
fn start(command: &str, lasts: bool) -> Result<Finished> {
    let memstock = binaries::memstock()?;
    let folder = memstock.parent().context("memstock is in no folder")?;
    let path = std::env::var("PATH").unwrap_or_default();
    // A folder for files that it writes, and the recording that it reads.
    let work = tempfile::tempdir()?;
    recorded::write(&work.path().join("memstock.data"))?;
    let mut shell = Command::new("sh");
    shell.current_dir(&work);
    shell.args(["-c", &format!("exec {command}")]);
    shell.env("PATH", format!("{}:{path}", folder.display()));
    let mut process = Program::from(shell).start()?;
    if lasts {
        if poll_until(LONG, "its end", || process.ended().ok().flatten()).is_ok() {
            bail!("it ended: {:?}", process.wait(SOON)?);
        }
        process.signal(Signal::INT)?;
    }
    // A report judges two dozen limits: some 6 s in an unoptimized build on a shared CPU.
    process.finish(3 * SOON)
}

/// Checks only that xtask accepts the arguments: `cargo xtask test` runs this very test, and `run` builds for release.
fn is_a_verb(verb: &str) -> Result<()> {
    let words: Vec<_> = verb.split(' ').take_while(|word| *word != "--").collect();
    let words = match words[..] {
        // Arguments after its name are the benchmark's, which would be built for release.
        ["bench", bench, ..] => {
            let known =
                ["fault", "page", "table1", "limit", "scale", "read", "record", "rehearsal", "all"];
            ensure!(known.contains(&bench), "there is no bench {bench}");
            vec!["bench"]
        }
        _ => words,
    };
    let mut cargo = Command::new(CARGO);
    cargo.args(["run", "--quiet", "--package", "xtask", "--"]).args(words).arg("--help");
    let finished = Program::from(cargo).finish(Duration::from_secs(300))?;
    ensure!(finished.code() == 0, "{finished:?}");
    Ok(())
}
