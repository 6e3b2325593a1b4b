//! `memstock completions`: prints a shell's completion script.

use std::io::{self, Write as _};

use anyhow::Result;
use clap_complete::generate;

use super::closed_pipe_is_success;
use crate::cli::manual::NAME;
use crate::cli::{self, Completions};

/// Prints the script of the shell.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(args: &Completions) -> Result<u8> {
    let mut script = Vec::new();
    generate(args.shell, &mut cli::shown(), NAME, &mut script);
    closed_pipe_is_success(io::stdout().lock().write_all(&script))
}
