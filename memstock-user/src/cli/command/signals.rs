//! The signals that end a run or make it reload its configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use tokio::signal::unix::{self, SignalKind};

use crate::host;

/// SIGINT, SIGQUIT, SIGTERM and SIGHUP, caught before anything is made until all of it is gone.
pub struct Signals {
    interrupt: unix::Signal,
    /// Ctrl-\ on a terminal; as `hangup`.
    quit: Option<unix::Signal>,
    terminate: unix::Signal,
    /// None if it was ignored when we were started (`nohup`): it stays ignored.
    hangup: Option<unix::Signal>,
}

impl Signals {
    /// Starts to catch them. With `reloads`, SIGHUP asks for a reload and is always caught.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn catch(reloads: bool) -> Result<Self> {
        let catch = |kind| unix::signal(kind).context("cannot install a signal handler");
        let is_caught = reloads || !host::is_ignored(libc::SIGHUP);
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            quit: (!host::is_ignored(libc::SIGQUIT))
                .then(|| catch(SignalKind::quit()))
                .transpose()?,
            terminate: catch(SignalKind::terminate())?,
            hangup: is_caught.then(|| catch(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for one of them.
    pub async fn any(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            () = recv(&mut self.quit) => Signal::QUIT,
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

/// For verbs that only read: SIGINT and SIGTERM exit with success, even while the verb waits for a full pipe.
///
/// # Errors
/// The handlers cannot be installed.
pub fn end_well_when_interrupted() -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, 0, Arc::new(AtomicBool::new(true)))
            .context("cannot install a signal handler")?;
    }
    Ok(())
}
