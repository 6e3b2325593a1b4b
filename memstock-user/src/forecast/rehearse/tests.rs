//! Verdicts on small recordings whose figures can be computed by hand.

use super::*;
use crate::forecast::assume::{assumes, warnings};
use crate::recording::{
    Access, AccessKind, End, File, Header, Holder, Moment, Peak, TaskEvent, TaskEventKind,
};

pub const MIB: u64 = 256;

pub fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Accesses to the first `pages` pages of the file, block by block.
fn accesses(ms: u64, kind: AccessKind, pages: u64) -> impl Iterator<Item = Access> {
    let blocks = (0..pages / 16).map(|block| block * 16);
    blocks.map(move |index| Access { at: at(ms), file: 0, index, pages: 16, one_in: 1, kind })
}

/// Reads at one second, and again at eight.
pub fn read_twice(pages: u64) -> Vec<Access> {
    let reads = [(1000, AccessKind::Added), (1000, AccessKind::Read), (8000, AccessKind::Read)];
    reads.into_iter().flat_map(|(ms, kind)| accesses(ms, kind, pages)).collect()
}

/// Ten seconds; 100 MiB needed, 200 at five seconds; 2 MiB of a file read at one and at eight seconds.
pub fn recording() -> Recording {
    let moment = |ms, usage: u64, needed: u64| Moment {
        at: at(ms),
        usage: usage * MIB,
        needed: needed * MIB,
        file: (usage - needed) * MIB,
        ..Moment::default()
    };
    let peak = |ms, needed: u64, pid: u32| Peak {
        at: at(ms),
        needed: needed * MIB,
        tasks: vec![Holder { pid, comm: format!("cc{pid}"), badness: 9, anon: 50 * MIB }],
    };
    Recording {
        header: Header {
            page_size: 4096,
            command: vec!["make".into()],
            swap: 512 * MIB,
            ..Header::default()
        },
        moments: vec![
            moment(0, 100, 100),
            moment(2000, 108, 100),
            moment(5000, 230, 200),
            moment(6000, 230, 100),
        ],
        peaks: vec![peak(0, 100, 1), peak(5000, 200, 2)],
        accesses: read_twice(2 * MIB),
        files: vec![File { path: Some("/usr/lib/cc1".into()), ..File::default() }],
        end: Some(End { at: at(10_000), read_ns_per_page: Some(2_000_000), ..End::default() }),
        ..Recording::default()
    }
}

fn judge(what_if: WhatIf, mib: u64) -> Row {
    Rehearsal::new(&recording(), what_if).judge(mib << 20)
}

#[test]
fn each_limit_has_its_verdict() {
    let recording = recording();
    let rehearsal = Rehearsal::new(&recording, WhatIf::default());
    assert_eq!(rehearsal.peaks(), Peaks { usage: 230 << 20, needed: 200 << 20, written: 0 });
    assert_eq!((rehearsal.lives_from() >> 20, rehearsal.fits_from() >> 20), (206, 230));
    let fits = rehearsal.judge(230 << 20);
    assert_eq!((fits.verdict, fits.reread, fits.slowdown), (Verdict::Fits, Some(0), Some(0.0)));
    let reclaims = rehearsal.judge(206 << 20);
    assert_eq!((reclaims.verdict, reclaims.reread), (Verdict::Reclaims, Some(0)));
    let dead = rehearsal.judge(150 << 20);
    assert_eq!((dead.verdict, dead.is_near, dead.reread), (Verdict::Oom, false, None));
    let victim = dead.victim.unwrap();
    assert_eq!(victim.at, at(4990));
    assert_eq!(victim.task, Some((2, "cc2".into(), 50 << 20)));
    // 203 MiB may be enough: it is not certain that somebody dies.
    let near = rehearsal.judge(203 << 20);
    assert_eq!((near.verdict, near.is_near), (Verdict::Oom, true));
    assert_eq!(near.victim.unwrap().at, at(4990));
    assert_eq!(rehearsal.judge(50 << 20).victim.unwrap().at, Duration::ZERO);
}

/// 20 MiB of a program have faulted, beside 200 MiB that are needed.
#[test]
fn program_text_has_to_have_room_however_slow_a_run_may_be() {
    let mut recording = recording();
    recording.files[0].is_program = true;
    let blocks = (0..20 * MIB).step_by(16).flat_map(|index| {
        [AccessKind::Added, AccessKind::Mapped].map(|kind| Access {
            at: at(1000),
            file: 0,
            index,
            pages: 16,
            one_in: 1,
            kind,
        })
    });
    recording.accesses = blocks.collect();
    let rehearsal = Rehearsal::new(&recording, WhatIf::default());
    let [above, below] = [220, 219].map(|mib| rehearsal.judge(mib << 20));
    assert_eq!((above.verdict, below.verdict), (Verdict::Reclaims, Verdict::Slow));
    assert!(below.slowdown >= Some(1.0), "{below:?}");
    assert_eq!([0.05, 5.0].map(|slower| rehearsal.smallest(slower) >> 20), [220; 2]);
}

