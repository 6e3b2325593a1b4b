//! The stream in a temporary folder: numbers, rotation, torn lines, hostile names.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::read::{Read, Reader};
use super::record::*;
use super::write::Journal;
use super::{BEFORE, CURRENT};

fn added(id: u64, path: &[u8]) -> Record {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    Record::CgroupAdded { cgroup: Cgroup::new(id, Some(path)) }
}

fn all(reader: &mut Reader) -> Vec<Read> {
    let mut all = Vec::new();
    let taken = reader.read(|read| {
        all.push(read.clone());
        Ok(())
    });
    taken.unwrap().unwrap();
    all
}

fn numbers(reader: &mut Reader) -> Vec<u64> {
    all(reader).iter().map(|read| read.entry.seq).collect()
}

/// Dies as by `kill -9`: no last record, and the files stay.
fn die(journal: Journal) {
    std::mem::forget(journal);
}

/// Records of each kind, with and without every optional part.
pub(crate) fn every_kind() -> Vec<Record> {
    let cgroup = || Cgroup::new(7, Some("/a/b".as_ref()));
    let gone = || Cgroup::new(8, None);
    let limit = |resource| Limit {
        cgroup: cgroup(),
        ancestor: gone(),
        resource,
        nr_pages: 32,
        usage: u64::MAX,
        limit: 4096,
    };
    let drain = |why, cgroup, cpus: &[CpuPages]| Record::Drain {
        why,
        cgroup,
        cpus: cpus.to_vec(),
        nr_pages: 32,
        took_ns: 5,
        since_event_ns: matches!(why, Why::Reclaim | Why::LimitNear).then_some(7),
        merged: 1,
    };
    let victim = || Victim {
        victim: 12,
        comm: "a \"task\"\n".into(),
        rss_pages: 1,
        swap_pages: 0,
        page_table_pages: 2,
        oom_score_adj: -999,
    };
    let would = |victim| Record::WouldEnforce {
        ancestor: cgroup(),
        cgroup: gone(),
        over_pages: 1,
        needed_pages: 2,
        file_pages: 3,
        stocked: vec![CpuPages { cpu: 3, nr_pages: 1 }],
        drain_is_enough: true,
        victim,
    };
    let reclaim = |means| Record::Reclaim {
        cgroup: cgroup(),
        means,
        tried_pages: 64,
        gained_pages: 0,
        took_ns: 9,
    };
    let changed = |cgroup, outcome, note| {
        let (key, from, to) = ("memory".into(), "max".into(), "4096".into());
        Record::ConfigChanged { cgroup, key, from, to, outcome, note }
    };
    let cpus = [CpuPages { cpu: 0, nr_pages: 31 }, CpuPages { cpu: 3, nr_pages: 1 }];
    vec![
        Record::LimitNear(limit(Resource::Memory)),
        Record::LimitHit(limit(Resource::Memsw)),
        drain(Why::Asked, None, &cpus),
        drain(Why::Reclaim, Some(cgroup()), &cpus[..1]),
        drain(Why::LimitNear, Some(gone()), &[]),
        drain(Why::LimitHit, Some(cgroup()), &cpus),
        drain(Why::CpuDead, None, &[]),
        reclaim(ReclaimMethod::MemoryReclaim),
        reclaim(ReclaimMethod::Lazyfree),
        reclaim(ReclaimMethod::Fadvise),
        reclaim(ReclaimMethod::Pageout),
        Record::OomKill { ancestor: cgroup(), victim: victim(), group: false, after_ns: 11 },
        Record::NoVictim { ancestor: gone() },
        Record::CacheOverLimit {
            ancestor: cgroup(),
            over_pages: 1,
            needed_pages: 2,
            file_pages: 3,
        },
        would(Some(victim())),
        would(None),
        Record::CpuDead { cpu: 1 },
        Record::CpuOnline { cpu: 1 },
        Record::CgroupAdded { cgroup: cgroup() },
        Record::CgroupDying { cgroup: cgroup() },
        Record::CgroupRemoved { cgroup: gone() },
        Record::Healed { nr_pages: 2 },
        Record::Lost { counter: "events_lost".into(), by: 3 },
        Record::EngineAdopted { pins: "/p".into() },
        Record::PartFailed { part: "tree".into(), error: "no \"way\"".into() },
        Record::PartRecovered { part: "tree".into() },
        changed(Some(cgroup()), Outcome::Refused, Some("it is \"busy\"".into())),
        changed(None, Outcome::NeedsRestart, None),
        changed(None, Outcome::Done, None),
        Record::ConfigReloaded { file: "/c".into(), done: 1, refused: 1, needs_restart: 1 },
        Record::ConfigRefused { file: "/c".into(), mistakes: 2 },
        Record::Ended,
    ]
}

