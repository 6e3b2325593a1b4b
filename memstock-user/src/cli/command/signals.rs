//! The signals that end a run, or have it read its configuration again.

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

use crate::host;

/// SIGINT, SIGTERM and SIGHUP, caught from before anything is made until all of it is gone.
pub struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    /// None when we were started with it ignored (`nohup`), and it stays so.
    hangup: Option<unix::Signal>,
}

impl Signals {
    /// Starts to catch them. With `reloads`, SIGHUP asks for the configuration to be read again, and is caught
    /// in any case.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn catch(reloads: bool) -> Result<Self> {
        let catch = |kind| unix::signal(kind).context("cannot install a signal handler");
        let is_caught = reloads || !host::is_ignored(libc::SIGHUP);
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: is_caught.then(|| catch(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for one of them.
    pub async fn any(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            () = recv(&mut self.hangup) => Signal::HUP,
        }
    }
}

async fn recv(signal: &mut Option<unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