/// The kernel charges 64 pages ahead on each CPU.
#[test]
fn what_is_charged_ahead_has_to_fit() {
    let mut recording = recording();
    recording.header.cpus = 2;
    let rehearsal = Rehearsal::new(&recording, WhatIf::default());
    let at = |kib: u64| rehearsal.judge((230 << 20) + (kib << 10)).verdict;
    assert_eq!([0, 511, 512].map(at), [Verdict::Reclaims, Verdict::Reclaims, Verdict::Fits]);
}

/// The peak leaves no room for 2 MiB, which are read again: 512 pages of 2 ms in ten seconds.
#[test]
fn what_is_read_again_makes_it_slow() {
    let mut recording = recording();
    for moment in &mut recording.moments[2..] {
        moment.usage = 300 * MIB;
    }
    recording.accesses = read_twice(8 * MIB);
    for kernel in [Kernel::Host, Kernel::Classic, Kernel::Mglru, Kernel::Lru] {
        let rehearsal = Rehearsal::new(&recording, WhatIf { kernel, ..WhatIf::default() });
        let row = rehearsal.judge(206 << 20);
        assert_eq!((row.verdict, row.reread), (Verdict::Slow, Some(2 << 20)), "{kernel:?}");
        assert!((row.slowdown.unwrap() - 0.1024).abs() < 1e-9, "{kernel:?}");
        if kernel != Kernel::Lru {
            assert_eq!(row.files, [(0, 2 << 20)], "{kernel:?}");
        }
        assert_eq!(row.reread_by_time[160], 2 << 20, "{kernel:?}");
        assert_eq!(rehearsal.judge(208 << 20).verdict, Verdict::Reclaims, "{kernel:?}");
        let fast = rehearsal.smallest(SLOW);
        assert!(rehearsal.judge(fast).slowdown.unwrap() <= SLOW, "{kernel:?}");
        // 5 % are 250 of 2048 pages; the last step is within 1/16 of 1/24 of the range.
        assert!(((207 << 20)..=(208 << 20)).contains(&fast), "{kernel:?} {fast}");
        assert_eq!(rehearsal.smallest(1.0), rehearsal.lives_from());
    }
}

#[test]
fn swap_and_memory_high_kill_later_or_not_at_all() {
    let swap = judge(WhatIf { swap: 80 << 20, ..WhatIf::default() }, 130);
    assert_eq!((swap.verdict, swap.is_near), (Verdict::Reclaims, false));
    let high = judge(WhatIf { is_high: true, ..WhatIf::default() }, 150);
    assert_eq!((high.verdict, high.victim), (Verdict::Slow, None));
    assert!(high.throttled > at(100_000), "{:?}", high.throttled);
    let high = judge(WhatIf { is_high: true, ..WhatIf::default() }, 202);
    assert_eq!((high.verdict, high.throttled), (Verdict::Reclaims, Duration::ZERO));
}

#[test]
fn without_uses_nothing_is_said_of_speed() {
    // Before Linux 6.12 only what enters and leaves the cache is recorded.
    for accesses in [Vec::new(), accesses(1000, AccessKind::Added, 2 * MIB).collect()] {
        let recording = Recording { accesses, ..recording() };
        let rehearsal = Rehearsal::new(&recording, WhatIf::default());
        let row = rehearsal.judge(210 << 20);
        assert_eq!((row.verdict, row.reread, row.slowdown), (Verdict::Reclaims, None, None));
        assert_eq!(rehearsal.smallest(SLOW), rehearsal.lives_from());
        assert!(assumes(&rehearsal).iter().any(|said| said.contains("is not known")));
    }
}

#[test]
fn what_is_taken_for_granted_is_said() {
    let mut recording = recording();
    let said = assumes(&Rehearsal::new(&recording, WhatIf::default()));
    assert_eq!(warnings(&recording), [""; 0]);
    for part in ["no runtime that sizes itself", "--swap host counts it", "same load"] {
        assert!(said.iter().any(|said| said.contains(part)), "{part}: {said:?}");
    }
    let event = |kind| TaskEvent { at: at(1), pid: 7, kind };
    recording.tasks = vec![
        event(TaskEventKind::Exec { comm: "java".into() }),
        event(TaskEventKind::FollowsLimit { why: "JVM".into() }),
        event(TaskEventKind::FollowsLimit { why: "JVM".into() }),
        event(TaskEventKind::Exec { comm: "sh".into() }),
    ];
    let what_if = WhatIf { kernel: Kernel::Lru, swap: 1 << 30, is_high: true };
    let said = assumes(&Rehearsal::new(&recording, what_if));
    for part in ["1.0GiB of swap", "one after"] {
        assert!(said.iter().any(|said| said.contains(part)), "{part}: {said:?}");
    }
    assert!(!said.iter().any(|said| said.contains("no runtime")), "{said:?}");
    let java = "java: JVM: verify";
    recording.end = Some(End {
        code: Some(137),
        lost: vec![("records".into(), 7), ("samples".into(), 0)],
        warnings: vec!["a limit was hit".into()],
        ..End::default()
    });
    let said = ["lost while recording: 7 records", "COMMAND ended with 137", "a limit was hit"];
    assert_eq!(warnings(&recording), [&[java], &said[..]].concat());
    recording.end = None;
    let cut = "the recording was cut off: what happened later is not known";
    assert_eq!(warnings(&recording), [java, cut]);
}

