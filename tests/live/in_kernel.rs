//! What of bpf(2) is in the kernel: for tests that nothing is there unasked.

use std::collections::BTreeSet;

use anyhow::Result;
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};

/// What is in the kernel, of whomever.
#[derive(Debug)]
pub struct InKernel {
    /// Programs: id and name.
    pub programs: BTreeSet<String>,
    /// Maps, too.
    pub maps: BTreeSet<String>,
    /// Ids of links.
    pub links: BTreeSet<u32>,
}

impl InKernel {
    /// Whether there is nothing that was not there `before`. What is not used any more goes after a grace period: there may
    /// be less.
    pub fn is_within(&self, before: &Self) -> bool {
        self.programs.is_subset(&before.programs)
            && self.maps.is_subset(&before.maps)
            && self.links.is_subset(&before.links)
    }
}

/// What there is now.
///
/// # Errors
/// Something went while it was looked at.
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
