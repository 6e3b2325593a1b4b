//! Owns what the kernel says of a cgroup by itself: kernel memory that memstock does not see, where its memory controller
//! tells, and for how long its tasks waited for devices.

use std::fs;
use std::path::Path;

use super::usage::Beside;
use crate::host::page_size;

/// Whether the kernel's own memory controller tells of this cgroup: on v2, where it is on.
pub(super) fn tells(dir: &Path) -> bool {
    dir.join("memory.stat").exists()
}

/// Slab and stacks of the cgroup with this directory, in pages.
pub(super) fn read(dir: &Path, into: &mut Beside) {
    let Ok(text) = fs::read_to_string(dir.join("memory.stat")) else { return };
    into.slab_reclaimable = pages(&text, "slab_reclaimable");
    into.slab_unreclaimable = pages(&text, "slab_unreclaimable");
    into.stacks = pages(&text, "kernel_stack");
}

fn pages(stat: &str, name: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.trim().parse::<u64>().ok()? / page_size())
}

/// For how long some task of the cgroup with this directory has waited for devices so far, in microseconds; none where the
/// kernel does not tell (`CONFIG_PSI`).
pub(super) fn waited_us(dir: &Path) -> Option<u64> {
    waited(&fs::read_to_string(dir.join("io.pressure")).ok()?)
}

fn waited(pressure: &str) -> Option<u64> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    some.rsplit_once("total=")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "anon 8192\nslab_reclaimable 40960\nslab 1\n";
        assert_eq!(pages(stat, "slab_reclaimable"), Some(40960 / page_size()));
        assert_eq!(pages(stat, "kernel_stack"), None);
        let pressure =
            "some avg10=0.00 avg60=0.35 avg300=0.34 total=9309576\nfull avg10=0 total=1\n";
        assert_eq!((waited(pressure), waited("")), (Some(9_309_576), None));
    }
}
