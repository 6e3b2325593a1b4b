//! `memstock guard`: what the daemon starts beside itself, to let go of what it holds if it dies.

use std::io;
use std::os::fd::AsFd as _;

use anyhow::Result;

use crate::enforce::guard as freezes;
use crate::exit::SUCCESS;

/// Hears from standard input until it ends.
///
/// # Errors
/// It cannot be read.
pub fn guard() -> Result<u8> {
    freezes::guard(io::stdin().as_fd()).map(|()| SUCCESS)
}
