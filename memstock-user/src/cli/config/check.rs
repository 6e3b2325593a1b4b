//! Checks the file's cgroups on this host: each exists or could, none is named twice, and their limits are consistent.
//! Changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memstock_common::Resource;

use super::settings::Entry;
use super::{Diagnostic, place};
use crate::host::cgroup::{CgroupMount, display};
use crate::host::page_size;
use crate::model::size::human;

/// Every mistake in the cgroups of a file with this text.
pub fn check(cgroups: &[Entry], text: &str, mount: &CgroupMount) -> Vec<Diagnostic> {
    let mut mistakes: Vec<_> = cgroups.iter().filter_map(memsw_below_memory).collect();
    let mut found = BTreeMap::<PathBuf, &Entry>::new();
    for entry in cgroups {
        let Some(path) = entry.path() else { continue };
        let (named, at) = (path.get_ref(), path.span().start);
        let path = match (mount.resolve(named), mount.absent(named)) {
            (Ok(cgroup), _) => cgroup.path,
            (Err(_), Some(path)) => path,
            (Err(error), None) => {
                mistakes.push((at, format!("{error:#}")));
                continue;
            }
        };
        // The same cgroup, however its path is spelled.
        if let Some(first) = found.get(&path) {
            let first = first.path().map_or(0, |path| path.span().start);
            let (line, _) = place(text, first);
            mistakes.push((at, format!("{} again: first named in line {line}", display(&path))));
        } else {
            found.insert(path, entry);
        }
    }
    for resource in Resource::ALL {
        mistakes.extend(found.keys().filter_map(|path| above_parent(&found, path, resource, text)));
    }
    mistakes
}

/// The limit in pages, and its position in the file.
fn limit(entry: &Entry, resource: Resource) -> Option<(u64, usize)> {
    let limit = match resource {
        Resource::Memory => entry.memory.as_ref()?,
        Resource::Memsw => entry.memsw.as_ref()?,
    };
    Some((limit.get_ref().0?, limit.span().start))
}

fn bytes(nr_pages: u64) -> String {
    human(nr_pages * page_size())
}

fn memsw_below_memory(entry: &Entry) -> Option<Diagnostic> {
    let (memory, _) = limit(entry, Resource::Memory)?;
    let (memsw, at) = limit(entry, Resource::Memsw)?;
    let (memory_bytes, memsw_bytes) = (bytes(memory), bytes(memsw));
    (memsw < memory).then(|| {
        let what = format!(
            "memsw: memory and swap together may not be limited to less ({memsw_bytes}) than memory \
             alone ({memory_bytes})"
        );
        (at, what)
    })
}

/// A limit above that of an ancestor is never reached.
fn above_parent(
    found: &BTreeMap<PathBuf, &Entry>,
    path: &Path,
    resource: Resource,
    text: &str,
) -> Option<Diagnostic> {
    let (own, at) = limit(found.get(path)?, resource)?;
    let (above, (limit_above, at_above)) = path
        .ancestors()
        .skip(1)
        .find_map(|above| Some((above, limit(found.get(above)?, resource)?)))?;
    let name = resource.name();
    (own > limit_above).then(|| {
        let (line, _) = place(text, at_above);
        let what = format!(
            "{name}: {} is above the limit of {} ({}, line {line}), which would be met first",
            bytes(own),
            display(above),
            bytes(limit_above),
        );
        (at, what)
    })
}
