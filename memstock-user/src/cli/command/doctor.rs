//! `memstock doctor`: what this host has of what memstock needs.

use std::io::{self, Write as _};

use anyhow::Result;

use super::closed_pipe_is_success;
use crate::cli::Doctor;
use crate::cli::doctor::Diagnosis;
use crate::cli::doctor::show::{document, write};

/// Probes the host and prints what was found; returns the exit code.
///
/// # Errors
/// The answer cannot be printed.
pub fn doctor(args: &Doctor) -> Result<u8> {
    let diagnosis = Diagnosis::make();
    let mut out = io::stdout().lock();
    closed_pipe_is_success(if args.json {
        writeln!(out, "{:#}", document(&diagnosis))
    } else {
        write(&mut out, &diagnosis)
    })?;
    Ok(diagnosis.exit_code())
}
