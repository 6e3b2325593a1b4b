//! Lists why a recording may show less than its program needs, and what a verdict takes for granted: what the recording
//! lacks, what was asked for, what no recording can tell.

use std::collections::{BTreeSet, HashMap};

use super::rehearse::{Kernel, Rehearsal, page_size};
use crate::model::size::human;
use crate::recording::{Recording, TaskEventKind};

/// Reasons to verify a limit before it is set, a sentence each: the program may need more than was recorded.
pub fn warnings(recording: &Recording) -> Vec<String> {
    let mut all: Vec<_> =
        followers(recording).into_iter().map(|who| format!("{who}: verify")).collect();
    let Some(end) = &recording.end else {
        all.push("the recording was cut off: what happened later is not known".into());
        return all;
    };
    let lost = end.lost.iter().filter(|(_, count)| *count > 0);
    all.extend(lost.map(|(name, count)| format!("lost while recording: {count} {name}")));
    all.extend(end.code.filter(|&code| code != 0).map(|code| format!("COMMAND ended with {code}")));
    all.extend(end.warnings.iter().cloned());
    all
}

/// One sentence for each assumption, the most important first.
pub fn assumes(rehearsal: &Rehearsal<'_>) -> Vec<String> {
    let (recording, uses) = (rehearsal.recording, &rehearsal.uses);
    let bytes = |pages: u64| human(pages.saturating_mul(page_size(recording)));
    let mut all = Vec::new();
    if followers(recording).is_empty() {
        all.push("no runtime that sizes itself by its limit was recognised".into());
    }
    all.extend(recording.header.assumes.iter().cloned());
    if rehearsal.is_blind() {
        all.push("what would be read again, and how slow that is, is not known".into());
    } else if rehearsal.known_read_ns().is_none() && rehearsal.knows_use {
        all.push("reading a page again takes 20 µs: the disk's time was not recorded".into());
    }
    if let Some(part) = rehearsal.part_waited().filter(|&part| part < 1.0) {
        all.push(format!(
            "reading again stalls tasks for {:.0} % of the disk's time, as reading did (io.pressure)",
            part * 100.0
        ));
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

/// Processes that seem to read their limit, each with the reason.
fn followers(recording: &Recording) -> Vec<String> {
    // A pid runs the program of its last exec at that time; later it may run another or be another process.
    let (mut comms, mut found) = (HashMap::new(), BTreeSet::new());
    for event in &recording.tasks {
        match &event.kind {
            TaskEventKind::Exec { comm } => drop(comms.insert(event.pid, comm.as_str())),
            TaskEventKind::FollowsLimit { why } => {
                let comm = comms.get(&event.pid).copied().unwrap_or("a task");
                found.insert(format!("{comm}: {why}"));
            }
            TaskEventKind::Born { .. } | TaskEventKind::Died => {}
        }
    }
    found.into_iter().collect()
}
