//! Finds what people call the cgroups of records, for readers. A cgroup that is gone keeps the name that it had.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::record::{Cgroup, Entry, Record};
use crate::host::cgroup::CgroupMount;
use crate::host::workload::{Resolver, Workload};

/// Finds names, and remembers them by cgroup id.
#[derive(Default)]
pub struct Names {
    /// `None` if there is no hierarchy, and so no names.
    mount: Option<CgroupMount>,
    resolver: Resolver,
    known: HashMap<u64, Workload>,
    /// Cgroups without a name at the last look.
    unknown: HashSet<u64>,
}

impl Names {
    /// Finds the names of this host.
    pub fn of_host() -> Self {
        Self { mount: CgroupMount::find().ok(), ..Self::default() }
    }

    /// Forgets which names are unknown, to look again: a runtime names its containers only after it has made their
    /// cgroups.
    pub fn look_again(&mut self) {
        self.unknown.clear();
    }

    /// Fills in the known names; returns whether there are any.
    pub fn put(&mut self, entry: &mut Entry) -> bool {
        let mut has_name = false;
        for cgroup in entry.record.cgroups_mut() {
            cgroup.name = self.name(cgroup);
            has_name |= cgroup.name.is_some();
        }
        has_name
    }

    fn name(&mut self, cgroup: &Cgroup) -> Option<Workload> {
        if let Some(known) = self.known.get(&cgroup.id) {
            return Some(known.clone());
        }
        // Runtimes use only paths that are text.
        let path = Path::new(cgroup.path.as_deref().filter(|_| cgroup.path_hex.is_none())?);
        let mount = self.mount.as_ref().filter(|_| !self.unknown.contains(&cgroup.id))?;
        match self.resolver.names(mount.dir(), [path]).remove(path) {
            Some(found) if mount.is_at(cgroup.id, path) => {
                self.known.insert(cgroup.id, found.clone());
                Some(found)
            }
            _ => {
                self.unknown.insert(cgroup.id);
                None
            }
        }
    }

    /// Problems with files since the last call, one line each.
    pub fn warnings(&mut self) -> Vec<String> {
        self.resolver.warnings()
    }
}

impl Record {
    /// The cgroups that the record is about.
    pub fn cgroups_mut(&mut self) -> Vec<&mut Cgroup> {
        match self {
            Self::LimitNear(limit) | Self::LimitHit(limit) => {
                vec![&mut limit.cgroup, &mut limit.ancestor]
            }
            Self::Drain { cgroup, .. } | Self::ConfigChanged { cgroup, .. } => {
                cgroup.iter_mut().collect()
            }
            Self::WouldEnforce { ancestor, cgroup, .. } => vec![ancestor, cgroup],
            Self::OomKill { ancestor, .. }
            | Self::NoVictim { ancestor }
            | Self::CacheOverLimit { ancestor, .. } => vec![ancestor],
            Self::Reclaim { cgroup, .. }
            | Self::CgroupAdded { cgroup }
            | Self::CgroupDying { cgroup }
            | Self::CgroupRemoved { cgroup } => vec![cgroup],
            Self::CpuDead { .. }
            | Self::CpuOnline { .. }
            | Self::Healed { .. }
            | Self::Lost { .. }
            | Self::EngineAdopted { .. }
            | Self::PartFailed { .. }
            | Self::PartRecovered { .. }
            | Self::ConfigReloaded { .. }
            | Self::ConfigRefused { .. }
            | Self::Ended => Vec::new(),
        }
    }
}