#[test]
fn every_record_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_in(dir.path(), 1 << 20).unwrap();
    for record in every_kind() {
        journal.publish(record);
    }
    let read = all(&mut Reader::of(dir.path()));
    assert_eq!(read.iter().map(|r| r.entry.record.clone()).collect::<Vec<_>>(), every_kind());
    assert!(read.iter().zip(1..).all(|(read, seq)| read.entry.seq == seq));
    let text = fs::read_to_string(dir.path().join(CURRENT)).unwrap();
    assert!(text.lines().eq(read.iter().map(|read| read.line.as_str())), "{text}");
}

#[test]
fn the_text_has_the_names_of_the_json() {
    let text: Vec<_> = every_kind().iter().map(ToString::to_string).collect();
    let limit = "cgroup=/a/b ancestor=\"(removed, id 8)\" resource=memory nr_pages=32 \
                 usage=18446744073709551615 limit=4096";
    assert_eq!(text[0], format!("event: limit-near {limit}"));
    assert_eq!(
        text[2],
        "event: drain why=asked cgroup=all cpus=0:31,3:1 nr_pages=32 took_ns=5 merged=1"
    );
    assert_eq!(
        text[11],
        "event: oom-kill ancestor=/a/b victim=12 comm=\"a \\x22task\\x22\\x0a\" rss_pages=1 \
         swap_pages=0 page_table_pages=2 oom_score_adj=-999 group=false after_ns=11"
    );
    assert_eq!(
        text[26],
        "event: config-changed cgroup=/a/b key=memory from=max to=4096 outcome=refused \
         note=\"it is \\x22busy\\x22\""
    );
    assert_eq!(text.last().unwrap(), "event: ended");
}

#[test]
fn hostile_names_stay_one_line_and_one_value() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_in(dir.path(), 1 << 20).unwrap();
    let names: [&[u8]; 6] = [
        b"/a b=c kind=ended",
        b"/a\nevent: ended",
        b"/\xff\xfe\"",
        "/\u{2028}\u{3000}x\u{1b}[2J".as_bytes(),
        b"/a\\x20b",
        b"\"",
    ];
    for name in names {
        journal.publish(added(1, name));
    }
    let read = all(&mut Reader::of(dir.path()));
    assert_eq!(read.len(), names.len());
    for read in read {
        let text = read.entry.to_string();
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{2028}'), "{text:?}");
        assert!(!read.line.contains('\n'));
        // Outside quotation marks: the mark, the kind, and three fields.
        let outside: String = text.split('"').step_by(2).collect();
        assert_eq!(outside.split_whitespace().count(), 5, "{text}");
        assert!(text.matches('"').count() % 2 == 0, "{text}");
    }
}

#[test]
fn readers_go_over_rotations_without_gap_or_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_in(dir.path(), 1000).unwrap();
    let mut slow = Reader::of(dir.path());
    let mut fast = Reader::of(dir.path());
    let (mut slow_saw, mut fast_saw) = (Vec::new(), Vec::new());
    for n in 1..=100 {
        journal.publish(added(n, b"/a"));
        fast_saw.extend(numbers(&mut fast));
        // A file holds about seven records.
        if n % 7 == 0 {
            slow_saw.extend(numbers(&mut slow));
        }
    }
    slow_saw.extend(numbers(&mut slow));
    assert_eq!(fast_saw, (1..=100).collect::<Vec<_>>());
    assert_eq!(slow_saw, fast_saw);
    let late = numbers(&mut Reader::of(dir.path()));
    assert!(late.len() > 4 && late.len() < 20, "two files are there: {late:?}");
    assert!(fast_saw.ends_with(&late));
    for name in [BEFORE, CURRENT] {
        assert!(fs::metadata(dir.path().join(name)).unwrap().len() <= 1000);
    }
}

