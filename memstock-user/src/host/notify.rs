//! Owns what the service manager is told of the daemon, as in sd_notify(3): that it is ready, reloads, stops,
//! is alive, and what it does. Must not judge whether the daemon is well: who calls does.
//!
//! Without `NOTIFY_SOCKET` in the environment there is no service manager, and nothing is told.

use std::io;
use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// What the service manager says in the environment: to this process, so not to those that it starts.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The service manager that started this process, or none.
#[derive(Debug)]
pub struct Manager {
    /// When the next sign of life is due; none when nobody waits for it.
    due: Option<Interval>,
    /// Whether it was told that it cannot be reached.
    is_deaf: bool,
}

impl Manager {
    /// The one that the environment names. Call it inside a tokio runtime.
    pub fn from_env() -> Self {
        // As sd_watchdog_enabled(3) recommends; an interval of zero would never end.
        let period = watchdog_enabled().map(|timeout| timeout / 2);
        let due = period.filter(|period| *period > Duration::ZERO).map(|period| {
            let mut due = interval(period);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            due
        });
        Self { due, is_deaf: false }
    }

    /// The daemon does what it was started for, or does so again after it reloaded; `status` is for people.
    pub fn ready(&mut self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The daemon begins to read its configuration again, and will say [`ready`](Self::ready).
    pub fn reloading(&mut self) {
        // Since systemd 253 the one needs the other.
        let now = NotifyState::monotonic_usec_now();
        self.tell(&[NotifyState::Reloading].into_iter().chain(now.ok()).collect::<Vec<_>>());
    }

    /// The daemon takes away what it has made.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Returns when a sign of life is due; never, when nobody waits for it.
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

    /// A daemon does its work whether somebody hears of it or not.
    fn tell(&mut self, states: &[NotifyState]) {
        if let Err(error) = notify(states) {
            self.complain(&error);
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !self.is_deaf {
            log::warn!("the service manager (NOTIFY_SOCKET) cannot be told: {error}");
            self.is_deaf = true;
        }
    }
}
