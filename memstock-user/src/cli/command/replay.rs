//! `memstock replay`: shows what other batches and slots would do with recorded charges.

use std::io::{self, Write as _};

use anyhow::Result;

use super::closed_pipe_is_success;
use crate::cli::Replay;
use crate::exit::{Failure, SUCCESS};
use crate::forecast::replay::{Setting, replay as run, slot_each};
use crate::host::cgroup::display;
use crate::recording::{self, Charges};
use crate::view::show::replay::{Replayed, document, write};

/// The batches that are tried by default, beside the recorded one.
const BATCHES: [u32; 5] = [8, 32, 64, 128, 256];
/// The slots that are tried by default, beside the recorded number and one for each cgroup: those of the patch, and of
/// newer kernels (`NR_MEMCG_STOCK`).
const SLOTS: [u32; 2] = [1, 7];

/// Prints a row for each setting.
///
/// # Errors
/// The recording cannot be read, has no charges, or standard output cannot be written.
pub fn replay(args: &Replay) -> Result<u8> {
    let recording = recording::read(&args.file)?;
    let Some(charges) = &recording.charges else {
        let name = display(&args.file);
        return Err(Failure::Other.error(format!(
            "{name} has no charges: \"memstock record --charges -- COMMAND\" records them"
        )));
    };
    let rows = settings(args, charges).map(|setting| (setting, run(charges, setting))).collect();
    let replayed = Replayed { recording: &recording, charges, rows };
    let mut out = io::stdout().lock();
    let printed = if args.json {
        writeln!(out, "{:#}", document(&replayed))
    } else {
        write(&mut out, &replayed)
    };
    closed_pipe_is_success(printed)?;
    Ok(SUCCESS)
}

/// Each batch with each number of slots.
fn settings(args: &Replay, charges: &Charges) -> impl Iterator<Item = Setting> {
    let asked = |asked: &[u32], tried: &[u32]| {
        let mut all = if asked.is_empty() { tried.to_vec() } else { asked.to_vec() };
        all.sort_unstable();
        all.dedup();
        all
    };
    let each = slot_each(charges);
    // With one cgroup, or none, more slots make no difference.
    let tried = if each == 1 { vec![1] } else { [&SLOTS[..], &[each, charges.slots]].concat() };
    let slots = asked(&args.slots, &tried);
    let batches = asked(&args.batches, &[&BATCHES[..], &[charges.batch]].concat());
    slots.into_iter().flat_map(move |slots| {
        batches.clone().into_iter().map(move |batch| Setting { batch, slots })
    })
}