/// 40 MiB that are written to a new file.
fn written() -> impl Iterator<Item = Access> {
    let kinds = [AccessKind::Added, AccessKind::Dirtied].into_iter();
    let all = kinds.flat_map(|kind| accesses(1500, kind, 40 * MIB));
    all.map(|access| Access { file: 1, ..access })
}

/// 40 MiB are written where 30 have room. The last 10 take the place of clean ones. What is not dirty in the end was
/// written without a limit, too.
#[test]
fn dirty_pages_without_room_are_waited_for() {
    for (dirty, waited) in [(40, 30), (30, 20), (0, 0)] {
        let mut recording = recording();
        recording.moments.truncate(2);
        recording.moments[1].usage = 142 * MIB;
        recording.moments[1].dirty = dirty * MIB;
        recording.accesses.extend(written());
        recording.accesses.sort_by_key(|access| access.at);
        recording.end.as_mut().unwrap().write_ns_per_page = Some(100_000);
        let rehearsal = Rehearsal::new(&recording, WhatIf::default());
        assert_eq!(rehearsal.judge(142 << 20).dirty, 0);
        let row = rehearsal.judge(130 << 20);
        assert_eq!((row.dirty >> 20, row.reread), (waited, Some(2 << 20)), "{dirty}");
        // 512 pages are read in 2 ms each, and 256 of each MiB written in a twentieth of that.
        let seconds = 1.024 + waited as f64 * 0.0256;
        assert!((row.slowdown.unwrap() - seconds / 10.0).abs() < 0.001, "{:?}", row.slowdown);
    }
}

/// A program that writes on and on: reclaim has removed the first half of its file, so that was written.
#[test]
fn what_is_written_without_a_limit_is_not_waited_for() {
    for dirty in [0, 5] {
        let mut recording = recording();
        recording.moments.truncate(2);
        recording.moments[1].usage = 142 * MIB;
        recording.moments[1].dirty = dirty * MIB;
        let removed = accesses(1600, AccessKind::Removed, 20 * MIB);
        let removed = removed.map(|access| Access { file: 1, ..access });
        recording.accesses.extend(written().chain(removed));
        recording.accesses.sort_by_key(|access| access.at);
        let row = Rehearsal::new(&recording, WhatIf::default()).judge(110 << 20);
        assert_eq!(row.dirty >> 20, dirty);
    }
}

/// Where the kernel kills rather than wait for writeback: 200 MiB, 6 MiB that are not seen, and the dirty pages, at most
/// half of that.
#[test]
fn dirty_pages_are_needed_where_they_are_killed_for() {
    for (lru, dirty, lives_from) in [
        (Lru::MultiGen, 10, 216),
        (Lru::MultiGen, 90, 296),
        (Lru::MultiGen, 150, 309),
        (Lru::Classic, 10, 206),
    ] {
        let mut recording = recording();
        recording.header.lru = lru;
        recording.moments[2].dirty = dirty * MIB;
        let rehearsal = Rehearsal::new(&recording, WhatIf::default());
        assert_eq!(rehearsal.lives_from() >> 20, lives_from, "{lru:?} {dirty}");
        let row = rehearsal.judge((lives_from << 20) - 4096);
        assert_eq!((row.verdict, row.is_near), (Verdict::Oom, true));
        let is_said = assumes(&rehearsal).iter().any(|said| said.contains("dirty pages"));
        assert_eq!(is_said, lives_from > 206);
    }
}

/// Recordings of nothing, and with figures that no run can have.
#[test]
fn odd_recordings_are_judged_too() {
    let huge = Moment {
        usage: u64::MAX,
        needed: u64::MAX,
        mlocked: u64::MAX,
        dirty: u64::MAX,
        file: u64::MAX,
        slab_unreclaimable: Some(u64::MAX),
        stacks: Some(u64::MAX),
        ..Moment::default()
    };
    let odd = Access {
        at: Duration::MAX,
        file: 0,
        index: u64::MAX,
        pages: u32::MAX,
        one_in: u32::MAX,
        kind: AccessKind::Mapped,
    };
    let broken = Recording {
        moments: vec![huge, Moment::default(), huge],
        accesses: vec![odd, Access { at: Duration::ZERO, kind: AccessKind::Removed, ..odd }, odd],
        ..Recording::default()
    };
    for recording in [Recording::default(), broken] {
        for is_high in [false, true] {
            let what_if = WhatIf { swap: u64::MAX, is_high, kernel: Kernel::Host };
            let rehearsal = Rehearsal::new(&recording, what_if);
            for limit in [0, 1, 4096, 1 << 30, u64::MAX] {
                assert!(rehearsal.judge(limit).slowdown.is_none_or(|part| part >= 0.0));
            }
            let _ = (rehearsal.smallest(SLOW), assumes(&rehearsal));
        }
    }
}
