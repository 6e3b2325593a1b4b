//! Owns how a running engine is watched from elsewhere: what `memstock run --metrics` answers over HTTP. Only
//! reads; what is looked at, it is given by `run`, and the text of it is `show`'s.
//!
//! - `server` speaks HTTP and knows nothing of engines: it asks.
//! - `health` says whether the figures can be relied on, and if not, why.
//! - `check` proves conservation now and then, on a thread of its own.
//!
//! Asking goes by a channel to the loop of the daemon, which answers between its duties: one reading for all
//! that ask at once, however many they are.

mod accept;
pub mod check;
pub mod health;
pub mod server;
mod vmstat;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use memstock_common::stat::Stat;
use tokio::sync::{mpsc, oneshot};

use self::check::{Check, Checked};
use self::health::{Health, Reason};
use self::server::{MAX_CLIENTS, Server};
use crate::engine::pins::Pins;
use crate::host::page_size;
use crate::journal::kind::Counts;
use crate::model::Sample;

/// All that is told of an engine at one moment.
#[derive(Debug)]
pub struct Reading {
    /// Its figures, in pages.
    pub sample: Sample,
    /// Bytes in a page.
    pub page_size: u64,
    /// Records that this daemon has published.
    pub records: Counts,
    /// How often this daemon could not register a cgroup.
    pub left_out: u64,
    /// Events that this daemon could not decode.
    pub unreadable: u64,
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
}

/// What the daemon knows of itself beside the engine's figures.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Everything that was lost, skipped or merged.
    pub losses: &'a [(Stat, u64)],
    /// Records that it has published.
    pub records: Counts,
    /// How often it could not register a cgroup.
    pub left_out: u64,
    /// Whether records cannot be written.
    pub stream_fails: bool,
    /// Whether its events are being read, and limits enforced.
    pub is_on_duty: bool,
}

/// The answering side.
pub struct Metrics {
    asks: mpsc::Receiver<Ask>,
    health: Health,
    check: Check,
    unreadable: u64,
    // Stops when it is dropped.
    _server: Server,
}

impl Metrics {
    /// Begins to serve a pinned engine, on the runtime that calls.
    ///
    /// # Errors
    /// The listener is none of the runtime's, or the pins cannot be opened.
    pub fn start(listener: TcpListener, pins: &Pins) -> Result<Self> {
        let (sender, asks) = mpsc::channel(MAX_CLIENTS);
        Ok(Self {
            asks,
            health: Health::default(),
            check: Check::start(pins)?,
            unreadable: 0,
            _server: Server::start(listener, sender)?,
        })
    }

    /// The next question.
    pub async fn asked(&mut self) -> Option<Ask> {
        self.asks.recv().await
    }

    /// An event could not be decoded.
    pub fn unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// Takes note of how things are; to be called every second or so.
    pub fn observe(&mut self, facts: &Facts) {
        self.health.observe(Instant::now(), facts, self.unreadable);
    }

    /// Answers a question, and all that are waiting behind it, which take one sample at the most.
    ///
    /// # Errors
    /// Those of `sample`; who has asked is told that there is no answer.
    pub fn answer(
        &mut self,
        first: Ask,
        facts: &Facts,
        sample: impl FnOnce() -> Result<Sample>,
    ) -> Result<()> {
        self.observe(facts);
        let checked = self.check.found();
        let reasons = self.health.reasons(&checked);
        let mut readers = Vec::new();
        let mut next = Some(first);
        while let Some(ask) = next {
            match ask {
                Ask::Figures(reply) => readers.push(reply),
                // Who does not want to know any more need not be told.
                Ask::Health(reply) => drop(reply.send(reasons.clone())),
            }
            next = self.asks.try_recv().ok();
        }
        if readers.is_empty() {
            return Ok(());
        }
        let reading = Arc::new(Reading {
            sample: sample()?,
            page_size: page_size(),
            records: facts.records,
            left_out: facts.left_out,
            unreadable: self.unreadable,
            checked,
            reasons,
        });
        for reply in readers {
            drop(reply.send(Arc::clone(&reading)));
        }
        Ok(())
    }
}
