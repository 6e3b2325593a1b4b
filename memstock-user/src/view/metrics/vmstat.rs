//! How much memory the host allocates and frees, to compare the number of missed runs with.

use std::fs;
use std::io;

/// Pages allocated and pages freed since boot, in all zones.
///
/// # Errors
/// `/proc/vmstat` cannot be read.
pub(super) fn moved_pages() -> io::Result<u64> {
    fs::read_to_string("/proc/vmstat").map(|text| sum(&text))
}

fn sum(text: &str) -> u64 {
    let counts = |name: &str| name.starts_with("pgalloc_") || name == "pgfree";
    let fields = text.lines().filter_map(|line| line.split_once(' '));
    fields.filter(|(name, _)| counts(name)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_of_all_zones_and_frees_count() {
        let text = "nr_free_pages 7\npgalloc_dma32 20\npgalloc_normal 300\npgfree 310\npgfault 9\n";
        assert_eq!(sum(text), 630);
        assert!(moved_pages().unwrap() > 0);
    }
}
