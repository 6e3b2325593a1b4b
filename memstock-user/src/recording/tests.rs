//! What is written is read again; a cut file is read up to the cut; anything else is refused in one line.

use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::read::{MOST_PAGES, parse};
use super::{
    Access, AccessKind, End, File, Header, Holder, Lru, Moment, Peak, Recording, TaskEvent,
    TaskEventKind, Writer, charges, read,
};
use crate::exit::exit_code;
use crate::host::workload::{Kind, Workload};

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn at() -> impl Strategy<Value = Duration> {
    (0..1_u64 << 40).prop_map(Duration::from_micros)
}

fn pages() -> impl Strategy<Value = u64> {
    0..=MOST_PAGES
}

fn path() -> impl Strategy<Value = PathBuf> {
    vec(any::<u8>(), 0..12).prop_map(|bytes| std::ffi::OsString::from_vec(bytes).into())
}

prop_compose! {
    fn name()(
        name in text(),
        [pod, namespace, container] in [of(text()), of(text()), of(text())],
        is_unit: bool,
    ) -> Workload {
        let kind = if is_unit { Kind::Unit } else { Kind::Container };
        Workload { kind, name, pod, namespace, container }
    }
}

prop_compose! {
    fn header()(
        words in [text(), text(), text(), text()],
        is_multi_gen: bool,
        swap: u64,
        cpus: u32,
        page_shift in 12..17_u32,
        cgroup in path(),
        command in vec(text(), 0..4),
        started: u64,
        assumes in vec(text(), 0..3),
        name in of(name()),
    ) -> Header {
        let [version, host, kernel, thp] = words;
        let lru = if is_multi_gen { Lru::MultiGen } else { Lru::Classic };
        let page_size = 1 << page_shift;
        Header { version, host, kernel, lru, swap, thp, cpus, page_size, cgroup, name, command, started, assumes }
    }
}

prop_compose! {
    fn moment()(
        at in at(),
        now in [pages(), pages(), pages(), pages(), pages(), pages()],
        others in [of(pages()), of(pages()), of(pages())],
    ) -> Moment {
        let [usage, needed, file, dirty, mlocked, shmem] = now;
        let [slab_reclaimable, slab_unreclaimable, stacks] = others;
        Moment { at, usage, needed, file, dirty, mlocked, shmem, slab_reclaimable, slab_unreclaimable, stacks }
    }
}

prop_compose! {
    fn holder()(pid: u32, comm in text(), badness: u64, anon: u64) -> Holder {
        Holder { pid, comm, badness, anon }
    }
}

fn event() -> impl Strategy<Value = TaskEventKind> {
    prop_oneof![
        any::<u32>().prop_map(|parent| TaskEventKind::Born { parent }),
        text().prop_map(|comm| TaskEventKind::Exec { comm }),
        Just(TaskEventKind::Died),
        text().prop_map(|why| TaskEventKind::FollowsLimit { why }),
    ]
}

prop_compose! {
    fn access(nr_files: u32)(
        at in at(),
        file in 0..nr_files,
        block in 0..1_u64 << 59,
        (first, last) in (0..16_u32, 0..16_u32).prop_map(|(a, b)| (a.min(b), a.max(b))),
        kind in prop_oneof![
            Just(AccessKind::Read), Just(AccessKind::Mapped), Just(AccessKind::Added), Just(AccessKind::Removed),
            Just(AccessKind::Dirtied),
        ],
    ) -> Access {
        Access { at, file, index: block * 16 + u64::from(first), pages: last - first + 1, one_in: 1, kind }
    }
}

prop_compose! {
    fn end()(
        at in at(),
        code in of(any::<i32>()),
        read_bytes in of(any::<u64>()),
        read_ns_per_page in of(any::<u64>()),
        write_ns_per_page in of(any::<u64>()),
        io_stalled_us in of(any::<u64>()),
        lost in vec((text(), any::<u64>()), 0..3),
        warnings in vec(text(), 0..3),
    ) -> End {
        End { at, code, read_bytes, read_ns_per_page, write_ns_per_page, io_stalled_us, lost, warnings }
    }
}

