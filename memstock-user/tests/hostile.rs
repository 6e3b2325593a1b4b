//! Malformed recordings with valid checksums: reading them, and everything the verbs do with them, must end in an
//! answer or a one-line error, and use a bounded amount of memory.
//!
//! Each input is derived from its number. `cargo xtask fuzz --inputs 1000000` tries a million.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use memstock::forecast::recommend::{Advice, Goal};
use memstock::forecast::rehearse::{Kernel, Rehearsal, WhatIf};
use memstock::forecast::replay::{Setting, replay, slot_each};
use memstock::recording::{
    Access, AccessKind, Charge, ChargeKind, Charger, End, File, Header, Holder, Moment, Peak,
    Recording, TaskEvent, TaskEventKind, Writer, parse,
};
use memstock::view::report::Report;
use memstock::view::show::recommend::Recommended;
use memstock::view::show::rehearse::Judged;
use memstock::view::show::replay::Replayed;
use memstock::view::show::{recommend, rehearse, replay as replays};
use memstock_tests::random::Random;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec;

/// Environment variables: how many inputs to try, and the first one's number.
const INPUTS: &str = "MEMSTOCK_INPUTS";
const FIRST: &str = "MEMSTOCK_FIRST_INPUT";
/// Pictures are drawn for one in this many inputs that can be read.
const DRAWN: u64 = 64;
/// Bytes allowed for reading a file: this, plus `A_BYTE` times its length. serde reserves at most 1 MiB for a list
/// before it has read as much, and an entry has few lists.
const READING: usize = 4 << 20;
const A_BYTE: usize = 64;
/// Bytes allowed for judging a recording, whatever its numbers are.
const JUDGING: usize = 64 << 20;
/// Time allowed for one input.
const LONGEST: Duration = Duration::from_secs(20);

/// Counts allocated bytes.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The result of `work`, and the most bytes that it held at once.
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let done = work();
    (done, PEAK.load(Relaxed).saturating_sub(before))
}

/// Frames of a recording that has every kind of entry.
fn frames() -> Vec<(u32, Vec<u8>)> {
    let mut whole = Vec::new();
    let mut writer = Writer::new(&mut whole, &header()).expect("a list takes all");
    write(&mut writer).expect("a list takes all");
    let end = End {
        at: Duration::from_secs(9),
        code: Some(3),
        read_bytes: Some(1 << 20),
        read_ns_per_page: Some(90_000),
        write_ns_per_page: Some(8_000),
        io_stalled_us: Some(7_000),
        lost: vec![("records".into(), 7), ("charges".into(), 1)],
        warnings: vec!["more may be needed".into()],
    };
    writer.end(&end).expect("a list takes all");
    split(&whole)
}

fn header() -> Header {
    Header {
        version: "0.1.0".into(),
        swap: 1000,
        cpus: 2,
        page_size: 4096,
        command: vec!["make".into(), "-j4".into()],
        assumes: vec!["Something.".into()],
        ..Header::default()
    }
}

fn write(writer: &mut Writer<&mut Vec<u8>>) -> io::Result<()> {
    writer.charges(32, 1)?;
    for index in 0..3 {
        let parent = u32::checked_sub(index, 1);
        writer.charger(&Charger { index, parent, path: Some("/a".into()) })?;
    }
    for number in 0..2 {
        let file = File { inode: number, path: Some("/f".into()), ..File::default() };
        let told = writer.file(&file, number)?;
        writer.program(told)?;
    }
    for n in 0..60_u32 {
        let (at, pages) = (Duration::from_millis(u64::from(n) * 100), u64::from(n));
        let moment = Moment {
            at,
            usage: 1000 + 50 * pages,
            needed: 500 + 20 * pages,
            file: 30 * pages,
            dirty: pages,
            mlocked: 3,
            shmem: 10,
            slab_reclaimable: Some(5),
            slab_unreclaimable: None,
            stacks: Some(pages),
        };
        writer.moment(&moment)?;
        let kinds = [AccessKind::Added, AccessKind::Read, AccessKind::Mapped];
        for (offset, kind) in kinds.into_iter().enumerate() {
            let index = 16 * ((u64::from(n) * 7 + offset as u64) % 40);
            writer.access(&Access { at, file: n % 2, index, pages: 16, one_in: 1, kind })?;
        }
        for kind in [ChargeKind::Fault, ChargeKind::Charged(1), ChargeKind::Uncharged(1 + n % 3)] {
            writer.charge(Charge { cpu: n % 2, index: n % 3, kind })?;
        }
        if n.is_multiple_of(20) {
            writer.charge(Charge { cpu: 0, index: 0, kind: ChargeKind::Drained })?;
            let task = |comm: &str, pid| Holder { pid, comm: comm.into(), badness: 9, anon: 400 };
            let tasks = vec![task("cc1", 7), task("sh", 8)];
            writer.peak(&Peak { at, needed: moment.needed, tasks })?;
            for kind in [
                TaskEventKind::Born { parent: 1 },
                TaskEventKind::Exec { comm: "cc1".into() },
                TaskEventKind::FollowsLimit { why: "JVM".into() },
                TaskEventKind::Died,
            ] {
                writer.task(&TaskEvent { at, pid: 7, kind })?;
            }
        }
    }
    writer.flush()
}

