//! What a verdict takes for granted, in words: what the recording lacks, what was asked for, what no recording can tell.

use super::rehearse::{Kernel, Rehearsal, page_size};
use crate::model::size::human;
use crate::recording::Lru;

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
    if rehearsal.lru() == Lru::MultiGen
        && is_before(&recording.header.kernel, (6, 13))
        && rehearsal.timeline.dirty_above(0) > 0
    {
        all.push(
            "files are written no faster than the disk takes them: with MGLRU, Linux before 6.13 kills for dirty pages"
                .into(),
        );
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

/// Whether a release of Linux (`6.12.117+deb12`) is older; one that is not understood is not.
fn is_before(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < version,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert!(is_before("6.12.117+deb12-cloud-amd64", (6, 13)));
        assert!(is_before("5.19.0", (6, 13)));
        for other in ["6.13.0", "6.18.44-fc-v782", "7.3.4", "10.1", "", "unknown"] {
            assert!(!is_before(other, (6, 13)), "{other}");
        }
    }
}
