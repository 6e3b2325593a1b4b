//! Records a cgroup while it runs: a thread that looks at the engine a hundred times a second, hears what the programs of
//! `record` tell, and writes. What to record of usage, pages, cache and processes, each file below it owns. Touches
//! nothing that is recorded.

mod cache;
mod charges;
mod flags;
mod header;
mod kernel;
mod lost;
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
    /// The command that is run in it; empty for a cgroup that runs already.
    pub command: Vec<String>,
    /// Whether each charge is recorded.
    pub charges: bool,
}

/// How what is recorded ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending {
    /// Exit code of the command, 128 + signal.
    pub code: Option<i32>,
    /// Bytes that it read from devices.
    pub read_bytes: Option<u64>,
}

/// What was recorded.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How long it was.
    pub at: Duration,
    /// How many processes there were.
    pub tasks: u64,
    /// What was lost, by the name of the loss.
    pub lost: Vec<(String, u64)>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Why it ends before its end, if it does.
    pub failed: Option<String>,
}

/// Records until it is told to end. When it is dropped, the thread writes an end by itself, if the process lives on for
/// that long.
pub struct Recorder {
    ending: Sender<Ending>,
    thread: JoinHandle<Summary>,
    gone: Arc<Notify>,
}

impl Recorder {
    /// Begins to record into `file`.
    ///
    /// # Errors
    /// The kernel refuses the programs, the engine does not track the cgroup, or the file cannot be written.
    pub fn start(pins: &Pins, subject: Subject, file: File) -> Result<Self> {
        let (ending, told) = channel();
        let gone = Arc::new(Notify::new());
        let recording = Recording::begin(pins, subject, file, Arc::clone(&gone))?;
        let thread = Builder::new().name("record".into()).spawn(move || recording.run(&told));
        Ok(Self { ending, thread: thread.context("cannot start a thread")?, gone })
    }

    /// Told when there is nothing more to record: the cgroup or the engine is gone, or the file takes no more.
    pub fn gone(&self) -> Arc<Notify> {
        Arc::clone(&self.gone)
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// The thread has panicked.
    pub fn finish(self, ending: Ending) -> Result<Summary> {
        let Self { ending: told, thread, gone: _ } = self;
        // If nobody hears, the thread has ended, and says why.
        let _ = told.send(ending);
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the recording was cut short by a defect of memstock"))
    }
}
