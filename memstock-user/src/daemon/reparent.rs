//! Finds the pages of removed cgroups; the kernel half then gives them to the parent, as the kernel does, or to nobody if
//! that is not tracked. Otherwise a library or file that a job left in memory would keep its counter occupied.

use std::collections::BTreeMap;

use anyhow::Result;
use memstock_common::page::{CHUNK_PAGES, owner_in};
use memstock_common::{NOBODY, index_of, owner_of};

use crate::audit::adoption::{Page, windows};
use crate::engine::Engine;

/// Gives the pages of dying cgroups to their nearest living ancestors, if they have any. `parents` maps the counter index of each dying
/// cgroup to its parent's.
///
/// # Errors
/// The owner map cannot be read, or the kernel refuses.
pub fn reparent(engine: &Engine, parents: &BTreeMap<u32, u32>) -> Result<()> {
    let highest = parents.keys().max().map_or(0, |&index| owner_of(index) as usize);
    let mut is_dying = vec![false; highest + 1];
    for &index in parents.keys() {
        is_dying[owner_of(index) as usize] = true;
    }
    let owners = engine.owners()?;
    for number in 0..owners.len() {
        let Some(chunk) = owners.get(number) else { break };
        if chunk.owners == [NOBODY; CHUNK_PAGES as usize] {
            continue;
        }
        let first = number as u64 * u64::from(CHUNK_PAGES);
        let theirs = (first..).zip(chunk.owners).filter(|&(_, entry)| {
            let owner = owner_in(entry) as usize;
            is_dying.get(owner).is_some_and(|&is_dying| is_dying)
        });
        let pages: Vec<_> = theirs
            .map(|(pfn, entry)| Page { pfn, index: index_of(owner_in(entry)), is_file: false })
            .collect();
        for mut window in windows(&pages) {
            while let Some(&parent) = parents.get(&window.index) {
                engine.control().reparent(window)?;
                window.index = parent;
            }
        }
    }
    Ok(())
}
