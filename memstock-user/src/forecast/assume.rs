//! What a verdict takes for granted, in words: what the recording lacks, what was asked for, what no recording can tell.

use super::rehearse::{Kernel, Rehearsal, page_size};
use crate::model::size::human;

/// A sentence each; the most important ones first.
pub fn assumes(rehearsal: &Rehearsal<'_>) -> Vec<String> {
    let (recording, uses) = (rehearsal.recording, &rehearsal.uses);
    let bytes = |pages: u64| human(pages.saturating_mul(page_size(recording)));
    let mut all = Vec::new();
    let followers = rehearsal.followers();
    all.push(match followers.as_slice() {
        [] => "no runtime that sizes itself by its limit was recognised".to_owned(),
        some => format!("{} would size itself by the limit: verify", some.join(", ")),
    });
    match &recording.end {
        None => all.push(format!(
            "the recording was cut off after {:.1} s: what came then is not known",
            rehearsal.timeline.end.as_secs_f64()
        )),
        Some(end) => {
            let lost = end.lost.iter().filter(|(_, count)| *count > 0);
            all.extend(lost.map(|(name, count)| format!("lost while recording: {count} {name}")));
        }
    }
    all.extend(recording.header.assumes.iter().cloned());
    if rehearsal.is_blind() {
        all.push("what was read of the page cache is not known, nor how slow it would be".into());
    } else if rehearsal.known_read_ns().is_none() && rehearsal.knows_use {
        all.push("a page that is read again takes 20 µs: the disk's time was not recorded".into());
    }
    if uses.taken.iter().any(|taken| taken.mapped > 0) {
        all.push("files that are mapped are in constant use: touches of them are not seen".into());
    }
    if uses.others > 0 {
        all.push(format!(
            "about {} of page cache that others had brought in stays theirs",
            bytes(uses.others)
        ));
    }
    match rehearsal.what_if.swap {
        0 if recording.header.swap > 0 => all.push(format!(
            "no swap is used, of the host's {} (--swap host has it count)",
            bytes(recording.header.swap)
        )),
        0 => {}
        swap => all.push(format!("{} of swap, and it takes no time", human(swap))),
    }
    match rehearsal.killed_for() {
        0 => {}
        dirty => all.push(format!(
            "{} of dirty pages are needed as well: with MGLRU, Linux before 6.13 kills for them",
            human(dirty)
        )),
    }
    if rehearsal.what_if.is_high {
        all.push("tasks above memory.high wait one after the other".into());
    }
    if rehearsal.what_if.kernel == Kernel::Lru {
        all.push("the kernel keeps what was used last, whatever that was".into());
    }
    all.push("the next run has the same load, and needs the same however fast it is".into());
    all
}
