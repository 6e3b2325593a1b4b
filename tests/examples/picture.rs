//! `cargo xtask picture`: makes the README's picture of `memstock top` from a real run.
//!
//! Four cgroups below one: three with limits, of which one is near its limit and one over it, and one without. The
//! limits are only observed, so that no task is killed and the picture can be taken again.

use std::fs;
use std::path::PathBuf;

use anstyle_svg::Term;
use anyhow::{Context as _, Result};
use clap::Parser;
use memstock_tests::tmux::Terminal;
use memstock_tests::{Engine, Task, TestCgroup, binaries, live};

/// Take the picture of `memstock top`.
#[derive(Parser)]
struct Args {
    /// File to write.
    file: PathBuf,
}

const SIZE: (u16, u16) = (146, 22);
/// Readings before the picture is taken, so that it shows the stocks over time.
const READINGS: usize = 14;
const MIB: u64 = 256;

fn main() -> Result<()> {
    let Args { file } = Args::parse();
    let svg = live(|| picture(&file));
    svg.with_context(|| format!("cannot make {}", file.display()))
}

fn picture(file: &PathBuf) -> Result<()> {
    let root = TestCgroup::named("memstock-demo")?;
    let names = ["web", "api", "database", "batch"];
    let cgroups = names.map(|name| root.child(name));
    let [web, api, database, batch] = cgroups;
    let (web, api, database, batch) = (web?, api?, database?, batch?);
    let limit = |cgroup: &TestCgroup, size: &str| format!("{}={size}", cgroup.path());
    let limits = [limit(&api, "96M"), limit(&batch, "48M"), limit(&web, "512M")];
    let mut args = vec!["--observe", "--cgroup", root.path()];
    for cgroup in [&api, &batch, &web] {
        args.extend(["--cgroup", cgroup.path()]);
    }
    limits.iter().for_each(|limit| args.extend(["--limit", limit]));
    let engine = Engine::start(args)?;
    // `web` and `batch` also map, touch and unmap pages all the time.
    let mut tasks = [
        (Task::start(&database, None)?, 212 * MIB, false),
        (Task::start(&web, Some(0))?, 131 * MIB, true),
        (Task::start(&api, Some(1))?, 88 * MIB, false),
        (Task::start(&batch, Some(1))?, 46 * MIB, true),
    ];
    for (task, nr_pages, churns) in &mut tasks {
        task.touch(*nr_pages)?;
        if *churns {
            task.churn()?;
        }
    }
    let program = binaries::memstock()?;
    let args = ["-d", "0.5"].map(AsRef::as_ref);
    let top = [program.as_os_str(), "top".as_ref()].into_iter().chain(args);
    let top = Terminal::start(SIZE, &[], top)?;
    top.wait_for("something to be seen", |screen| {
        let history = |line: &str| line.chars().filter(|c| ('▁'..='█').contains(c)).count();
        let cpus = screen.lines().skip_while(|line| !line.contains("CPUS"));
        screen.contains("would-enforce") && cpus.map(history).sum::<usize>() > 2 * READINGS
    })?;
    let styled = top.styled()?;
    top.press(&["q"])?;
    top.restored()?;
    drop(tasks);
    engine.stop()?;
    let svg = Term::new().render_svg(styled.trim_end());
    let lines: Vec<_> = svg.lines().map(str::trim_end).collect();
    fs::write(file, lines.join("\n") + "\n").context("cannot write it")
}
