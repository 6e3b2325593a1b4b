//! Full pipes: kernel memory, charged to whoever writes.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::io::write;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

use super::Held;
use super::region::PAGE_SIZE;

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

pub(super) fn fill(nr_pages: usize) -> Result<Held> {
    let mut pipes: Vec<(OwnedFd, OwnedFd)> = Vec::new();
    let mut written = 0;
    while written < nr_pages {
        let (read, end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .with_context(|| format!("pipe {} (see `ulimit -n`)", pipes.len()))?;
        // A write of a whole page takes one page. To a full pipe none is tried: since Linux 7 it would keep a page that
        // the kernel got for it in advance.
        let room = fcntl_getpipe_size(&end)? / PAGE_SIZE;
        let more = room.min(nr_pages - written);
        for _ in 0..more {
            write(&end, &ZEROS).context("filling a pipe")?;
        }
        written += more;
        pipes.push((read, end));
    }
    Ok(Held::new(nr_pages, move || {
        drop(pipes);
        Ok(())
    }))
}
