//! `memstock report`: draws what limits would do to a recorded run.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::rehearse::what_if;
use crate::cli;
use crate::exit::SUCCESS;
use crate::forecast::recommend::{Advice, Goal};
use crate::forecast::rehearse::Rehearsal;
use crate::host::cgroup::display;
use crate::recording;
use crate::view::report::Report;

/// Writes the files that were asked for.
///
/// # Errors
/// The recording cannot be read, a picture cannot be drawn, or a file cannot be written.
pub fn report(args: &cli::Report) -> Result<u8> {
    let recording = recording::read(&args.file)?;
    let rehearsal = Rehearsal::new(&recording, what_if(args.what_if, &recording));
    let advice = Advice::of(std::slice::from_ref(&rehearsal), Goal::default());
    let report = Report::of(&rehearsal, advice);
    if let Some(file) = &args.html {
        write(file, &report.html()?)?;
    }
    if let Some(file) = &args.svg {
        write(file, &report.svg()?)?;
    }
    Ok(SUCCESS)
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", display(file)))
}
