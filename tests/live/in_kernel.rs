//! The BPF objects in the kernel, for tests that none is loaded without being asked for.

use std::collections::BTreeSet;

use anyhow::Result;
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};

/// All BPF objects in the kernel, whoever made them.
#[derive(Debug)]
pub struct InKernel {
    /// Ids and names of programs.
    pub programs: BTreeSet<String>,
    /// Ids and names of maps.
    pub maps: BTreeSet<String>,
    /// Ids of links.
    pub links: BTreeSet<u32>,
}

impl InKernel {
    /// Whether nothing is here that was not there `before`. There may be less, since the kernel frees unused objects
    /// only after a grace period.
    pub fn is_within(&self, before: &Self) -> bool {
        self.programs.is_subset(&before.programs)
            && self.maps.is_subset(&before.maps)
            && self.links.is_subset(&before.links)
    }
}

/// The objects that exist now.
///
/// # Errors
/// When an object vanished while it was read.
pub fn in_kernel() -> Result<InKernel> {
    let programs = loaded_programs().map(|program| {
        let program = program?;
        Ok(format!("{} {}", program.id(), program.name_as_str().unwrap_or("")))
    });
    let maps = loaded_maps().map(|map| {
        let map = map?;
        Ok(format!("{} {}", map.id(), map.name_as_str().unwrap_or("")))
    });
    let links = loaded_links().map(|link| Ok(link?.id()));
    Ok(InKernel {
        programs: programs.collect::<Result<_>>()?,
        maps: maps.collect::<Result<_>>()?,
        links: links.collect::<Result<_>>()?,
    })
}
