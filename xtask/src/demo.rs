//! The demonstration on a terminal: `memstock run` goes on behind `memstock top`, and what it says in the end is shown
//! when that has ended.

use std::ffi::OsString;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::exec;

/// Until there is something to look at.
const SOON: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// One a second.
const SAMPLES: &str = "9";
/// With what the summary begins that `memstock run` ends with.
const SUMMARY: &str = "page faults ";

/// Runs `memstock run` with these arguments, and looks at it.
pub fn in_place(memstock: impl Fn() -> Command, args: &[OsString]) -> Result<()> {
    let mut run = memstock();
    run.arg("run").args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = Running(run.spawn().context("cannot start memstock")?);
    let mut stderr = run.0.stderr.take().context("a child without its output")?;
    let said = thread::spawn(move || {
        let mut said = Vec::new();
        // What came until then is worth showing.
        let _ = stderr.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    if run.has_begun(&memstock)? {
        exec::stream(memstock().args(["top", "--iterations", SAMPLES]))?;
        // Whoever left the view early has seen enough.
        kill_process(Pid::from_child(&run.0), Signal::INT).context("ending memstock run")?;
    }
    let status = run.0.wait().context("waiting for memstock run")?;
    let said = said.join().map_err(|_| anyhow!("what memstock said was not read"))?;
    let summary = said.find(SUMMARY).filter(|_| status.success());
    eprint!("{}", summary.map_or(&*said, |at| &said[at..]));
    if status.success() { Ok(()) } else { bail!("memstock run ended with {status}") }
}

/// Ended, at the latest, when it is dropped.
struct Running(Child);

impl Running {
    /// Waits until there is an engine to look at; false if there will be none.
    fn has_begun(&mut self, memstock: impl Fn() -> Command) -> Result<bool> {
        let end = Instant::now() + SOON;
        while self.0.try_wait().context("waiting for memstock run")?.is_none() {
            let mut show = memstock();
            show.arg("show").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if show.status().is_ok_and(|status| status.success()) {
                return Ok(true);
            }
            if Instant::now() > end {
                bail!("memstock run has nothing to show after {} s", SOON.as_secs());
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
