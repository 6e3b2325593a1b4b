//! `memstock guard`: a process that the daemon starts, to unfreeze what it holds if it dies.

use std::io;
use std::os::fd::AsFd as _;

use anyhow::Result;

use crate::enforce::guard as freezes;
use crate::exit::SUCCESS;

/// Reads the daemon's messages from standard input until end of file.
///
/// # Errors
/// It cannot be read.
pub fn guard() -> Result<u8> {
    freezes::guard(io::stdin().as_fd()).map(|()| SUCCESS)
}
