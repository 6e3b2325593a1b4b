//! `memstock guard`: what the daemon starts beside itself, to undo what it leaves half done if it dies.

use std::io;

use anyhow::Result;

use crate::enforce::undo;
use crate::exit::SUCCESS;

/// Hears from standard input until it ends.
///
/// # Errors
/// Something could not be undone.
pub fn guard() -> Result<u8> {
    undo::guard(io::stdin().lock()).map(|()| SUCCESS)
}
