//! Reads what the kernel's memory controller, where there is one, says of a cgroup: kernel memory that memstock does
//! not see.

use std::fs;
use std::path::Path;

use super::usage::Beside;
use crate::host::{number, page_size};

/// Whether the kernel's own memory controller covers this cgroup: on v2, where it is enabled.
pub(super) fn tells(dir: &Path) -> bool {
    dir.join("memory.stat").exists()
}

/// Reads slab and kernel stacks of the cgroup with this directory, in pages.
pub(super) fn read(dir: &Path, into: &mut Beside) {
    let Ok(text) = fs::read_to_string(dir.join("memory.stat")) else { return };
    into.slab_reclaimable = pages(&text, "slab_reclaimable");
    into.slab_unreclaimable = pages(&text, "slab_unreclaimable");
    into.stacks = pages(&text, "kernel_stack");
}

fn pages(stat: &str, name: &str) -> Option<u64> {
    Some(number(stat, name)? / page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "anon 8192\nslab_reclaimable 40960\nslab 1\n";
        assert_eq!(pages(stat, "slab_reclaimable"), Some(40960 / page_size()));
        assert_eq!(pages(stat, "kernel_stack"), None);
    }
}
