//! What a process has mapped, seen from inside and outside, on this host's kernel.

use super::super::{KernelPages, Kind};
use super::*;
use crate::exit::exit_code;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const HUGE: usize = 2 << 20;

/// A mapping that goes away on drop.
struct Mapping {
    start: *mut c_void,
    len: usize,
}

impl Mapping {
    fn anonymous(len: usize, prot: ProtFlags, flags: MapFlags) -> Self {
        // SAFETY: the kernel chooses an address that is free.
        let start = unsafe { mmap_anonymous(null_mut(), len, prot, flags) }.unwrap();
        Self { start, len }
    }

    fn private(len: usize) -> Self {
        Self::anonymous(len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    }

    fn of(file: impl AsFd, len: usize) -> Self {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses an address that is free.
        let start = unsafe { mmap(null_mut(), len, prot, MapFlags::SHARED, file, 0) }.unwrap();
        Self { start, len }
    }

    fn advise(&self, advice: Advice) {
        // SAFETY: it is our own mapping, and none of these advices changes what it holds.
        unsafe { madvise(self.start, self.len, advice) }.unwrap();
    }

    fn page(&self, index: usize) -> *const u8 {
        let offset = index * usize::try_from(page_size()).unwrap();
        assert!(offset < self.len);
        // SAFETY: it is inside of the mapping.
        unsafe { self.start.cast::<u8>().add(offset) }
    }

    fn write(&self, index: usize) -> u64 {
        // SAFETY: the page is mapped and writable, and nobody else knows of it.
        unsafe { AtomicU8::from_ptr(self.page(index).cast_mut()) }.store(1, Ordering::Relaxed);
        own_pfn(self.page(index)).unwrap()
    }

    fn read(&self, index: usize) -> u64 {
        // SAFETY: the page is mapped and readable.
        unsafe { AtomicU8::from_ptr(self.page(index).cast_mut()) }.load(Ordering::Relaxed);
        own_pfn(self.page(index)).unwrap()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is our own mapping, and nothing borrows from it.
        unsafe { munmap(self.start, self.len) }.unwrap();
    }
}

fn flags(pfn: u64) -> u64 {
    let mut word = [0];
    assert_eq!(KernelPages::flags().unwrap().read(pfn, &mut word).unwrap(), 1);
    word[0]
}

/// All pages of a process, by their numbers.
fn pages(pid: i32, scanner: Scanner) -> HashMap<u64, Mapped> {
    let mut pages = HashMap::new();
    walk(pid, scanner, |mapped| {
        pages.insert(mapped.pfn, mapped);
    })
    .unwrap();
    pages
}

/// A file on a real file system, which tmpfs is not.
fn file_on_disk() -> File {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    ["/var/tmp", env!("CARGO_MANIFEST_DIR"), "/tmp"]
        .into_iter()
        .filter_map(|dir| tempfile::tempfile_in(dir).ok())
        .find(|file| rustix::fs::fstatfs(file).unwrap().f_type as u64 != TMPFS_MAGIC)
        .expect("this test needs a directory that is not on tmpfs")
}

#[test]
fn fresh_pages_are_of_their_kind() {
    if memstock_tests::live::is_refused() {
        return;
    }
    let private = Mapping::private(1 << 16);
    let (anonymous, zero) = (private.write(0), private.read(1));

    let file = file_on_disk();
    file.set_len(1 << 16).unwrap();
    let cached = Mapping::of(&file, 1 << 16);
    let (file_read, file_written) = (cached.read(0), cached.write(1));

    let memfd = memfd_create("memstock-test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memfd, 1 << 16).unwrap();
    let (memfd, shared) = (
        Mapping::of(&memfd, 1 << 16),
        Mapping::anonymous(1 << 16, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
    );

    let found = pages(std::process::id().cast_signed(), scan);
    for (pfn, kind, is_file_or_shared) in [
        (anonymous, Kind::Anonymous, false),
        (file_read, Kind::File, true),
        (file_written, Kind::File, true),
        (memfd.write(0), Kind::Shared, true),
        (shared.write(0), Kind::Shared, true),
    ] {
        let flags = flags(pfn);
        assert_eq!(Kind::of(flags), kind, "{flags:#x}");
        assert!(kind.is_user());
        if let Some(mapped) = found.get(&pfn) {
            assert_eq!(mapped.is_file_or_shared, is_file_or_shared, "{kind:?}");
            assert!(mapped.is_exclusive, "{kind:?}");
        }
    }
    assert!(!Kind::of(flags(zero)).is_user());
    assert!(found.contains_key(&anonymous) && !found.contains_key(&zero));
}

/// The pages of a huge page have consecutive numbers and the same kind. If the kernel gives no huge page (none is free,
/// or they are off), the kind is the same, too.
#[test]
fn huge_pages_are_anonymous_throughout() {
    if memstock_tests::live::is_refused() {
        return;
    }
    let mapping = Mapping::private(2 * HUGE);
    mapping.advise(Advice::LinuxHugepage);
    let page = usize::try_from(page_size()).unwrap();
    let first = (mapping.start.addr().next_multiple_of(HUGE) - mapping.start.addr()) / page;
    for index in 0..HUGE / page {
        let pfn = mapping.write(first + index);
        assert_eq!(Kind::of(flags(pfn)), Kind::Anonymous, "page {index}");
    }
}

#[test]
fn each_way_finds_the_same() {
    if memstock_tests::live::is_refused() {
        return;
    }
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id().cast_signed();
    // Wait until it sleeps: then its pages stay as they are.
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_sleeping = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains("(sleep) S")
    };
    while !is_sleeping() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    // Reading does not tell zero pages apart, and leaves out the kernel's pages by name.
    let user = |pages: &HashMap<u64, Mapped>| -> HashSet<u64> {
        pages.keys().copied().filter(|&pfn| Kind::of(flags(pfn)).is_user()).collect()
    };
    // Between the two, compaction can move pages to other frames, and reclaim can take some of the libraries': rare,
    // and not each time.
    let differ = || {
        let (scanned, read) = (pages(pid, scan), pages(pid, |_, _, _| Ok(false)));
        assert!(scanned.len() > 50);
        let different: Vec<_> =
            user(&scanned).symmetric_difference(&user(&read)).copied().collect();
        (!different.is_empty()).then_some(different)
    };
    let different = (0..10).map_while(|_| differ()).collect::<Vec<_>>();
    child.kill().unwrap();
    let is_dead = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(&child)), is_dead).unwrap();
    // A zombie, and then nobody.
    for _ in 0..2 {
        mapped_pages(pid, |_| panic!("it has no memory")).unwrap();
        child.wait().unwrap();
    }
    assert!(different.len() < 10, "{different:?}");
}

