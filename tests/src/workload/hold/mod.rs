//! Gets memory in some way, holds it, and gives it back, each on command, so that a test can read figures in between.
//!
//! | command | what it does | reply |
//! |---|---|---|
//! | | starts | `ready` |
//! | `get` | gets the memory | `ok pages=N`: what a controller should charge for it |
//! | `give` | gives all of it back | `ok` |
//! | `exit` | gives back what is held, and ends | `ok` |
//!
//! The reply is `unavailable: …` if this host cannot do it, and `error: …` if something went wrong. As with `serve`,
//! the program is locked into memory before it prints `ready`. Later mappings are not locked, nor are a child's copies.
//!
//! `mode.rs` declares the ways; the other files implement them, and return a `Held`.

mod anonymous;
mod children;
mod file;
mod fixed;
mod huge;
mod hugetlb;
mod mode;
mod pipe;
mod region;
mod shared;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::statfs;
use rustix::mm::{MlockAllFlags, mlockall};

use self::file::Files;
pub(crate) use self::file::fill;
pub use self::mode::{Mode, Place};
use self::region::Region;
pub(crate) use self::shared::remove as remove_segment;
use super::cpus::pin;
use super::lines::{Lines, send};

/// statfs(2)'s type of ramfs, the root file system of a small virtual machine.
const RAMFS_MAGIC: libc::__fsword_t = 0x8584_58f6;

/// How much, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Order {
    /// Pages to get.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    pub pages: u32,
    /// Folder for the files that some modes make: on tmpfs or on a disk, as the mode requires.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// File to map, of at least as many pages, which another process has brought into the cache.
    #[arg(long)]
    pub file: Option<PathBuf>,
}

impl Order {
    fn nr_pages(&self) -> usize {
        self.pages as usize
    }

    /// The folder to make files in, if it is on the kind of file system that the mode needs.
    fn dir(&self, place: Place) -> Result<&Path> {
        let usual = match place {
            Place::Nowhere => bail!("this mode makes no files"),
            Place::Memory => "/dev/shm",
            Place::Disk => "/var/tmp",
        };
        let dir = self.dir.as_deref().unwrap_or(Path::new(usual));
        let kind = statfs(dir).with_context(|| dir.display().to_string())?.f_type;
        let in_memory = kind == libc::TMPFS_MAGIC || kind == RAMFS_MAGIC;
        if in_memory != (place == Place::Memory) {
            let wanted = if in_memory { "on a disk" } else { "in memory" };
            let reason = format!("{} is not {wanted}; give another with --dir", dir.display());
            return Err(Unavailable(reason).into());
        }
        Ok(dir)
    }
}

/// The host lacks something; the program did not fail.
#[derive(Debug)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// Held memory, and how to give it back.
struct Held {
    /// Pages that a controller should charge.
    nr_pages: usize,
    give: Box<dyn FnOnce() -> Result<()>>,
}

impl Held {
    fn new(nr_pages: usize, give: impl FnOnce() -> Result<()> + 'static) -> Self {
        Self { nr_pages, give: Box::new(give) }
    }

    /// A mapping, given back by unmapping it.
    fn region(nr_pages: usize, region: Region) -> Self {
        Self::new(nr_pages, move || region.unmap())
    }
}

/// Serves until `exit` or the end of standard input.
///
/// # Errors
/// When the CPU is not there, memory cannot be locked, or a pipe breaks.
pub fn serve(mode: Mode, order: &Order, cpu: Option<u32>) -> Result<()> {
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    if !mode.wants_huge() {
        // If the host's huge pages are set to `always`, 400 pages would be 512.
        huge::disable(true)?;
    }
    if mode == Mode::ExecStorm {
        // Once before, so that the heap it needs is allocated, and then locked.
        children::exec(1)?;
    }
    let mut lines = Lines::new();
    let mut held = None;
    mlockall(MlockAllFlags::CURRENT).context("locking the workload into memory")?;
    send(b"ready\n")?;
    while let Some(line) = lines.next()? {
        let leave = line == "exit";
        let reply = match handle(line, mode, order, &mut held) {
            Ok(reply) => reply,
            Err(error) if error.is::<Unavailable>() => format!("unavailable: {error}\n"),
            Err(error) => format!("error: {error:#}\n"),
        };
        send(reply.as_bytes())?;
        if leave {
            return Ok(());
        }
    }
    // No one reads replies any more, but a file would stay.
    give(&mut held)
}