prop_compose! {
    fn recording()(
        header in header(),
        moments in vec(moment(), 0..8),
        peaks in vec((at(), any::<u64>(), vec(holder(), 0..3)), 0..4),
        tasks in vec((at(), any::<u32>(), event()), 0..8),
        accesses in vec(access(3), 0..16),
        files in vec((any::<u64>(), any::<u64>(), of(path()), any::<bool>()), 3),
        charges in of(charges::tests::charges()),
        end in of(end()),
    ) -> Recording {
        let peaks = peaks.into_iter().map(|(at, needed, tasks)| Peak { at, needed, tasks });
        let tasks = tasks.into_iter().map(|(at, pid, kind)| TaskEvent { at, pid, kind });
        let files = files.into_iter().map(|(device, inode, path, is_program)| File { device, inode, path, is_program });
        let (peaks, tasks, files) = (peaks.collect(), tasks.collect(), files.collect());
        let mut all = Recording { header, moments, peaks, tasks, accesses, files, charges, end };
        all.moments.sort_by_key(|it| it.at);
        all.peaks.sort_by_key(|it| it.at);
        all.tasks.sort_by_key(|it| it.at);
        all.accesses.sort_by_key(|it| it.at);
        all
    }
}

/// Writes a recording, all entries in the order of time.
fn written(all: &Recording) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &all.header).unwrap();
    for (number, file) in all.files.iter().enumerate() {
        // Two files may be equal and are still two.
        let told = writer.file(file, number as u64).unwrap();
        assert_eq!(told as usize, number);
        file.is_program.then(|| writer.program(told).unwrap());
    }
    let mut times: Vec<_> = all.moments.iter().map(|it| it.at).collect();
    times.extend(all.peaks.iter().map(|it| it.at));
    times.extend(all.tasks.iter().map(|it| it.at));
    times.extend(all.accesses.iter().map(|it| it.at));
    times.sort();
    times.dedup();
    for at in times {
        all.moments.iter().filter(|it| it.at == at).for_each(|it| writer.moment(it).unwrap());
        all.peaks.iter().filter(|it| it.at == at).for_each(|it| writer.peak(it).unwrap());
        all.tasks.iter().filter(|it| it.at == at).for_each(|it| writer.task(it).unwrap());
        all.accesses.iter().filter(|it| it.at == at).for_each(|it| writer.access(it).unwrap());
    }
    if let Some(charges) = &all.charges {
        charges::tests::write(charges, &mut writer);
    }
    match &all.end {
        Some(end) => drop(writer.end(end).unwrap()),
        None => writer.flush().unwrap(),
    }
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read(all in recording()) {
        prop_assert_eq!(parse(&written(&all)), Ok(all));
    }

    #[test]
    fn what_is_cut_is_read_up_to_there(all in recording()) {
        let bytes = written(&all);
        for len in 0..bytes.len() {
            match parse(&bytes[..len]) {
                Ok(part) => {
                    prop_assert_eq!(&part.header, &all.header);
                    prop_assert!(all.moments.starts_with(&part.moments));
                    prop_assert!(all.tasks.starts_with(&part.tasks));
                    prop_assert!(all.accesses.starts_with(&part.accesses));
                    prop_assert_eq!(part.end, None);
                }
                Err(wrong) => prop_assert!(wrong.contains("cut") || len == 0, "{} bytes: {}", len, wrong),
            }
        }
    }

    #[test]
    fn a_bit_that_is_flipped_is_found(all in recording(), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = written(&all);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(parse(&bytes).is_err());
    }

    #[test]
    fn bytes_at_random_are_refused(
        all in recording(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..32),
        noise in vec(any::<u8>(), 0..256),
    ) {
        let mut bytes = written(&all);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        // It may fail, but must not panic.
        let _ = parse(&bytes);
        let _ = parse(&noise);
        // The same after a valid beginning.
        let _ = parse(&[&bytes[..12], &noise].concat());
    }
}

