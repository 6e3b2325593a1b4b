//! The HTTP endpoint of `memstock run --metrics`. Only reads: `run` hands it the figures.
//!
//! - `server` speaks HTTP; what it needs to know, it asks the daemon.
//! - `text` formats a reading.
//! - `health` decides whether the figures can be relied on, and if not, why.
//! - `check` checks conservation.
//! - `names` looks up workload names and memory pressure of cgroups, outside the daemon's loop.
//!
//! The server sends its requests over a channel to the daemon's loop, which answers all waiting ones with one reading.

pub mod check;
pub mod health;
pub mod names;
pub mod server;
pub mod text;
mod vmstat;

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use memstock_common::stat::Stat;
use tokio::sync::{mpsc, oneshot};

use self::check::Checked;
use self::health::Reason;
use self::names::Names;
use self::server::{MAX_CLIENTS, Server};
use crate::daemon::parts::{Errors, Part};
use crate::journal::kind::Counts;
use crate::model::Sample;

/// Everything exported about an engine at one moment.
#[derive(Debug)]
pub struct Reading {
    /// Its figures, in pages.
    pub sample: Sample,
    /// Bytes in a page.
    pub page_size: u64,
    /// Pages in the kernel's own stocks, by the path of each memory cgroup; empty unless requested.
    pub stranded: HashMap<PathBuf, u64>,
    /// Records that this daemon has published.
    pub records: Counts,
    /// How often this daemon could not register a cgroup.
    pub left_out: u64,
    /// Events that this daemon could not decode.
    pub unreadable: u64,
    /// Errors of each part of it.
    pub errors: Errors,
    /// What the checks found.
    pub checked: Checked,
    /// Why it is degraded; empty when it is not.
    pub reasons: Vec<Reason>,
}

/// A request from the server. The client may be gone by the time of the answer.
#[derive(Debug)]
pub enum Question {
    /// For all figures.
    Figures(oneshot::Sender<Arc<Reading>>),
    /// For the reasons why the daemon is degraded.
    Health(oneshot::Sender<Vec<Reason>>),
    /// No request: clients cannot be accepted.
    Failed(anyhow::Error),
}

/// What [`health`] judges: counts of the engine and of the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Everything that was lost, skipped or merged.
    pub losses: &'a [(Stat, u64)],
    /// How often the daemon could not register a cgroup.
    pub left_out: u64,
    /// Events that the daemon could not decode.
    pub unreadable: u64,
    /// Parts of the daemon that fail, and why.
    pub failing: &'a [(Part, String)],
    /// Whether events are read and limits enforced.
    pub is_enforcing: bool,
}

/// The daemon's end: receives requests and answers them.
pub struct Metrics {
    asks: mpsc::Receiver<Question>,
    // Stops when dropped.
    _server: Server,
}

impl Metrics {
    /// Starts serving on the calling runtime; cgroup v2 is mounted at `hierarchy`.
    ///
    /// # Errors
    /// The runtime cannot use the listener.
    pub fn start(listener: TcpListener, hierarchy: &Path) -> Result<Self> {
        let (sender, asks) = mpsc::channel(MAX_CLIENTS);
        let names = Names::new(hierarchy);
        Ok(Self { asks, _server: Server::start(listener, sender, names)? })
    }

    /// Waits for the next request.
    pub async fn asked(&mut self) -> Option<Question> {
        self.asks.recv().await
    }

    /// Answers a request, and all that wait behind it, with at most one reading; returns whether it took one. While
    /// metrics fail, every request takes a reading, to see whether it works again.
    ///
    /// # Errors
    /// Those of `reading`, of which its clients are told, and a reported [`Question::Failed`].
    pub fn answer(
        &mut self,
        first: Question,
        reasons: &[Reason],
        is_failing: bool,
        reading: impl FnOnce() -> Result<Reading>,
    ) -> Result<bool> {
        let (mut readers, mut failed) = (Vec::new(), None);
        let mut next = Some(first);
        while let Some(ask) = next {
            match ask {
                Question::Figures(reply) => readers.push(reply),
                Question::Failed(error) => failed = Some(error),
                // The client may be gone.
                Question::Health(reply) => drop(reply.send(reasons.to_vec())),
            }
            next = self.asks.try_recv().ok();
        }
        let is_asked = !readers.is_empty() || is_failing;
        if is_asked {
            let reading = Arc::new(reading()?);
            for reply in readers {
                drop(reply.send(Arc::clone(&reading)));
            }
        }
        failed.map_or(Ok(is_asked), Err)
    }
}
