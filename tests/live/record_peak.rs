//! `memstock record` agrees with `memstock stat`.

use std::io;

use anyhow::{Context, Result, ensure};
use memstock::recording::{Recording, read};
use memstock_tests::measured::{figure, hog};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::{PAGE, binaries, live};

use crate::record::{Recorded, highest, program};

/// The same program, recorded and measured, has the same peaks of usage and of `needed`.
#[test]
fn the_peak_is_that_of_stat() -> Result<()> {
    const PAGES: u64 = 60_000;
    live(|| {
        let workload = binaries::workload()?.display().to_string();
        let pages = PAGES.to_string();
        let command = ["--", &workload, "hog", "--pages", &pages, "--cpu", "1"];
        let folder = tempfile::tempdir()?;
        let (stdin, goes_on) = io::pipe()?;
        let mut process = program(folder.path(), &command)?.stdin(stdin).start()?;
        try_poll_until(3 * SOON, "all its memory", || {
            Ok((process.ended()?.is_some() || process.stdout()? == "done\n").then_some(()))
        })?;
        // A sample must come while it has all its memory, since a task that ends frees it in parts.
        let has_all = |it: Recording| {
            let largest = it.peaks.last().and_then(|peak| peak.tasks.first());
            largest.is_some_and(|task| task.anon + PAGES / 10 >= PAGES)
        };
        let data = folder.path().join("data");
        try_poll_until(SOON, "the peak in the recording", || {
            Ok(read(&data).is_ok_and(has_all).then_some(()))
        })?;
        drop(goes_on);
        let recorded = Recorded { folder, finished: process.finish(3 * SOON)? };
        ensure!(recorded.finished.code() == 0, "{:?}", recorded.finished);
        ensure!(recorded.finished.stdout == "done\n", "{:?}", recorded.finished);
        let line = &recorded.finished.stderr;
        let is_said =
            ["memstock: ", " 1 task, nothing lost; written to ", "Next: memstock rehearse"];
        ensure!(is_said.into_iter().all(|part| line.contains(part)), "{line}");
        ensure!(line.lines().count() == 1, "{line}");

        let recording = recorded.read()?;
        let report = hog(PAGES, &[])?;
        for (pointer, peak) in [
            ("/cgroup/peak", highest(&recording, |moment| moment.usage)),
            ("/cgroup/needed_peak", highest(&recording, |moment| moment.needed)),
        ] {
            let measured = figure(&report, pointer)? / PAGE as f64;
            // Two runs differ in stocks, and in the program's page cache that the start reads in.
            ensure!((measured - peak as f64).abs() <= 400.0, "{pointer}: {measured} is not {peak}");
        }
        let end = recording.end.context("no end")?;
        ensure!(end.code == Some(0) && end.lost.is_empty(), "{end:?}");
        ensure!(recording.moments.windows(2).all(|pair| pair[0].at <= pair[1].at), "out of order");
        let peak = recording.peaks.last().context("no peak")?;
        let largest = peak.tasks.first().context("nobody")?;
        ensure!(largest.comm.starts_with("memstock-workl"), "{peak:?}");
        ensure!(largest.anon + PAGES / 10 >= PAGES && largest.badness >= largest.anon, "{peak:?}");
        ensure!(recording.header.command[1..] == command[2..], "{:?}", recording.header);
        Ok(())
    })
}