/// One page in each TiB of reserved addresses.
#[test]
fn sparse_mappings_are_fast() {
    if memstock_tests::live::is_refused() {
        return;
    }
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    let sparse = Mapping::anonymous(1 << 41, ProtFlags::READ | ProtFlags::WRITE, flags);
    let page = usize::try_from(page_size()).unwrap();
    let expected =
        [sparse.write(5), sparse.write((1 << 40) / page), sparse.write((1 << 41) / page - 1)];
    let start = Instant::now();
    let found = pages(std::process::id().cast_signed(), scan);
    // Takes milliseconds; the bound only excludes reading all 4 GiB of entries.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(expected.iter().all(|pfn| found.contains_key(pfn)));
}

#[test]
fn kernel_threads_and_strangers() {
    if memstock_tests::live::is_refused() {
        return;
    }
    let kthreadd = fs::read_to_string("/proc/2/comm").unwrap_or_default();
    if kthreadd.trim() == "kthreadd" {
        mapped_pages(2, |_| panic!("it has no memory")).unwrap();
    }
    // Above the highest possible pid.
    mapped_pages(1 << 30, |_| panic!("it is nobody")).unwrap();
}

#[test]
fn an_untouched_page_has_no_number() {
    let mapping = Mapping::private(1 << 16);
    let error = own_pfn(mapping.page(3)).unwrap_err();
    assert!(error.to_string().contains("touch it first"), "{error:#}");
    assert_eq!(exit_code(&error), 125);
}

/// Capabilities belong to a thread.
#[test]
fn without_the_capability_there_are_no_numbers() {
    let (own, all) = std::thread::spawn(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets).unwrap();
        let byte = Box::new(1u8);
        (own_pfn(&raw const *byte), mapped_pages(std::process::id().cast_signed(), |_| {}))
    })
    .join()
    .unwrap();
    let error = own.unwrap_err();
    assert_eq!(exit_code(&error), 120, "{error:#}");
    assert_eq!(all.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn entries_are_decoded() {
    let none = Mapped::from_entry(1 << 62 | 77).unwrap();
    assert_eq!(none, None);
    let page = Mapped::from_entry(PRESENT | EXCLUSIVE | 1 << 55 | 77).unwrap().unwrap();
    assert_eq!(page, Mapped { pfn: 77, is_file_or_shared: false, is_exclusive: true });
    let page = Mapped::from_entry(PRESENT | FILE | PFN).unwrap().unwrap();
    assert_eq!(page, Mapped { pfn: PFN, is_file_or_shared: true, is_exclusive: false });
    let error = Mapped::from_entry(PRESENT).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn devices_are_not_memory() {
    let maps = b"5581a000-5581c000 r--p 00000000 fe:00 123                /usr/bin/a b (deleted)\n\
        5581c000-5581d000 rw-p 00000000 00:00 0 \n\
        7f000000-7f001000 rw-s 00000000 00:01 7                  /dev/zero (deleted)\n\
        7f001000-7f002000 rw-s 00000000 00:06 7                  /dev/nvidia0\n\
        7f002000-7f003000 rw-s 00000000 00:1a 7                  /dev/shm/x\n\
        7ffd0000-7ffd4000 r--p 00000000 00:00 0                  [vvar]\n\
        7ffd4000-7ffd6000 r--p 00000000 00:00 0                  [vvar_vclock]\n\
        7ffd6000-7ffd8000 r-xp 00000000 00:00 0                  [vdso]\n\
        ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n\
        nonsense\n";
    let starts: Vec<_> = mapped_ranges(maps).iter().map(|range| range.start).collect();
    assert_eq!(starts, [0x5581_a000, 0x5581_c000, 0x7f00_0000, 0x7f00_2000, 0x7ffd_6000]);
    assert_eq!(mapped_ranges(maps)[0].end, 0x5581_c000);
}
