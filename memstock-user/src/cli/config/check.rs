//! The model beside this host: whether its cgroups are there or can be, are different ones, and have limits that go
//! together. Looks only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memstock_common::Resource;

use super::mistake::{Mistake, Place};
use super::{Config, Entry};
use crate::host::cgroup::{CgroupMount, display};
use crate::host::page_size;
use crate::model::size::human;

/// All that is wrong with the cgroups of a file here.
pub fn check(config: &Config, mount: &CgroupMount) -> Vec<Mistake> {
    let mut mistakes: Vec<_> = config.cgroups.iter().filter_map(memsw_below_memory).collect();
    let mut found = BTreeMap::<PathBuf, &Entry>::new();
    // One without a path was told of.
    for entry in config.cgroups.iter().filter(|entry| !entry.path.as_os_str().is_empty()) {
        let path = match (mount.resolve(&entry.path), mount.absent(&entry.path)) {
            (Ok(cgroup), _) => cgroup.path,
            (Err(_), Some(path)) => path,
            (Err(error), None) => {
                mistakes.push(Mistake::at(entry.places.path, format!("{error:#}")));
                continue;
            }
        };
        // However it is spelled.
        if let Some(first) = found.get(&path) {
            let line = first.places.path.line;
            let what = format!("{} again: line {line} has it", display(&path));
            mistakes.push(Mistake::at(entry.places.path, what));
        } else {
            found.insert(path, entry);
        }
    }
    for resource in [Resource::Memory, Resource::Memsw] {
        mistakes.extend(found.keys().filter_map(|path| above_parent(&found, path, resource)));
    }
    mistakes
}

/// The limit in pages, and where it stands.
fn limit(entry: &Entry, resource: Resource) -> Option<(u64, Place)> {
    match resource {
        Resource::Memory => Some((entry.memory??, entry.places.memory)),
        Resource::Memsw => Some((entry.memsw??, entry.places.memsw)),
    }
}

fn bytes(nr_pages: u64) -> String {
    human(nr_pages * page_size())
}

fn memsw_below_memory(entry: &Entry) -> Option<Mistake> {
    let (memory, _) = limit(entry, Resource::Memory)?;
    let (memsw, place) = limit(entry, Resource::Memsw)?;
    let (memory_bytes, memsw_bytes) = (bytes(memory), bytes(memsw));
    (memsw < memory).then(|| {
        let what = format!(
            "memsw: memory and swap together may not be limited to less ({memsw_bytes}) than memory \
             alone ({memory_bytes})"
        );
        Mistake::at(place, what)
    })
}

/// The limit would never be met: the one above is.
fn above_parent(
    found: &BTreeMap<PathBuf, &Entry>,
    path: &Path,
    resource: Resource,
) -> Option<Mistake> {
    let (own, place) = limit(found.get(path)?, resource)?;
    let (above, (limit_above, place_above)) = path
        .ancestors()
        .skip(1)
        .find_map(|above| Some((above, limit(found.get(above)?, resource)?)))?;
    let name = match resource {
        Resource::Memory => "memory",
        Resource::Memsw => "memsw",
    };
    (own > limit_above).then(|| {
        let what = format!(
            "{name}: {} is above the limit of {} ({}, line {}), which would be met first",
            bytes(own),
            display(above),
            bytes(limit_above),
            place_above.line
        );
        Mistake::at(place, what)
    })
}
