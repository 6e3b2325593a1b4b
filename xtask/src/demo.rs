//! The demonstration on a terminal: `memstock run` in the background, `memstock top` on the screen, and the summary of
//! `run` at the end.

use std::ffi::OsString;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::exec;

/// How long to wait until the engine can be shown.
const SOON: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// Samples that `top` shows, one a second.
const SAMPLES: &str = "9";
/// The beginning of the summary that `memstock run` prints at its end.
const SUMMARY: &str = "page faults ";

/// Runs `memstock run` with these arguments, and `memstock top` beside it.
pub fn in_place(memstock: impl Fn() -> Command, args: &[OsString]) -> Result<()> {
    let mut run = memstock();
    run.arg("run").args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = Running(run.spawn().context("cannot start memstock")?);
    let mut stderr = run.0.stderr.take().context("a child without its output")?;
    let said = thread::spawn(move || {
        let mut said = Vec::new();
        // After an error, show what was read until then.
        let _ = stderr.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    if run.has_begun(&memstock)? {
        exec::stream(memstock().args(["top", "--iterations", SAMPLES]))?;
        // The view has ended, perhaps early: the run is no longer needed.
        kill_process(Pid::from_child(&run.0), Signal::INT).context("ending memstock run")?;
    }
    let status = run.0.wait().context("waiting for memstock run")?;
    let said = said.join().map_err(|_| anyhow!("cannot read what memstock printed"))?;
    let summary = said.find(SUMMARY).filter(|_| status.success());
    eprint!("{}", summary.map_or(&*said, |at| &said[at..]));
    if status.success() { Ok(()) } else { bail!("memstock run ended with {status}") }
}

/// `memstock run`; terminated when dropped, if it has not ended.
struct Running(Child);

impl Running {
    /// Waits until the engine can be shown; false if the run ended before.
    fn has_begun(&mut self, memstock: impl Fn() -> Command) -> Result<bool> {
        let end = Instant::now() + SOON;
        while self.0.try_wait().context("waiting for memstock run")?.is_none() {
            let mut show = memstock();
            show.arg("show").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if show.status().is_ok_and(|status| status.success()) {
                return Ok(true);
            }
            if Instant::now() > end {
                bail!("memstock run has started no engine in {} s", SOON.as_secs());
            }
            thread::sleep(LOOK);
        }
        Ok(false)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            let _ = self.0.wait();
        }
    }
}
