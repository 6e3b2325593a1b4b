//! What a page contains, as far as a test can tell without a browser.

use serde_json::Value;

use super::*;
use crate::forecast::recommend::Goal;
use crate::forecast::rehearse::WhatIf;
use crate::forecast::verdict::Verdict;
use crate::recording::{Moment, Recording};
use crate::view::show::rehearse::{document, tests::recording};

fn embedded(page: &str, id: &str) -> Value {
    let begin = format!("id=\"{id}\">");
    let (_, behind) = page.split_once(&begin).unwrap();
    serde_json::from_str(behind.split_once("</script>").unwrap().0).unwrap()
}

fn with_report<T>(recording: &Recording, look: impl FnOnce(&Report<'_>) -> T) -> T {
    let rehearsal = Rehearsal::new(recording, WhatIf::default());
    let advice = Advice::of(std::slice::from_ref(&rehearsal), Goal::default());
    look(&Report::of(&rehearsal, advice))
}

#[test]
fn the_figures_are_those_of_the_document() {
    with_report(&recording(), |report| {
        let page = report.html().unwrap();
        assert_eq!(embedded(&page, "rehearsal"), document(&report.judged));
        let facts = embedded(&page, "facts");
        assert_eq!(facts["parts"].as_array().unwrap().len(), 200);
        assert_eq!(facts["slow"].as_array().unwrap().len(), report.rows().len());
        for verdict in [Verdict::Oom, Verdict::Slow, Verdict::Reclaims, Verdict::Fits] {
            assert!(report.rows().iter().any(|row| row.verdict == verdict), "{verdict:?}");
        }
        assert!(
            !page.contains("{{") && !page.contains("http://") || page.matches("http").count() < 5
        );
        for part in ["cc1plus (", "at 5.0 s", "/usr/lib/cc1", "MemoryMax="] {
            assert!(page.contains(part), "{part}");
        }
    });
}

#[test]
fn names_are_text_and_nothing_else() {
    let mut recording = recording();
    recording.header.command =
        vec!["</script><script>alert(1)</script>".into(), "{{facts}}".into()];
    recording.peaks[0].tasks[0].comm = "<b>'\"".into();
    with_report(&recording, |report| {
        let page = report.html().unwrap();
        assert!(!page.contains("<script>alert") && !page.contains("<b>"), "{page}");
        assert_eq!(embedded(&page, "rehearsal")["command"][1], "{{facts}}");
    });
}

#[test]
fn an_hour_is_small_and_nothing_is_drawn_too() {
    let mut hour = recording();
    hour.moments = (0..360_000)
        .map(|n| Moment {
            at: Duration::from_millis(10 * n),
            usage: 60_000 + n % 7919,
            needed: 30_000 + n % 4001,
            ..Moment::default()
        })
        .collect();
    for recording in [hour, Recording::default()] {
        with_report(&recording, |report| {
            let (page, svg) = (report.html().unwrap(), report.svg().unwrap());
            assert!(page.len() < 300 << 10, "{} bytes", page.len());
            assert!(svg.starts_with("<svg") && svg.len() < 100 << 10);
        });
    }
}