#[test]
fn each_is_of_the_lowest_rate() {
    let access = |block: u64, one_in| Access {
        at: Duration::ZERO,
        file: 0,
        index: block * 16,
        pages: 1,
        one_in,
        kind: AccessKind::Read,
    };
    let mut bytes = Vec::new();
    let mut writer =
        Writer::new(&mut bytes, &Header { page_size: 4096, ..Header::default() }).unwrap();
    writer.file(&File::default(), 7).unwrap();
    for block in 0..1024 {
        writer.access(&access(block, 1)).unwrap();
    }
    writer.access(&access(0, 8)).unwrap();
    writer.flush().unwrap();
    let accesses = parse(&bytes).unwrap().accesses;
    assert!((96..160).contains(&accesses.len()), "{}", accesses.len());
    assert!(accesses.iter().all(|access| access.one_in == 8));
}

fn begun(bytes: &mut Vec<u8>) -> Writer<&mut Vec<u8>> {
    Writer::new(bytes, &Header { page_size: 4096, ..Header::default() }).unwrap()
}

#[test]
fn what_no_host_has_is_refused() {
    for pages in [MOST_PAGES, MOST_PAGES + 1, u64::MAX] {
        let plain = Moment { usage: pages, ..Moment::default() };
        let kernel = Moment { stacks: Some(pages), ..Moment::default() };
        for moment in [plain, kernel] {
            let mut bytes = Vec::new();
            let mut writer = begun(&mut bytes);
            writer.moment(&moment).unwrap();
            writer.flush().unwrap();
            assert_eq!(parse(&bytes).is_ok(), pages <= MOST_PAGES, "{moment:?}");
        }
    }
    for (one_in, is_fine) in [(1 << 24, true), (3, false), (1 << 25, false)] {
        let mut bytes = Vec::new();
        let mut writer = begun(&mut bytes);
        writer.file(&File::default(), 7).unwrap();
        let (at, kind) = (Duration::ZERO, AccessKind::Read);
        writer.access(&Access { at, file: 0, index: 0, pages: 1, one_in, kind }).unwrap();
        writer.flush().unwrap();
        assert_eq!(parse(&bytes).is_ok(), is_fine, "{one_in}");
    }
}

#[test]
fn one_that_is_none_is_refused_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let bytes = written(&Recording {
        header: Header { page_size: 4096, ..Header::default() },
        ..Recording::default()
    });
    let mut newer = bytes.clone();
    newer[8] = 99;
    let mut odd = Vec::new();
    drop(Writer::new(&mut odd, &Header { page_size: 4095, ..Header::default() }).unwrap());
    for (path, said) in [
        (dir.path().join("none"), "memstock record"),
        (dir.path().to_owned(), "is a directory"),
        ("/dev/zero".into(), "not a file"),
        (file("empty", b""), "is empty"),
        (file("text", b"MEMSTICK, and more"), "not a recording"),
        (file("begun", &bytes[..20]), "was cut"),
        (file("newer", &newer), "has format 99"),
        (file("odd", &odd), "damaged at byte"),
        (file("more", &[&bytes[..], b"more than twelve"].concat()), "damaged at byte"),
    ] {
        let error = read(&path).unwrap_err();
        let line = format!("{error:#}");
        assert!(line.contains(said) && !line.contains('\n'), "{line}");
        assert_eq!(exit_code(&error), 125, "{line}");
    }
    // Zeroes that a crash left behind.
    let torn = file("torn", &[&bytes[..], &[0; 4096]].concat());
    assert_eq!(read(&torn).unwrap().end, None);
}

#[test]
fn what_does_not_fit_on_the_disk_is_read_up_to_there() {
    struct Full(Vec<u8>);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = 1000 - self.0.len();
            self.0.extend(&bytes[..room.min(bytes.len())]);
            if room == 0 {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(room.min(bytes.len()))
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut disk = Full(Vec::new());
    let mut writer =
        Writer::new(&mut disk, &Header { page_size: 4096, ..Header::default() }).unwrap();
    let mut failed = 0;
    for at in 0..1000 {
        let moment = Moment { at: Duration::from_micros(at), usage: at, ..Moment::default() };
        let outcome = writer.moment(&moment).and_then(|()| writer.flush());
        failed += u32::from(outcome.is_err());
    }
    assert_eq!((failed, writer.bytes()), (1, 1000), "it is said once");
    let read = parse(&disk.0).unwrap();
    let last = read.moments.last().unwrap();
    assert_eq!((last.usage, read.end), (read.moments.len() as u64 - 1, None));
}
