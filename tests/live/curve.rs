//! How much is read again at each limit, predicted from a recording, is what the program's own log of its reads says:
//! fio, which reads a file by Zipf's law.

use std::collections::HashMap;
use std::fs::{self, File};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use memstock::forecast::rehearse::{Kernel, Rehearsal, WhatIf};
use memstock_tests::PAGE;
use memstock_tests::live::{live, name};
use memstock_tests::poll::SOON;
use memstock_tests::skip::skip;

use crate::record::{Recorded, program};

/// More than is followed as a whole.
const FILE: u64 = 1 << 30;
/// The allowed error, as a part of all reads. So many come that one block in 16 can be followed, some 2,000 pages; the
/// error of such a sample is up to 1 % (seen: 0.97 %), and falls with the root of its size.
const NEAR: f64 = 0.015;

#[test]
fn the_curve_of_an_lru_is_the_exact_one() -> Result<()> {
    live(|| {
        if Command::new("fio").arg("--version").output().is_err() {
            skip(&name(), "fio is not installed");
            return Ok(());
        }
        // Not `/tmp`, which may be in memory. A sparse file needs no disk.
        let folder = tempfile::Builder::new().prefix("memstock-fio-").tempdir_in("/var/tmp")?;
        let [file, log] = ["file", "log"].map(|name| folder.path().join(name));
        File::create(&file)?.set_len(FILE)?;
        let fio = format!(
            "exec fio --name=zipf --filename={} --size={FILE} --write_iolog={} --rw=randread --norandommap \
             --random_distribution=zipf:1.1 --bs=4k --ioengine=psync --minimal",
            file.display(),
            log.display()
        );
        let finished = program(folder.path(), &["--", "sh", "-c", &fio])?.finish(12 * SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        let recorded = Recorded { folder, finished };
        let recording = recorded.read()?;
        if !recording
            .accesses
            .iter()
            .any(|access| access.kind == memstock::recording::AccessKind::Read)
        {
            skip(&name(), "this kernel does not report reads of the page cache");
            return Ok(());
        }
        let reads = reads(&fs::read_to_string(&log)?)?;
        let (distances, distinct) = distances(&reads);
        let what_if = WhatIf { kernel: Kernel::Lru, ..WhatIf::default() };
        let rehearsal = Rehearsal::new(&recording, what_if);
        let needed = rehearsal.peaks().needed;
        for part in [0.1, 0.2, 0.3, 0.5, 0.7, 0.9] {
            let room = (distinct as f64 * part) as usize;
            let exact = distances.iter().filter(|&&distance| distance >= room).count();
            let said = rehearsal.judge(needed + room as u64 * PAGE).reread.context("none")? / PAGE;
            let off = (said as f64 - exact as f64) / reads.len() as f64;
            eprintln!("room for {part} of {distinct} pages: {exact} read again, {said} said");
            ensure!(off.abs() <= NEAR, "{part}: {said} of {exact}, off by {off} of all reads");
        }
        Ok(())
    })
}

/// The pages that fio read, by its log: `2711 file read 72527872 4096`.
fn reads(log: &str) -> Result<Vec<u64>> {
    let reads = log.lines().filter_map(|line| line.split_once(" read "));
    let pages = reads.map(|(_, at)| {
        let offset = at.split(' ').next().context("no offset")?.parse::<u64>()?;
        Ok(offset / PAGE)
    });
    pages.collect()
}

/// For each page that is read again, how many others were read since; and how many pages there are. With room for more
/// than these others, an LRU still has it.
fn distances(reads: &[u64]) -> (Vec<usize>, usize) {
    let (mut last, mut distances) = (HashMap::new(), Vec::new());
    // A Fenwick tree over time: one for each page, at its last read.
    let mut tree = vec![0_isize; reads.len() + 1];
    let add = |tree: &mut [isize], at: usize, what: isize| {
        let mut n = at + 1;
        while n < tree.len() {
            tree[n] += what;
            n += n & n.wrapping_neg();
        }
    };
    let before = |tree: &[isize], at: usize| {
        let (mut n, mut sum) = (at, 0);
        while n > 0 {
            sum += tree[n];
            n &= n - 1;
        }
        sum
    };
    for (now, &page) in reads.iter().enumerate() {
        if let Some(then) = last.insert(page, now) {
            distances.push((before(&tree, now) - before(&tree, then + 1)).unsigned_abs());
            add(&mut tree, then, -1);
        }
        add(&mut tree, now, 1);
    }
    (distances, last.len())
}

#[test]
fn distances_are_those_of_an_lru() {
    assert_eq!(distances(&[7, 8, 7, 7, 9, 8, 7]), (vec![1, 0, 2, 2], 3));
}
