//! `memstock recommend`: recommends limits for a recorded program, or for the cgroups that a Prometheus has scraped.

mod prometheus;

use std::io::{self, Write as _};

use anyhow::Result;

use super::closed_pipe_is_success;
use super::rehearse::{refuse_empty, what_if};
use crate::cli::{Format, Recommend};
use crate::exit::Failure;
use crate::forecast::recommend::{Advice, Goal};
use crate::forecast::rehearse::Rehearsal;
use crate::recording::{self, Recording};
use crate::view::show::fleet;
use crate::view::show::recommend::{Recommended, document, systemd, write, yaml};

/// Prints the limits.
///
/// # Errors
/// A recording or Prometheus cannot be read, or standard output cannot be written.
pub fn recommend(args: &Recommend) -> Result<u8> {
    if let Some(url) = &args.prometheus {
        return fleet(args, url);
    }
    let recordings: Vec<Recording> =
        args.files.iter().map(|file| recording::read(file)).collect::<Result<_>>()?;
    let rehearsals: Vec<_> = recordings
        .iter()
        .map(|recording| Rehearsal::new(recording, what_if(args.what_if, recording)))
        .collect();
    for (file, rehearsal) in args.files.iter().zip(&rehearsals) {
        refuse_empty(file, rehearsal)?;
    }
    let goal = Goal { slower: args.slower, margin: args.margin };
    let advice = Advice::of(&rehearsals, goal);
    let recommended = Recommended { rehearsals: &rehearsals, goal, advice };
    let mut out = io::stdout().lock();
    closed_pipe_is_success(match args.format {
        Format::Table => write(&mut out, &recommended),
        Format::Json => writeln!(out, "{:#}", document(&recommended)),
        Format::Yaml => yaml(&mut out, &recommended),
        Format::Systemd => systemd(&mut out, &recommended),
    })
}

fn fleet(args: &Recommend, url: &str) -> Result<u8> {
    let write = match args.format {
        Format::Table => fleet::write,
        Format::Json => fleet::json,
        Format::Yaml | Format::Systemd => {
            return Err(
                Failure::Usage.error("--format: with --prometheus, the output is a table or JSON")
            );
        }
    };
    let services = prometheus::services(url, &args.window, args.margin)?;
    closed_pipe_is_success(write(&mut io::stdout().lock(), &args.window, &services))
}
