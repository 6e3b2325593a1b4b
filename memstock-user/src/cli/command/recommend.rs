//! `memstock recommend`: says which limits to set for a recorded program.

use std::io::{self, Write as _};

use anyhow::Result;

use super::closed_pipe_is_success;
use super::rehearse::what_if;
use crate::cli::{Format, Recommend};
use crate::forecast::recommend::{Advice, Wish};
use crate::forecast::rehearse::Rehearsal;
use crate::recording::{self, Recording};
use crate::view::show::recommend::{Recommended, document, systemd, write, yaml};

/// Prints the limits.
///
/// # Errors
/// A recording cannot be read, or standard output not written.
pub fn recommend(args: &Recommend) -> Result<u8> {
    let recordings: Vec<Recording> =
        args.files.iter().map(|file| recording::read(file)).collect::<Result<_>>()?;
    let rehearsals: Vec<_> = recordings
        .iter()
        .map(|recording| Rehearsal::new(recording, what_if(args.what_if, recording)))
        .collect();
    let wish = Wish { slower: args.slower, margin: args.margin };
    let advice = Advice::of(&rehearsals, wish);
    let recommended = Recommended { rehearsals: &rehearsals, wish, advice };
    let mut out = io::stdout().lock();
    closed_pipe_is_success(match args.format {
        Format::Table => write(&mut out, &recommended),
        Format::Json => writeln!(out, "{:#}", document(&recommended)),
        Format::Yaml => yaml(&mut out, &recommended),
        Format::Systemd => systemd(&mut out, &recommended),
    })
}