/// The kind of frame whose payload is compressed.
const ENTRIES: u32 = 2;

/// Kind and unpacked payload of each frame (`docs/recording.md`).
fn split(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let (mut at, mut frames) = (12, Vec::new());
    while at < bytes.len() {
        let (kind, len) = (number(at), number(at + 4) as usize);
        let payload = &bytes[at + 12..at + 12 + len];
        let unpacked = (kind == ENTRIES).then(|| decompress_to_vec(payload).expect("it is whole"));
        frames.push((kind, unpacked.unwrap_or(payload.to_vec())));
        at += 16 + len;
    }
    frames
}

/// The file made of these frames, with valid checksums.
fn join(frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"MEMSTOCK\x06\0\0\0".to_vec();
    for (kind, payload) in frames {
        let packed = (*kind == ENTRIES).then(|| compress_to_vec(payload, 1));
        let payload = packed.as_ref().unwrap_or(payload);
        let head = [kind.to_le_bytes(), (payload.len() as u32).to_le_bytes()].concat();
        bytes.extend(&head);
        bytes.extend(crc32fast::hash(&head).to_le_bytes());
        bytes.extend(payload);
        bytes.extend(crc32fast::hash(payload).to_le_bytes());
    }
    bytes
}

/// A random number as postcard encodes it: small, close to a boundary, or of any size.
fn varint(random: &mut Random) -> Vec<u8> {
    let near = [0, 1 << 7, 1 << 14, 1 << 16, 1 << 20, 1 << 31, 1 << 32, 1 << 52, 1 << 63, u64::MAX];
    let mut value = match random.below(4) {
        0 | 1 => random.below(64),
        2 => near[random.below(near.len() as u64) as usize]
            .wrapping_add(random.below(5))
            .wrapping_sub(2),
        _ => random.below(u64::MAX) >> random.below(64),
    };
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Mutates a payload.
fn change(payload: &mut Vec<u8>, random: &mut Random) {
    if payload.is_empty() {
        return payload.extend(varint(random));
    }
    let at = random.below(payload.len() as u64) as usize;
    match random.below(12) {
        // Replace one number; what follows is still decoded as before.
        0..=7 => {
            let is_last = |byte: &u8| byte & 0x80 == 0;
            let start = payload[..at].iter().rposition(is_last).map_or(0, |before| before + 1);
            let end = payload[at..].iter().position(is_last).map_or(payload.len(), |n| at + n + 1);
            payload.splice(start..end, varint(random));
        }
        8 => payload[at] ^= 1 << random.below(8),
        9 => payload.truncate(at),
        // Repeat a part, or, below, remove one.
        10 => {
            let end = (at + 1 + random.below(40) as usize).min(payload.len());
            let part = payload[at..end].to_vec();
            let to = random.below(payload.len() as u64) as usize;
            payload.splice(to..to, part);
        }
        _ => {
            let end = (at + 1 + random.below(8) as usize).min(payload.len());
            payload.drain(at..end);
        }
    }
}

/// The input with this number.
fn input(frames: &[(u32, Vec<u8>)], number: u64) -> Vec<u8> {
    let random = &mut Random::new(number);
    let mut frames = frames.to_vec();
    for _ in 0..=random.below(3) {
        let n = random.below(frames.len() as u64) as usize;
        match random.below(32) {
            0 => frames[n].0 = random.below(5) as u32,
            1 if frames.len() > 1 => drop(frames.remove(n)),
            2 => frames.push(frames[n].clone()),
            _ => change(&mut frames[n].1, random),
        }
        if frames.is_empty() {
            break;
        }
    }
    let mut bytes = join(&frames);
    // Damage one input in sixteen so that a checksum shows it.
    if random.below(16) == 0 {
        let at = random.below(bytes.len() as u64) as usize;
        if random.below(2) == 0 { bytes.truncate(at) } else { bytes[at] ^= 1 << random.below(8) }
    }
    bytes
}

/// Does everything that the verbs do with a recording.
fn judge(recording: &Recording, is_drawn: bool) {
    let out = &mut std::io::sink();
    for (swap, is_high, kernel) in
        [(0, false, Kernel::Host), (u64::MAX, false, Kernel::Host), (1 << 20, true, Kernel::Lru)]
    {
        let rehearsal = Rehearsal::new(recording, WhatIf { swap, is_high, kernel });
        let advice = Advice::of(std::slice::from_ref(&rehearsal), Goal::default());
        let rows = [0, 1, 1 << 20, 1 << 30, u64::MAX].map(|limit| rehearsal.judge(limit));
        let rows = rows.into_iter().chain(Judged::table(&rehearsal)).collect();
        let judged = Judged { rehearsal: &rehearsal, rows, advice };
        rehearse::write(out, &judged).expect("a sink takes all");
        let _ = rehearse::document(&judged).to_string();
        let rehearsals = std::slice::from_ref(&rehearsal);
        let recommended = Recommended { rehearsals, goal: Goal::default(), advice };
        recommend::write(out, &recommended).expect("a sink takes all");
        recommend::yaml(out, &recommended).expect("a sink takes all");
        recommend::systemd(out, &recommended).expect("a sink takes all");
        let _ = recommend::document(&recommended).to_string();
        if is_drawn && !is_high {
            let report = Report::of(&rehearsal, advice);
            // Failing to draw is allowed: the error is one line.
            let _ = (report.html(), report.svg());
        }
    }
    if let Some(charges) = &recording.charges {
        let each = slot_each(charges);
        let settings = [(8, 1), (1024, 7), (1, 64), (charges.batch, each)];
        let rows = settings.map(|(batch, slots)| Setting { batch, slots });
        let rows = rows.map(|setting| (setting, replay(charges, setting))).to_vec();
        let replayed = Replayed { recording, charges, rows };
        replays::write(out, &replayed).expect("a sink takes all");
        let _ = replays::document(&replayed).to_string();
    }
}

fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

#[test]
fn what_nobody_wrote_is_answered() {
    let frames = frames();
    let plain = parse(&join(&frames)).expect("it is a recording as long as nothing is changed");
    judge(&plain, true);
    let (first, inputs) = (asked(FIRST, 0), asked(INPUTS, 1000));
    let (mut refused, mut judged, mut drawn) = (0_u64, 0_u64, 0_u64);
    let (mut most_read, mut most_judged, mut longest) = (0, 0, Duration::ZERO);
    for number in first..first + inputs {
        let bytes = input(&frames, number);
        let begun = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| {
            let (read, held) = counted(|| parse(&bytes));
            let len = bytes.len();
            assert!(held <= READING + A_BYTE * len, "{held} bytes held to read {len}");
            most_read = most_read.max(held);
            match read {
                Err(wrong) => {
                    assert!(!wrong.contains('\n') && !wrong.is_empty(), "{wrong:?}");
                    refused += 1;
                }
                Ok(recording) => {
                    let is_drawn = judged.is_multiple_of(DRAWN);
                    let ((), held) = counted(|| judge(&recording, is_drawn));
                    assert!(held <= JUDGING, "{held} bytes held to judge {len}");
                    most_judged = most_judged.max(held);
                    judged += 1;
                    drawn += u64::from(is_drawn);
                }
            }
        }));
        let took = begun.elapsed();
        longest = longest.max(took);
        assert!(took <= LONGEST, "input {number}: {took:?}");
        if let Err(panic) = done {
            eprintln!("input {number}: {FIRST}={number} {INPUTS}=1");
            std::panic::resume_unwind(panic);
        }
    }
    println!(
        "{inputs} inputs: {refused} refused, {judged} judged and replayed, {drawn} of them drawn; at most {most_read} \
         bytes held to read one, {most_judged} to judge one; the slowest took {longest:?}"
    );
    // Unless enough inputs are refused, and enough judged, the test shows nothing.
    assert!(inputs < 100 || refused > inputs / 10 && judged > inputs / 10);
}
