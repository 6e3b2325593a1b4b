//! Table and JSON of a recording whose figures can be checked by hand.

use std::time::Duration;

use super::*;
use crate::forecast::recommend::Goal;
use crate::forecast::rehearse::WhatIf;
use crate::recording::{Access, AccessKind, End, File, Header, Holder, Moment, Peak};

const MIB: u64 = 256;

/// Twenty seconds: 100 MiB needed, 200 for a moment; 40 MiB of a file are read twice.
pub(crate) fn recording() -> Recording {
    let at = Duration::from_secs;
    let moment = |seconds, usage: u64, needed: u64| Moment {
        at: at(seconds),
        usage: usage * MIB,
        needed: needed * MIB,
        file: (usage - needed) * MIB,
        ..Moment::default()
    };
    let access = |seconds, kind| {
        let blocks = [(0, 16), (16, 16), (32, 8)];
        blocks.map(|(index, pages)| Access {
            at: at(seconds),
            file: 0,
            index,
            pages,
            one_in: 256,
            kind,
        })
    };
    Recording {
        header: Header {
            kernel: "6.18".into(),
            page_size: 4096,
            command: ["make", "-j4\u{1b}"].map(Into::into).into(),
            ..Header::default()
        },
        moments: vec![moment(0, 100, 100), moment(5, 300, 200), moment(6, 140, 100)],
        peaks: vec![Peak {
            at: at(5),
            needed: 200 * MIB,
            tasks: vec![Holder { pid: 7, comm: "cc1plus".into(), badness: 1, anon: 90 * MIB }],
        }],
        accesses: [(1, AccessKind::Added), (1, AccessKind::Read), (9, AccessKind::Read)]
            .map(|(seconds, kind)| access(seconds, kind))
            .concat(),
        files: vec![File { path: Some("/usr/lib/cc1".into()), ..File::default() }],
        end: Some(End { at: at(20), read_ns_per_page: Some(200_000), ..End::default() }),
        ..Recording::default()
    }
}

fn judged<'a>(rehearsal: &'a Rehearsal<'a>, rows: Vec<Row>) -> Judged<'a> {
    let advice = Advice::of(std::slice::from_ref(rehearsal), Goal::default());
    Judged { rehearsal, rows, advice }
}

#[test]
fn the_table_has_all_verdicts_with_their_reasons() {
    let recording = recording();
    let rehearsal = Rehearsal::new(&recording, WhatIf::default());
    let rows = [300, 250, 210, 203, 100].map(|mib| rehearsal.judge(mib << 20)).into();
    let mut text = Vec::new();
    write(&mut text, &judged(&rehearsal, rows)).unwrap();
    let text = String::from_utf8(text).unwrap();
    let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        "make -j4\\x1b: peak 300.0MiB, of which 200.0MiB cannot be reclaimed; Linux 6.18, active \
         and inactive lists, 20.0 s",
        "limit verdict read again slower why",
        "300.0MiB fits - -",
        "250.0MiB reclaims 0B 0.0 %",
        "210.0MiB slow 30.0MiB 7.7 % /usr/lib/cc1 30.0MiB",
        "203.0MiB oom, near 37.0MiB 9.5 % so close to what is needed that it may survive; cc1plus (7), \
         90.0MiB anonymous, at 5.0 s",
        "100.0MiB oom - - cc1plus (7), 90.0MiB anonymous, at 5.0 s",
        "assumes no runtime that sizes itself by its limit was recognised",
    ] {
        let row: Vec<_> = row.split_whitespace().collect();
        assert!(rows.contains(&row), "{row:?} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn without_a_question_the_table_is_from_fits_to_oom() {
    let recording = recording();
    let rehearsal = Rehearsal::new(&recording, WhatIf::default());
    let rows = Judged::table(&rehearsal);
    let verdicts: Vec<_> = rows.iter().map(|row| row.verdict).collect();
    assert!(verdicts.is_sorted_by(|more, less| more >= less), "{verdicts:?}");
    assert_eq!((verdicts.first(), verdicts.last()), (Some(&Verdict::Fits), Some(&Verdict::Oom)));
    let high = Rehearsal::new(&recording, WhatIf { is_high: true, ..WhatIf::default() });
    assert!(Judged::table(&high).iter().all(|row| row.verdict != Verdict::Oom));
}

#[test]
fn json_has_the_same_figures() {
    let recording = recording();
    let rehearsal = Rehearsal::new(&recording, WhatIf::default());
    let rows = [210, 100].map(|mib| rehearsal.judge(mib << 20)).into();
    let value = document(&judged(&rehearsal, rows));
    assert_eq!((&value["peak"], &value["needed_peak"]), (&json!(300 << 20), &json!(200 << 20)));
    let [slow, oom] = [0, 1].map(|n| &value["limits"][n]);
    assert_eq!((&slow["verdict"], &slow["victim"]), (&json!("slow"), &Value::Null));
    assert_eq!(slow["files"], json!([{ "path": "/usr/lib/cc1", "bytes": 30 << 20 }]));
    assert_eq!((&oom["verdict"], &oom["reread"]), (&json!("oom"), &Value::Null));
    assert_eq!((&oom["victim"]["comm"], &oom["victim"]["pid"]), (&json!("cc1plus"), &json!(7)));
    assert_eq!(value["command"][1], "-j4\\x1b");
    assert!(value["recommend"]["high"].as_u64() <= value["recommend"]["max"].as_u64());
}

#[test]
fn files_without_a_path_have_a_name() {
    let mut recording = recording();
    recording.files[0].path = None;
    assert_eq!(name(&recording, 0), "inode 0 of device 0");
    assert_eq!(name(&recording, 9), "file 9");
}

#[test]
fn much_time_is_told_in_times() {
    let told = [0.0, 0.0512, 0.5, 9.0, 29.0].map(percent);
    assert_eq!(told, ["0.0 %", "5.1 %", "50 %", "900 %", "30 times"]);
}
