//! Owns the daemon's notifications to the service manager, as in sd_notify(3): ready, reloading, stopping, alive, and a
//! status. Must not judge whether the daemon is well: the caller does.
//!
//! Without `NOTIFY_SOCKET` in the environment there is no service manager, and nothing is sent.

use std::io;
use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Variables that the service manager sets for this process, and that its children must not inherit.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The service manager that started this process, or none.
#[derive(Debug)]
pub struct Manager {
    /// When the next watchdog message is due; none if nobody waits for it.
    due: Option<Interval>,
    /// Whether it was reported that it cannot be reached.
    is_deaf: bool,
}

impl Manager {
    /// The one named in the environment. Call it inside a tokio runtime.
    pub fn from_env() -> Self {
        // Half, as sd_watchdog_enabled(3) recommends; tokio allows no interval of zero.
        let period = watchdog_enabled().map(|timeout| timeout / 2);
        let due = period.filter(|period| *period > Duration::ZERO).map(|period| {
            let mut due = interval(period);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            due
        });
        Self { due, is_deaf: false }
    }

    /// The daemon does its work, or does so again after a reload; `status` is for people.
    pub fn ready(&mut self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The daemon begins to reload its configuration; [`ready`](Self::ready) follows.
    pub fn reloading(&mut self) {
        // systemd 253 and newer require the time as well.
        let now = NotifyState::monotonic_usec_now();
        self.tell(&[NotifyState::Reloading].into_iter().chain(now.ok()).collect::<Vec<_>>());
    }

    /// The daemon is cleaning up.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Returns when a watchdog message is due; never if nobody waits for it.
    pub async fn watchdog_due(&mut self) {
        match &mut self.due {
            Some(due) => drop(due.tick().await),
            None => std::future::pending().await,
        }
    }

    /// The daemon is alive; `status` is for people.
    pub fn alive(&mut self, status: &str) {
        self.tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
    }

    /// An error is only logged: the daemon does its work all the same.
    fn tell(&mut self, states: &[NotifyState]) {
        if let Err(error) = notify(states) {
            self.complain(&error);
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !self.is_deaf {
            log::warn!("cannot notify the service manager (NOTIFY_SOCKET): {error}");
            self.is_deaf = true;
        }
    }
}
