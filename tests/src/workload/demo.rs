//! A demo for newcomers: two cgroups below its own. `web` has a file in the page cache and churns; `batch` again and
//! again takes much memory and gives it back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::signal;
use crate::cgroup::mount;
use crate::task::enter_dir;

/// Pages of the file: 48 MiB.
const CACHE: u32 = 12 << 10;
/// Pages that `batch` takes: 64 MiB.
const TAKEN: u32 = 16 << 10;
/// How long it holds them, and then does not.
const TURN: Duration = Duration::from_millis(1500);
const LOOK: Duration = Duration::from_millis(20);

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When it cannot make cgroups below its own.
pub fn run() -> Result<()> {
    signal::catch().context("catching signals")?;
    let own = own_dir()?;
    let (web, batch) = (Dir::make(&own, "web")?, Dir::make(&own, "batch")?);
    // On a disk, if there is one.
    let folder = tempfile::tempdir_in("/var/tmp").or_else(|_| tempfile::tempdir());
    let folder = folder.context("a folder for the file")?;
    let file = folder.path().join("file");
    let file = file.to_str().context("a folder with an odd name")?;
    let _cache = Part::start(&web, &["hog", "--file", file, "--pages", &CACHE.to_string()])?;
    let _churn = Part::start(&web, &["churn", "--cpu", "0", "--pages", "256"])?;
    while !signal::caught() {
        let taken = Part::start(&batch, &["hog", "--pages", &TAKEN.to_string()])?;
        rest();
        drop(taken);
        rest();
    }
    Ok(())
}

fn rest() {
    let end = Instant::now() + TURN;
    while !signal::caught() && Instant::now() < end {
        sleep(LOOK);
    }
}

fn own_dir() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(mount()?.join(path.context("not in a cgroup v2")?))
}

/// A cgroup. Removed on `Drop`.
struct Dir(PathBuf);

impl Dir {
    fn make(above: &Path, name: &str) -> Result<Self> {
        let dir = above.join(name);
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // If it fails, whoever made the parent removes it.
        let _ = fs::remove_dir(&self.0);
    }
}

/// A process. Terminated and reaped on `Drop`.
struct Part(Child);

impl Part {
    fn start(dir: &Dir, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("where this program is")?);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null());
        enter_dir(&mut command, &dir.0)?;
        Ok(Self(command.spawn().context("starting a part")?))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is not reaped yet, so the signal cannot reach another process.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}
