//! Records a cgroup while it runs: a thread that samples the engine a hundred times a second, reads the records of the
//! `record` programs, and writes both to a file. Each file below owns one subject: usage, pages, cache, processes.
//! Nothing here changes what is recorded.

mod cache;
mod charges;
mod flags;
mod header;
mod kernel;
mod limits;
mod lost;
mod readers;
mod stalls;
mod tasks;
mod thread;
mod usage;

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::Notify;

use self::thread::Recording;
use crate::engine::pins::Pins;
use crate::host::cgroup::Cgroup;
use crate::host::workload::Workload;

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The cgroup, with all below it.
    pub cgroup: Cgroup,
    /// What people call it.
    pub name: Option<Workload>,
    /// The command that is run in it; empty for a cgroup that was already running.
    pub command: Vec<String>,
    /// Whether each charge is recorded.
    pub charges: bool,
}

/// How the recorded command ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending {
    /// Exit code of the command; 128 + signal if one killed it.
    pub code: Option<i32>,
    /// Bytes that it read from block devices.
    pub read_bytes: Option<u64>,
}

/// What was recorded.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How long the recording is.
    pub at: Duration,
    /// The number of processes seen.
    pub tasks: u64,
    /// What was lost, by name of the loss.
    pub lost: Vec<(String, u64)>,
    /// Why more may be needed than was seen, a sentence each.
    pub warnings: Vec<String>,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Why the recording ended early, if it did.
    pub failed: Option<String>,
}

/// Records until [`finish`](Self::finish). If it is dropped instead, the thread ends the recording by itself, provided
/// that the process lives long enough.
pub struct Recorder {
    ending: Sender<Ending>,
    thread: JoinHandle<Summary>,
    gone: Arc<Notify>,
}

impl Recorder {
    /// Starts recording into `file`.
    ///
    /// # Errors
    /// The kernel refuses the programs, the engine does not track the cgroup, or the file cannot be written.
    pub fn start(pins: &Pins, subject: Subject, file: File) -> Result<Self> {
        let (ending, endings) = channel();
        let gone = Arc::new(Notify::new());
        let recording = Recording::begin(pins, subject, file, Arc::clone(&gone))?;
        let thread = Builder::new().name("record".into()).spawn(move || recording.run(&endings));
        Ok(Self { ending, thread: thread.context("cannot start a thread")?, gone })
    }

    /// Notified when nothing more can be recorded: the cgroup or the engine is gone, or the file cannot be written.
    pub fn gone(&self) -> Arc<Notify> {
        Arc::clone(&self.gone)
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// The thread has panicked.
    pub fn finish(self, ending: Ending) -> Result<Summary> {
        let Self { ending: endings, thread, gone: _ } = self;
        // If this fails, the thread has already ended, and `join` says why.
        let _ = endings.send(ending);
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the recording was cut short by a bug in memstock"))
    }
}
