//! How the daemon fares: its parts, what is under way beside its loop, and what it has told of that.

use anyhow::Result;
use memstock_common::stat::Stat;
use tokio::time::Instant;

use crate::cli::command::reload::Changed;
use crate::daemon::parts::Parts;
use crate::daemon::work::Work;
use crate::host::cgroup::Cgroup;
use crate::host::workload::{Resolver, Workload};
use crate::journal::Journal;
use crate::journal::degraded::Degraded;
use crate::view::metrics::check::{Checked, Proof};
use crate::view::metrics::health::Health;

/// How the daemon fares.
pub struct State<'a> {
    /// Its parts.
    pub parts: Parts<'a>,
    /// What is under way beside the loop.
    pub work: Work<Done>,
    /// Whether new cgroups hold something that is not charged yet.
    pub adopts: bool,
    pub(super) health: Health,
    pub(super) checked: Checked,
    /// When the next check is due.
    pub(super) check_at: Instant,
    /// When cgroups that were made are looked for again.
    pub(super) look_at: Instant,
    /// Events that could not be decoded.
    pub(super) unreadable: u64,
    /// How often the enforcer killed.
    pub(super) kills: u64,
    /// What was lost, as of the last time that it could be read.
    pub(super) lost: Vec<(Stat, u64)>,
    /// Says why it is degraded.
    pub(super) degraded: Degraded,
}

impl<'a> State<'a> {
    /// All is well.
    ///
    /// # Errors
    /// That cannot be said.
    pub fn new(journal: &'a Journal) -> Result<Self> {
        Ok(Self {
            parts: Parts::new(journal),
            work: Work::default(),
            adopts: false,
            health: Health::default(),
            checked: Checked::default(),
            check_at: Instant::now(),
            look_at: Instant::now(),
            unreadable: 0,
            kills: 0,
            lost: Vec::new(),
            degraded: Degraded::open()?,
        })
    }
}

/// What came of the work of a part.
pub enum Done {
    /// Pages in swap, by cgroup id.
    Swapped(Vec<(u64, u64)>),
    /// Pages of removed cgroups are those of the cgroups above.
    Inherited,
    /// What was proved, if anything.
    Checked(Option<Proof>),
    /// What new cgroups held is charged.
    Adopted,
    /// Limits were set, or not.
    Limits(Vec<Changed>),
    /// The cgroups that have names now, and who found them out.
    Named(Box<Resolver>, Vec<(Cgroup, Workload)>),
}