#[test]
fn a_reader_that_is_too_late_is_told_how_much_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_in(dir.path(), 1000).unwrap();
    let mut reader = Reader::of(dir.path());
    journal.publish(added(1, b"/a"));
    assert_eq!(numbers(&mut reader), [1]);
    (2..=100).for_each(|n| journal.publish(added(n, b"/a")));
    let read = all(&mut reader);
    let gap = read.iter().position(|r| matches!(r.entry.record, Record::Lost { .. })).unwrap();
    let Record::Lost { counter, by } = &read[gap].entry.record else { panic!() };
    assert_eq!(counter, "records_lost");
    // It still reads what it had open; the rest is there or counted.
    assert_eq!(read.len() as u64 - 1 + by, 99);
    assert_eq!(read[gap].entry.seq + by, read[gap + 1].entry.seq);
    assert_eq!(serde_json::from_str::<Entry>(&read[gap].line).unwrap(), read[gap].entry);
}

#[test]
fn a_torn_line_is_waited_for_and_taken_back_by_the_next_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_in(dir.path(), 1 << 20).unwrap();
    journal.publish(added(1, b"/a"));
    let path = dir.path().join(CURRENT);
    let line = fs::read_to_string(&path).unwrap().replace("\"seq\":1", "\"seq\":2");
    let mut reader = Reader::of(dir.path());
    assert_eq!(numbers(&mut reader), [1]);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    for byte in line.bytes() {
        assert!(numbers(&mut reader).is_empty());
        file.write_all(&[byte]).unwrap();
    }
    assert_eq!(numbers(&mut reader), [2]);
    die(journal);

    file.write_all(b"{\"seq\":3,").unwrap();
    assert!(numbers(&mut reader).is_empty());
    let journal = Journal::open_in(dir.path(), 1 << 20).unwrap();
    journal.publish(added(3, b"/b"));
    let read = all(&mut reader);
    assert_eq!((read.len(), read[0].entry.seq), (1, 3));
}

#[test]
fn the_next_daemon_goes_on_with_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = Reader::of(dir.path());
    let mut seen = Vec::new();
    for daemon in 0..5 {
        let journal = Journal::open_in(dir.path(), 700).unwrap();
        (0..=daemon).for_each(|n| journal.publish(added(n, b"/a")));
        seen.extend(numbers(&mut reader));
        die(journal);
    }
    // Also when it died between the two steps of a rotation.
    fs::rename(dir.path().join(CURRENT), dir.path().join(BEFORE)).unwrap();
    let journal = Journal::open_in(dir.path(), 700).unwrap();
    journal.publish(added(1, b"/a"));
    seen.extend(numbers(&mut reader));
    assert_eq!(seen, (1..=16).collect::<Vec<_>>());
}

#[test]
fn an_unreadable_line_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_in(dir.path(), 1 << 20).unwrap();
    (1..=3).for_each(|n| journal.publish(added(n, b"/a")));
    let path = dir.path().join(CURRENT);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for bad in ["", "{}", "\u{0}", &lines[1].replace("cgroup-added", "from-the-future")] {
        fs::write(&path, format!("{}\n{bad}\n{}\n", lines[0], lines[2])).unwrap();
        let read = all(&mut Reader::of(dir.path()));
        assert_eq!(read.iter().map(|r| r.entry.seq).collect::<Vec<_>>(), [1, 2, 3], "{bad}");
        assert!(matches!(read[1].entry.record, Record::Lost { by: 1, .. }), "{bad}");
    }
    die(journal);
}

#[test]
fn the_end_is_a_record_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = Reader::of(dir.path());
    assert!(all(&mut reader).is_empty(), "nothing is there yet");
    let journal = Journal::open_in(dir.path(), 1 << 20).unwrap();
    journal.publish(added(1, b"/a"));
    assert_eq!(numbers(&mut reader), [1]);
    assert!(!reader.is_over());
    journal.end().unwrap();
    assert_eq!(all(&mut reader).pop().unwrap().entry.record, Record::Ended);
    assert!(reader.is_over());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn another_engines_stream_is_not_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = Reader::of(dir.path());
    let journal = Journal::open_in(dir.path(), 1 << 20).unwrap();
    (1..=3).for_each(|n| journal.publish(added(n, b"/a")));
    assert_eq!(numbers(&mut reader), [1, 2, 3]);
    die(journal);
    super::remove_in(dir.path()).unwrap();
    let journal = Journal::open_in(dir.path(), 1 << 20).unwrap();
    journal.publish(added(1, b"/b"));
    assert!(numbers(&mut reader).is_empty());
    assert!(reader.is_over());
}
