//! The ways to get memory, declared once for the command line and for tests.

use clap::ValueEnum;

/// A way to get memory. [`ValueEnum::value_variants`] lists them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Mode {
    /// Private anonymous memory, written.
    AnonWrite,
    /// Private anonymous memory, only read: maps the zero page.
    AnonRead,
    /// Private anonymous memory, read and then written.
    AnonReadWrite,
    /// Mapped with `MAP_LOCKED`.
    Locked,
    /// Mapped, then `mlock(2)`.
    Mlock,
    /// Private anonymous memory that is first touched as it is pinned for long: registered with io_uring.
    Pinned,
    /// Private anonymous memory, written by a task that does no I/O to get memory (`PR_SET_IO_FLUSHER`).
    IoFlusher,
    /// Mapped with `MAP_POPULATE`.
    Populate,
    /// `read(2)` into fresh memory.
    ReadInto,
    /// Written, dropped with `MADV_DONTNEED`, written again.
    Dontneed,
    /// Written; given back with `MADV_FREE`, then unmapped.
    MadvFree,
    /// Written while it grows by `mremap(2)`, then moved.
    Mremap,
    /// Huge pages, one touch each; at least as many small pages as asked for.
    Huge,
    /// Four huge pages or more, half of each unmapped: every second small page, or the second half.
    HugePartial,
    /// Small pages in whole huge-page areas, which can be collapsed on request.
    Pieces,
    /// The same, in shared anonymous memory.
    PiecesShared,
    /// The same with `MADV_HUGEPAGE`, for khugepaged to find.
    PiecesWanted,
    /// Shared anonymous memory, written.
    SharedAnon,
    /// A `memfd`, mapped and written.
    Memfd,
    /// A System V shared memory segment, written.
    SysvShm,
    /// `write(2)` to a file in memory.
    TmpfsWrite,
    /// `write(2)` to a file on a disk.
    FileWrite,
    /// A file on a disk, written, and copied half by `read(2)` and half by `sendfile(2)`.
    FileCopy,
    /// Files of 16 pages on a disk, each written, read back from the disk, and closed: what `tar` leaves.
    FilesClosed,
    /// A file that another process brought into the cache, mapped and read.
    MappedCached,
    /// Such a file mapped with `MAP_PRIVATE`, written.
    MmapFilePrivate,
    /// A new file on a disk mapped with `MAP_SHARED`, written.
    MmapFileShared,
    /// Written; then a child writes all of it too, and holds its copy.
    ForkWrite,
    /// 200 children, at most 16 at once, that write that much each and end.
    ForkStorm,
    /// `true`, 200 times.
    ExecStorm,
    /// Full pipes.
    Pipe,
    /// Secret memory (`memfd_secret(2)`), written.
    Secret,
    /// `write(2)` to a file of a ramfs.
    RamfsWrite,
    /// Symbolic links in a ramfs.
    Symlinks,
    /// Rings for asynchronous I/O.
    AioRings,
    /// Private hugetlb pages beyond its pool: charged to no cgroup.
    HugetlbPrivate,
    /// The same in a file.
    HugetlbShared,
}

/// Where a mode makes its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It makes none.
    Nowhere,
    /// On a tmpfs.
    Memory,
    /// On a disk.
    Disk,
}

impl Mode {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Where it makes files.
    pub fn place(self) -> Place {
        match self {
            Self::TmpfsWrite => Place::Memory,
            Self::FileWrite | Self::FileCopy | Self::FilesClosed | Self::MmapFileShared => {
                Place::Disk
            }
            _ => Place::Nowhere,
        }
    }

    /// Whether it needs a file that another process has brought into the cache.
    pub fn wants_file(self) -> bool {
        matches!(self, Self::MappedCached | Self::MmapFilePrivate)
    }

    /// Whether its pages can never be reclaimed, although the kernel's figures count them as cache.
    pub fn is_unevictable(self) -> bool {
        matches!(self, Self::Secret | Self::RamfsWrite | Self::Symlinks)
    }

    /// Whether it is about huge pages.
    pub fn wants_huge(self) -> bool {
        use Mode::{Huge, HugePartial, Pieces, PiecesShared, PiecesWanted};
        matches!(self, Huge | HugePartial | Pieces | PiecesShared | PiecesWanted)
    }
}
