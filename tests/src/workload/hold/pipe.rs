//! Full pipes: kernel memory, charged to whoever writes.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Held;
use super::region::PAGE_SIZE;

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

pub(super) fn fill(nr_pages: usize) -> Result<Held> {
    let mut pipes: Vec<(OwnedFd, OwnedFd)> = Vec::new();
    let mut written = 0;
    while written < nr_pages {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (read, end) =
            pipe_with(flags).with_context(|| format!("pipe {} (see `ulimit -n`)", pipes.len()))?;
        // A write of a whole page takes one page, and fits completely or not at all.
        while written < nr_pages {
            match write(&end, &ZEROS) {
                Ok(_) => written += 1,
                Err(error) if error == Errno::AGAIN => break,
                Err(error) => return Err(error).context("filling a pipe"),
            }
        }
        pipes.push((read, end));
    }
    Ok(Held::new(nr_pages, move || {
        drop(pipes);
        Ok(())
    }))
}
