//! Owns how a running engine is watched from elsewhere: what `memstock run --metrics` answers over HTTP. Only
//! reads; what is looked at, it is given by `run`, and the text of it is `show`'s.
//!
//! - `server` speaks HTTP and knows nothing of engines: it asks.
//! - `health` says whether the figures can be relied on, and if not, why.
//! - `check` proves conservation.
//! - `names` finds out what people call the cgroups, beside the loop.
//!
//! Asking goes by a channel to the loop of the daemon, which answers between its duties: one reading for all
//! that ask at once, however many they are.

pub mod check;
pub mod health;
pub mod names;
mod negotiate;
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

/// All that is told of an engine at one moment.
#[derive(Debug)]
pub struct Reading {
    /// Its figures, in pages.
    pub sample: Sample,
    /// Bytes in a page.
    pub page_size: u64,
    /// Pages in the kernel's own stocks, by the path of each memory cgroup; empty unless that is asked for.
    pub stranded: HashMap<PathBuf, u64>,
    /// Records that this daemon has published.
    pub records: Counts,
    /// How often this daemon could not register a cgroup.
    pub left_out: u64,
    /// Events that this daemon could not decode.
    pub unreadable: u64,
    /// Errors of its parts.
    pub errors: Errors,
    /// What the checks found.
    pub checked: Checked,
    /// Why it is degraded; empty when it is not.
    pub reasons: Vec<Reason>,
}

/// A question of the server's. Who asks may be gone by the time of the answer.
#[derive(Debug)]
pub enum Ask {
    /// What are the figures?
    Figures(oneshot::Sender<Arc<Reading>>),
    /// Is it degraded, and why?
    Health(oneshot::Sender<Vec<Reason>>),
    /// Nobody asks: clients cannot be accepted.
    Failed(anyhow::Error),
}

/// What is judged: the daemon's own counts, beside the engine's.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Everything that was lost, skipped or merged.
    pub losses: &'a [(Stat, u64)],
    /// How often it could not register a cgroup.
    pub left_out: u64,
    /// Events that it could not decode.
    pub unreadable: u64,
    /// Parts of it that fail, and why.
    pub failing: &'a [(Part, String)],
    /// Whether its events are being read, and limits enforced.
    pub is_enforcing: bool,
}

/// The answering side.
pub struct Metrics {
    asks: mpsc::Receiver<Ask>,
    // Stops when it is dropped.
    _server: Server,
}

impl Metrics {
    /// Begins to serve, on the runtime that calls; cgroup v2 is mounted at `hierarchy`.
    ///
    /// # Errors
    /// The listener is none of the runtime's.
    pub fn start(listener: TcpListener, hierarchy: &Path) -> Result<Self> {
        let (sender, asks) = mpsc::channel(MAX_CLIENTS);
        let names = Names::new(hierarchy);
        Ok(Self { asks, _server: Server::start(listener, sender, names)? })
    }

    /// The next question.
    pub async fn asked(&mut self) -> Option<Ask> {
        self.asks.recv().await
    }

    /// Answers a question, and all that are waiting behind it, which take one reading at the most; returns whether they
    /// took one. While metrics fail, a reading is tried for whatever is asked.
    ///
    /// # Errors
    /// Those of `reading`; who has asked is told that there is no answer.
    pub fn answer(
        &mut self,
        first: Ask,
        reasons: &[Reason],
        is_failing: bool,
        reading: impl FnOnce() -> Result<Reading>,
    ) -> Result<bool> {
        let (mut readers, mut failed) = (Vec::new(), None);
        let mut next = Some(first);
        while let Some(ask) = next {
            match ask {
                Ask::Figures(reply) => readers.push(reply),
                // Who does not want to know any more need not be told.
                Ask::Failed(error) => failed = Some(error),
                Ask::Health(reply) => drop(reply.send(reasons.to_vec())),
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
