//! A process that has memory like processes that meet limits in the field, and then wants more:
//!
//! | command | what it does | reply |
//! |---|---|---|
//! | | touches its first pages | `ready` |
//! | `grow` | touches more | `ok` |

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::lines::{Lines, send};
use super::pages::Mapping;
use crate::PAGE;

/// What it has first, and wants then.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Order {
    /// Pages of private memory at first; at least one.
    #[arg(long, default_value_t = 0)]
    pub first: u32,
    /// Pages of private memory that it wants then; at least one.
    #[arg(long, default_value_t = 0)]
    pub more: u32,
    /// End the main thread; another one goes on.
    #[arg(long)]
    pub leaderless: bool,
    /// Give the first pages back with MADV_FREE.
    #[arg(long)]
    pub lazyfree: bool,
    /// Enter the mount namespace of this process.
    #[arg(long)]
    pub mounts_of: Option<u32>,
    /// Open a file, read all of it, and keep it open.
    #[arg(long)]
    pub reads: Option<PathBuf>,
    /// Have a thread wait for ever for a read of this file.
    #[arg(long)]
    pub waits_for: Option<PathBuf>,
    /// Map a file and read each page.
    #[arg(long)]
    pub maps: Option<PathBuf>,
    /// `oom_score_adj`.
    #[arg(long, allow_hyphen_values = true)]
    pub adj: Option<i32>,
}

/// # Errors
/// When a file cannot be used, or a pipe breaks.
pub fn run(order: Order) -> Result<()> {
    if let Some(pid) = order.mounts_of {
        let namespace = File::open(format!("/proc/{pid}/ns/mnt")).context("its mounts")?;
        use std::os::fd::AsFd as _;
        let kind = Some(LinkNameSpaceType::Mount);
        move_into_link_name_space(namespace.as_fd(), kind).context("its mounts")?;
    }
    if let Some(adj) = order.adj {
        std::fs::write("/proc/self/oom_score_adj", adj.to_string()).context("oom_score_adj")?;
    }
    if !order.leaderless {
        return go_on(&order);
    }
    thread::spawn(move || {
        if go_on(&order).is_err() {
            std::process::exit(1);
        }
        std::process::exit(0);
    });
    // SAFETY: ends only this thread, which holds nothing that others need.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    bail!("a thread that has ended goes on")
}

fn go_on(order: &Order) -> Result<()> {
    let mut open = order.reads.as_ref().map(File::open).transpose().context("the file")?;
    if let Some(file) = &mut open {
        std::io::copy(file, &mut std::io::sink()).context("reading")?;
    }
    if let Some(path) = order.waits_for.clone() {
        thread::spawn(move || File::open(path)?.read(&mut [0; 1]));
    }
    let mapped = order.maps.as_ref().map(File::open).transpose().context("the file")?;
    if let Some(file) = &mapped {
        read_mapped(file)?;
    }
    let first = Mapping::new(order.first.max(1) as usize)?;
    first.touch();
    if order.lazyfree {
        first.free_lazily()?;
    }
    // Give the main thread time to end.
    thread::sleep(Duration::from_millis(100));
    send(b"ready\n")?;
    let mut more = None;
    let mut lines = Lines::new();
    while let Some(line) = lines.next()? {
        match line {
            "grow" => more.insert(Mapping::new(order.more.max(1) as usize)?).touch(),
            line => bail!("it does not know {line}"),
        }
        send(b"ok\n")?;
    }
    drop((open, mapped, first, more));
    Ok(())
}

/// Maps a whole file, never unmaps it, and reads each page.
fn read_mapped(file: &File) -> Result<()> {
    let len = usize::try_from(file.metadata()?.len())?;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing, and the file is not truncated.
    let start = unsafe {
        let protection = ProtFlags::READ;
        let start = mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0)?;
        madvise(start, len, Advice::Normal)?;
        start.cast::<u8>()
    };
    for at in (0..len).step_by(PAGE as usize) {
        // SAFETY: in the mapping.
        unsafe { start.add(at).read_volatile() };
    }
    Ok(())
}
