//! The state of the daemon: its parts, work in other threads, and what it has reported.

use anyhow::Result;
use memstock_common::stat::Stat;
use tokio::time::Instant;

use crate::cli::command::reload::Changed;
use crate::daemon::parts::Parts;
use crate::daemon::work::Work;
use crate::enforce::swapped::Seen;
use crate::engine::sample::Paths;
use crate::host::SwapChanges;
use crate::host::cgroup::Cgroup;
use crate::host::workload::{Resolver, Workload};
use crate::journal::Journal;
use crate::journal::degraded::Degraded;
use crate::view::metrics::check::{Checked, Proof};
use crate::view::metrics::health::Health;

/// The state of the daemon.
pub struct State<'a> {
    /// Its parts.
    pub parts: Parts<'a>,
    /// Work in other threads.
    pub work: Work<Done>,
    /// Whether new cgroups hold pages that are still to be adopted.
    pub adopts: bool,
    pub(super) health: Health,
    pub(super) checked: Checked,
    /// Tells of swap that is turned on or off.
    pub(super) swap_changes: SwapChanges,
    /// Whether it was, and tasks have not been asked since: it may have been before the daemon started.
    pub(super) has_swap_changed: bool,
    /// Whether pages may have come back from it, and are to be adopted.
    pub(super) adopts_swapped: bool,
    /// When the next check is due.
    pub(super) check_at: Instant,
    /// When new cgroups are looked for again.
    pub(super) look_at: Instant,
    /// Events that could not be decoded.
    pub(super) unreadable: u64,
    /// How often the enforcer killed.
    pub(super) kills: u64,
    /// Losses, as last read.
    pub(super) lost: Vec<(Stat, u64)>,
    /// Publishes why it is degraded.
    pub(super) degraded: Degraded,
    /// Paths of the cgroups, as last read.
    pub(super) paths: Paths,
}

impl<'a> State<'a> {
    /// A daemon that is well.
    ///
    /// # Errors
    /// The file of the reasons cannot be opened.
    pub fn new(journal: &'a Journal) -> Result<Self> {
        Ok(Self {
            parts: Parts::new(journal),
            work: Work::default(),
            adopts: false,
            health: Health::default(),
            checked: Checked::default(),
            swap_changes: SwapChanges::watch(),
            has_swap_changed: true,
            adopts_swapped: false,
            check_at: Instant::now(),
            look_at: Instant::now(),
            unreadable: 0,
            kills: 0,
            lost: Vec::new(),
            degraded: Degraded::open()?,
            paths: Paths::default(),
        })
    }
}

/// The result of a part's work.
pub enum Done {
    /// What cgroups have in swap; whether pages that came back from it are to be adopted.
    Swapped(Seen, bool),
    /// Pages of removed cgroups belong to their ancestors now.
    Reparented,
    /// The result of a check for drift, if there is one.
    Checked(Option<Proof>),
    /// Pages of new cgroups are adopted.
    Adopted,
    /// Limits were set, or not.
    Limits(Vec<Changed>),
    /// What finds names, and the cgroups that have them now.
    Named(Box<Resolver>, Vec<(Cgroup, Workload)>),
}
