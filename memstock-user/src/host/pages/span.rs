//! Owns how far page frame numbers go, and how many pages a huge page has. Must not ask what the pages are used for.

use crate::exit::{Classify as _, Failure};
use crate::host::page_size;
use anyhow::{Context as _, Result};
use std::fs;
use std::io;
use std::path::Path;

/// One past the highest page frame number that the kernel's page allocator may hand out: now, or
/// once a memory block that is present and offline is brought online.
///
/// Memory that is plugged in later can lie above it. So can memory of devices (`ZONE_DEVICE`), which never comes from
/// the page allocator.
///
/// # Errors
///
/// [`Failure::Host`] when procfs does not have it.
pub fn end_pfn() -> Result<u64> {
    let zones = fs::read_to_string("/proc/zoneinfo")
        .map_err(anyhow::Error::from)
        .and_then(|text| end_of_zones(&text).context("no zone in it has pages"))
        .classify(Failure::Host, || "cannot read /proc/zoneinfo: is procfs mounted?".into())?;
    // Offline blocks belong to no zone. Kernels without memory hotplug have no blocks at all.
    Ok(zones.max(end_of_blocks(Path::new("/sys/devices/system/memory")).unwrap_or(0)))
}

/// Pages of a huge page that the kernel maps at once (PMD size); none without huge pages.
pub fn huge_page_pages() -> Option<u64> {
    let bytes = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?;
    Some(bytes.trim().parse::<u64>().ok()? / page_size())
}

/// The end of the zone that ends last (`zoneinfo_show_print` in mm/vmstat.c).
fn end_of_zones(text: &str) -> Option<u64> {
    let mut end = None;
    let mut is_device = false;
    let mut spanned = 0;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            // `Node 0, zone   Normal`, and a line `per-node stats` that has no zone.
            (Some("Node"), Some(_)) => {
                is_device = words.nth(1) == Some("Device");
                spanned = 0;
            }
            (Some("spanned"), Some(pages)) => spanned = pages.parse().ok()?,
            // The last line of a zone; zones without pages do not have it.
            (Some("start_pfn:"), Some(pfn)) if !is_device && spanned > 0 => {
                end = end.max(Some(pfn.parse::<u64>().ok()?.checked_add(spanned)?));
            }
            _ => {}
        }
    }
    end
}

/// The end of the memory block with the highest number (drivers/base/memory.c).
fn end_of_blocks(dir: &Path) -> io::Result<u64> {
    let size = fs::read_to_string(dir.join("block_size_bytes"))?;
    let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
    let mut end = 0;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix("memory")?.parse::<u64>().ok());
        end = end.max(number.map_or(0, |number| (number + 1).saturating_mul(size / page_size())));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_NODES: &str = "\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 0
  pages free     3840
        boost    0
        spanned  4095
        present  3998
        managed  3840
        protection: (0, 2853, 23840, 23840, 23840)
  pagesets
    cpu: 0
              count:    0
  node_unreclaimable:  0
  start_pfn:           1
Node 0, zone   Normal
  pages free     100
        spanned  262144
        present  262144
  start_pfn:           4096
Node 0, zone  Movable
  pages free     0
        spanned  0
        present  0
Node 0, zone   Device
  pages free     0
        spanned  262144
        present  1
  start_pfn:           68719476736
Node 1, zone   Normal
  pages free     0
        spanned  0
        present  0
Node 1, zone  Movable
  pages free     7
        spanned  32768
        present  32768
  start_pfn:           1048576
";

    #[test]
    fn the_zone_that_ends_last_counts() {
        assert_eq!(end_of_zones(TWO_NODES), Some(1_048_576 + 32768));
        let (first, second) = TWO_NODES.split_once("Node 1").unwrap();
        assert_eq!(end_of_zones(first), Some(4096 + 262_144));
        assert_eq!(end_of_zones(&format!("Node 1{second}{first}")), Some(1_048_576 + 32768));
    }

    #[test]
    fn nonsense_is_no_zone() {
        for text in [
            "",
            "Node 0, zone Normal\n spanned 0\n start_pfn: 7\n",
            "Node 0, zone Normal\n spanned x\n start_pfn: 7\n",
            "Node 0, zone Normal\n spanned 2\n start_pfn: 18446744073709551615\n",
            // A zone without pages does not inherit the one before.
            "Node 0, zone Normal\n spanned 2\nNode 0, zone Movable\n start_pfn: 7\n",
        ] {
            assert_eq!(end_of_zones(text), None, "{text:?}");
        }
    }

    #[test]
    fn blocks_that_are_offline_count() {
        let dir = tempfile::tempdir().unwrap();
        assert!(end_of_blocks(dir.path()).is_err());
        fs::write(dir.path().join("block_size_bytes"), "8000000\n").unwrap();
        assert_eq!(end_of_blocks(dir.path()).unwrap(), 0);
        for name in ["memory9", "memory31", "power", "memory_x"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(end_of_blocks(dir.path()).unwrap(), 32 * (0x800_0000 / page_size()));
    }

    /// All memory that exists, and no more than ever fits into a machine.
    #[test]
    fn this_machine_has_an_end() {
        let end = end_pfn().unwrap();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let kib =
            meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"));
        let ram = kib.unwrap().trim().parse::<u64>().unwrap() * 1024 / page_size();
        assert!(end >= ram && end < 1 << 40, "{end} {ram}");
    }
}