fn handle(line: &str, mode: Mode, order: &Order, held: &mut Option<Held>) -> Result<String> {
    match line {
        "get" => {
            ensure!(held.is_none(), "it is held already; give first");
            let got = get(mode, order)?;
            let nr_pages = got.nr_pages;
            *held = Some(got);
            return Ok(format!("ok pages={nr_pages}\n"));
        }
        "give" if held.is_none() => bail!("there is nothing to give back; get first"),
        "give" | "exit" => give(held)?,
        _ => bail!("no such command"),
    }
    Ok("ok\n".to_owned())
}

fn give(held: &mut Option<Held>) -> Result<()> {
    held.take().map_or(Ok(()), |held| (held.give)())
}

fn get(mode: Mode, order: &Order) -> Result<Held> {
    let nr_pages = order.nr_pages();
    let files = || Files::new(order.dir(mode.place())?);
    let cached = || file::cached(order.file.as_deref(), nr_pages);
    match mode {
        Mode::AnonWrite => anonymous::write(nr_pages),
        Mode::AnonRead => anonymous::read(nr_pages),
        Mode::AnonReadWrite => anonymous::read_write(nr_pages),
        Mode::Locked => anonymous::locked(nr_pages),
        Mode::Mlock => anonymous::mlock(nr_pages),
        Mode::Pinned => anonymous::pinned(nr_pages),
        Mode::IoFlusher => anonymous::without_io(nr_pages),
        Mode::Populate => anonymous::populate(nr_pages),
        Mode::ReadInto => anonymous::read_into(nr_pages),
        Mode::Dontneed => anonymous::dontneed(nr_pages),
        Mode::MadvFree => anonymous::madv_free(nr_pages),
        Mode::Mremap => anonymous::mremap(nr_pages),
        Mode::Huge => huge::huge(nr_pages),
        Mode::HugePartial => huge::partial(nr_pages),
        Mode::Pieces => huge::pieces(nr_pages),
        Mode::PiecesShared => huge::pieces_shared(nr_pages),
        Mode::PiecesWanted => huge::pieces_wanted(nr_pages),
        Mode::SharedAnon => shared::anonymous(nr_pages),
        Mode::Memfd => shared::memfd(nr_pages),
        Mode::SysvShm => shared::sysv(nr_pages),
        Mode::TmpfsWrite | Mode::FileWrite => file::write(files()?, nr_pages),
        Mode::FileCopy => file::copy(files()?, nr_pages),
        Mode::FilesClosed => file::read_and_close(files()?, nr_pages),
        Mode::MappedCached => file::map_and_read(&cached()?, nr_pages),
        Mode::MmapFilePrivate => file::map_private(&cached()?, nr_pages),
        Mode::MmapFileShared => file::map_shared(files()?, nr_pages),
        Mode::ForkWrite => children::fork_write(nr_pages),
        Mode::ForkStorm => children::fork_storm(nr_pages),
        Mode::ExecStorm => children::exec_storm(),
        Mode::Pipe => pipe::fill(nr_pages),
        Mode::Secret => fixed::secret(nr_pages),
        Mode::RamfsWrite => fixed::ramfs_file(nr_pages),
        Mode::Symlinks => fixed::symlinks(nr_pages),
        Mode::AioRings => fixed::rings(nr_pages),
        Mode::HugetlbPrivate => hugetlb::private(),
        Mode::HugetlbShared => hugetlb::shared(),
    }
}
