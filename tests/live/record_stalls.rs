//! A recording has how long tasks waited for the disk.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use memstock::recording::End;
use memstock_tests::live;
use memstock_tests::live::name;
use memstock_tests::skip::skip;

use crate::record::record;

/// Reading past the page cache waits for each read; computing does not.
#[test]
fn who_waits_for_the_disk_is_seen() -> Result<()> {
    live(|| {
        let folder = tempfile::tempdir_in("/var/tmp")?;
        let path = folder.path().join("read");
        let mut file = File::create(&path)?;
        file.write_all(&vec![1; 64 << 20])?;
        file.sync_all()?;
        let from = format!("if={}", path.display());
        let direct = ["--", "dd", &from, "of=/dev/null", "bs=64k", "iflag=direct", "status=none"];
        let reads = record(&direct)?.read()?.end.context("no end")?;
        let (Some(reads_us), Some(_)) = (reads.io_stalled_us, reads.read_ns_per_page) else {
            skip(&name(), "the kernel accounts no pressure, or the file is not on a disk");
            return Ok(());
        };
        let count = "n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done";
        let computes = record(&["--", "sh", "-c", count])?.read()?.end.context("no end")?;
        let part = |end: &End| end.io_stalled_us.unwrap_or(0) as f64 / end.at.as_micros() as f64;
        ensure!(reads_us > 0 && part(&reads) <= 1.0, "{reads:?}");
        ensure!(part(&computes) < part(&reads) / 2.0, "{computes:?}: {reads:?}");
        Ok(())
    })
}
