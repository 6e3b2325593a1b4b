//! Lists what a verdict takes for granted: what the recording lacks, what was asked for, what no recording can tell.

use std::collections::{BTreeSet, HashMap};

use super::rehearse::{Kernel, Rehearsal, page_size};
use crate::model::size::human;
use crate::recording::{Recording, TaskEventKind};

/// One sentence for each assumption, the most important first.
pub fn assumes(rehearsal: &Rehearsal<'_>) -> Vec<String> {
    let (recording, uses) = (rehearsal.recording, &rehearsal.uses);
    let bytes = |pages: u64| human(pages.saturating_mul(page_size(recording)));
    let mut all = Vec::new();
    match &recording.end {
        None => all.push(format!(
            "the recording was cut off after {:.1} s: what happened later is not known",
            rehearsal.timeline.end.as_secs_f64()
        )),
        Some(end) => {
            let lost = end.lost.iter().filter(|(_, count)| *count > 0);
            all.extend(lost.map(|(name, count)| format!("lost while recording: {count} {name}")));
        }
    }
    all.extend(recording.header.assumes.iter().cloned());
    if rehearsal.is_blind() {
        all.push("what would be read again, and how slow that is, is not known".into());
    } else if rehearsal.known_read_ns().is_none() && rehearsal.knows_use {
        all.push("reading a page again takes 20 µs: the disk's time was not recorded".into());
    }
    if uses.taken.iter().any(|taken| taken.mapped > 0) {
        all.push("mapped files are in constant use: touches of their pages are not seen".into());
    }
    if uses.taken.iter().any(|taken| taken.text > 0) {
        all.push("without room for its text a program takes at least twice as long".into());
    }
    if uses.others > 0 {
        all.push(format!(
            "about {} of page cache that others had brought in stays charged to them",
            bytes(uses.others)
        ));
    }
    match rehearsal.what_if.swap {
        0 if recording.header.swap > 0 => all.push(format!(
            "none of the host's {} of swap is used (--swap host counts it)",
            bytes(recording.header.swap)
        )),
        0 => {}
        swap => all.push(format!("{} of swap, which takes no time", human(swap))),
    }
    match rehearsal.killed_for() {
        0 => {}
        dirty => all.push(format!(
            "{} of dirty pages count as needed: with MGLRU the kernel may kill for them",
            human(dirty)
        )),
    }
    if rehearsal.what_if.is_high {
        all.push("tasks above memory.high wait one after the other".into());
    }
    if rehearsal.what_if.kernel == Kernel::Lru {
        all.push("the kernel evicts pages strictly in the order of their last use".into());
    }
    all.push("the next run has the same load, and needs the same memory at any speed".into());
    all
}

/// The runtimes that [`followers`] finds, in a sentence.
pub fn runtimes(followers: &[String]) -> String {
    match followers {
        [] => "no runtime that sizes itself by its limit was recognised".into(),
        some => format!("{} would size itself by the limit: verify", some.join(", ")),
    }
}

/// Processes that seem to read their limit, each with the reason.
pub fn followers(recording: &Recording) -> Vec<String> {
    // A pid runs the program of its last exec at that time; later it may run another or be another process.
    let (mut comms, mut found) = (HashMap::new(), BTreeSet::new());
    for event in &recording.tasks {
        match &event.kind {
            TaskEventKind::Exec { comm } => drop(comms.insert(event.pid, comm.as_str())),
            TaskEventKind::FollowsLimit { why } => {
                let comm = comms.get(&event.pid).copied().unwrap_or("a task");
                found.insert(format!("{comm} ({why})"));
            }
            TaskEventKind::Born { .. } | TaskEventKind::Died => {}
        }
    }
    found.into_iter().collect()
}
