//! Compares what the kernel reads again at a limit with the prediction. Every read is known, so that neither sampling
//! nor recording affects the result.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memstock::forecast::rehearse::{Kernel, Rehearsal, WhatIf};
use memstock::recording::{Access, AccessKind, End, Header, Lru, Moment, Recording};
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::poll::SOON;
use memstock_tests::process::Program;
use memstock_tests::skip::skip;
use memstock_tests::task::enter_dir;
use memstock_tests::workload::reads::Order;
use memstock_tests::{KernelCgroup, PAGE, Resident, binaries, live};
use rustix::fs::{Advice, fadvise};

/// The allowed error. The kernel's counts of its LRU lists, by which it chooses, lag by up to 4 s: it read 20 % less
/// again in a run of one second, and was within 8 % in runs of five seconds or more.
const NEAR: f64 = 0.25;

#[test]
#[ignore = "long"]
fn zipf_reads_are_read_again_as_foretold() -> Result<()> {
    live(|| {
        // Otherwise the program would be read again as well.
        let _files = Resident::program(&binaries::workload()?)?;
        // Not `/tmp`, which may be in memory.
        let file = tempfile::Builder::new().prefix("memstock-reads-").tempfile_in("/var/tmp")?;
        let order = Order { file: file.path().into(), pages: 16_384, reads: 200_000 };
        for index in 0..order.pages {
            file.as_file().write_all_at(&[1; PAGE as usize], index * PAGE)?;
        }
        file.as_file().sync_all()?;
        let mut distinct: Vec<_> = order.indices().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let distinct = distinct.len() as u64;
        let Some((peak, none)) = run(&order, None)? else {
            skip("rereads::zipf_reads_are_read_again_as_foretold", ABSENT);
            return Ok(());
        };
        // The host of a guest may evict idle page cache, which no counter shows. A hundredth is small compared with
        // NEAR.
        ensure!(none <= distinct / 100, "without a limit {none} of {distinct} pages came back");
        let needed = peak.checked_sub(distinct).context("it used less than it read")?;
        let recording = recording(&order, needed, distinct);
        for part in [0.3, 0.5, 0.8] {
            let limit = needed + (distinct as f64 * part) as u64;
            let (_, again) = run(&order, Some(limit))?.context("no controller any more")?;
            let foretold = [Kernel::Host, Kernel::Lru].map(|kernel| {
                let what_if = WhatIf { kernel, ..WhatIf::default() };
                let row = Rehearsal::new(&recording, what_if).judge(limit * PAGE);
                row.reread.unwrap_or(0) / PAGE
            });
            eprintln!(
                "{part} of {distinct}: {again} pages, foretold {foretold:?} (an LRU: the last)"
            );
            let off = again.abs_diff(foretold[0]) as f64;
            ensure!(off <= NEAR * again as f64, "{part}: {again}, {foretold:?}");
        }
        Ok(())
    })
}

/// Runs it with a limit in pages and nothing of the file cached. Returns the peak and the refaults, in pages; `None`
/// if the kernel has no memory controller.
fn run(order: &Order, limit: Option<u64>) -> Result<Option<(u64, u64)>> {
    fadvise(File::open(&order.file)?, 0, None, Advice::DontNeed)?;
    let Some(cgroup) = KernelCgroup::new()? else { return Ok(None) };
    cgroup.limit(limit)?;
    let mut command = std::process::Command::new(binaries::workload()?);
    command.args([
        "reads",
        "--pages",
        &order.pages.to_string(),
        "--reads",
        &order.reads.to_string(),
    ]);
    command.arg("--file").arg(&order.file);
    enter_dir(&mut command, cgroup.dir())?;
    let finished = Program::from(command).finish(12 * SOON)?;
    ensure!(finished.code() == 0, "{finished:?}");
    let stat = fs::read_to_string(cgroup.dir().join("memory.stat"))?;
    let again = stat.lines().find_map(|line| line.strip_prefix("workingset_refault_file "));
    let again = again.context("the kernel does not count what comes back")?.parse()?;
    let peak = cgroup.peak_pages()?;
    cgroup.force_empty()?;
    Ok(Some((peak, again)))
}

/// The recording that sampling all pages would have made.
fn recording(order: &Order, needed: u64, distinct: u64) -> Recording {
    let mut cached = vec![false; usize::try_from(order.pages).unwrap_or(0)];
    let mut accesses = Vec::new();
    let mut at = Duration::ZERO;
    for index in order.indices() {
        at += Duration::from_secs(1);
        let access = Access { at, file: 0, index, pages: 1, one_in: 1, kind: AccessKind::Read };
        let is_new = !std::mem::replace(&mut cached[index as usize], true);
        accesses.extend(is_new.then_some(Access { kind: AccessKind::Added, ..access }));
        accesses.push(access);
    }
    let generations = fs::read_to_string("/sys/kernel/mm/lru_gen/enabled").unwrap_or_default();
    let is_multi_gen = !matches!(generations.trim(), "" | "0x0000");
    let usage = needed + distinct;
    Recording {
        header: Header {
            lru: if is_multi_gen { Lru::MultiGen } else { Lru::Classic },
            page_size: 4096,
            command: vec!["reads".into()],
            ..Header::default()
        },
        moments: vec![Moment { usage, needed, file: distinct, ..Moment::default() }],
        accesses,
        files: vec![memstock::recording::File::default()],
        end: Some(End { at, ..End::default() }),
        ..Recording::default()
    }
}
