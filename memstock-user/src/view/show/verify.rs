//! What was predicted for a limit, next to what happened.

use std::cmp::Ordering;
use std::io::{self, Write};

use comfy_table::{Table, presets};

use super::rehearse::percent;
use crate::forecast::rehearse::Row;
use crate::forecast::verdict::Verdict;
use crate::model::size::human;

/// What happened at the limit.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// As a forecast would put it.
    pub verdict: Verdict,
    /// How much longer it took than the recording, as a fraction; `None` if the recording is of another command.
    pub slowdown: Option<f64>,
    /// Bytes of files that were read again, if known.
    pub reread: Option<u64>,
    /// The most that was charged, in bytes.
    pub peak: Option<u64>,
    /// Tasks that were killed.
    pub kills: u64,
    /// COMMAND's exit code.
    pub code: u8,
    /// Its exit code in the recording; `None` if that is of another command, or has no end.
    pub recorded_code: Option<i32>,
    /// Whether the recording is of this command.
    pub is_same: bool,
}

/// Writes both, and whether they agree.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, predicted: &Row, happened: &Outcome) -> io::Result<()> {
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let who = predicted.victim.as_ref().and_then(|victim| victim.task.as_ref());
    let killed = who.map(|(_, comm, _)| crate::exit::printable(comm));
    let said = if predicted.is_near { "oom, near" } else { predicted.verdict.name() };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let limit = format!("limit {}", human(predicted.limit));
    table.set_header([&limit, "predicted", "happened"]);
    table.add_row(["verdict", said, happened.verdict.name()]);
    let slower = [predicted.slowdown, happened.slowdown].map(|part| known(part.map(percent)));
    table.add_row(["slower", &slower[0], &slower[1]]);
    let reread = [predicted.reread, happened.reread].map(|bytes| known(bytes.map(human)));
    table.add_row(["read again", &reread[0], &reread[1]]);
    let kills = match happened.kills {
        0 => None,
        1 => Some("1 task".to_owned()),
        more => Some(format!("{more} tasks")),
    };
    table.add_row(["killed", &known(killed), &known(kills)]);
    table.add_row(["most memory", "", &known(happened.peak.map(human))]);
    writeln!(out)?;
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "\n{}", conclusion(predicted, happened))
}

impl Outcome {
    /// Whether COMMAND failed, not as it did when it was recorded, and nothing suggests that the limit is why.
    pub fn failed_by_itself(&self) -> bool {
        let is_harmless = matches!(self.verdict, Verdict::Fits | Verdict::Reclaims);
        is_harmless && self.code != 0 && self.recorded_code != Some(self.code.into())
    }
}

/// What follows from the two.
fn conclusion(predicted: &Row, happened: &Outcome) -> String {
    let &Outcome { code, recorded_code, kills, .. } = happened;
    if happened.failed_by_itself() {
        let before = recorded_code.map(|code| format!(", and with {code} when it was recorded"));
        let before = before.unwrap_or_default();
        return format!("COMMAND ended with {code}{before}: this says nothing about the limit");
    }
    let verdict = match happened.verdict.cmp(&predicted.verdict) {
        Ordering::Equal => "as predicted",
        _ if predicted.is_near => {
            "the limit was close to what is needed: either outcome was possible"
        }
        _ if happened.slowdown.is_none() && kills == 0 && predicted.verdict != Verdict::Oom => {
            "nobody was killed, as predicted; how much slower it was is not known"
        }
        Ordering::Greater => {
            "better than predicted: docs/rehearsal.md says where forecasts are off"
        }
        Ordering::Less => "worse than predicted: docs/rehearsal.md says where forecasts are off",
    };
    let code = if code == 0 { String::new() } else { format!("; COMMAND ended with {code}") };
    let other = if happened.is_same { "" } else { "; the recording is not of this command" };
    format!("{verdict}{other}{code}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::rehearse::{Rehearsal, WhatIf};
    use crate::view::show::rehearse::tests::recording;

    #[test]
    fn both_stand_side_by_side() {
        let recording = recording();
        let rehearsal = Rehearsal::new(&recording, WhatIf::default());
        let happened = Outcome {
            verdict: Verdict::Slow,
            slowdown: Some(0.1),
            reread: Some(31 << 20),
            peak: Some(210 << 20),
            kills: 1,
            code: 0,
            recorded_code: Some(0),
            is_same: true,
        };
        let said = |mib: u64, happened: &Outcome| {
            let mut text = Vec::new();
            write(&mut text, &rehearsal.judge(mib << 20), happened).unwrap();
            let text = String::from_utf8(text).unwrap();
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        for (mib, parts) in [
            (210, ["verdict slow slow", "read again 30.0MiB 31.0MiB", "as predicted"]),
            (203, ["verdict oom, near slow", "killed cc1plus 1 task", "either outcome"]),
            (150, ["slower - 10 %", "most memory 210.0MiB", "better than"]),
        ] {
            let words = said(mib, &happened);
            assert!(parts.iter().all(|part| words.contains(part)), "{mib}: {words}");
        }
        let other = Outcome { slowdown: None, kills: 0, is_same: false, ..happened };
        assert!(said(210, &other).ends_with("as predicted; the recording is not of this command"));
        let other = Outcome { verdict: Verdict::Reclaims, ..other };
        assert!(said(210, &other).contains("how much slower it was is not known; the recording"));
    }

    #[test]
    fn who_failed_by_itself_says_nothing_of_a_limit() {
        let row = |mib: u64| Rehearsal::new(&recording(), WhatIf::default()).judge(mib << 20);
        let fits = Outcome {
            verdict: Verdict::Fits,
            slowdown: Some(-0.9),
            reread: None,
            peak: None,
            kills: 0,
            code: 1,
            recorded_code: Some(0),
            is_same: true,
        };
        let nothing = "COMMAND ended with 1, and with 0 when it was recorded: this says nothing about the limit";
        assert_eq!([400, 100].map(|mib| conclusion(&row(mib), &fits)), [nothing; 2]);
        let unknown = Outcome { recorded_code: None, code: 143, ..fits };
        assert!(conclusion(&row(400), &unknown).starts_with("COMMAND ended with 143: this"));
        let as_before = Outcome { recorded_code: Some(1), ..fits };
        assert_eq!(conclusion(&row(400), &as_before), "as predicted; COMMAND ended with 1");
        let slow = Outcome { verdict: Verdict::Slow, ..fits };
        assert!(conclusion(&row(210), &slow).starts_with("as predicted; COMMAND ended with 1"));
        let killed = Outcome { verdict: Verdict::Oom, kills: 1, code: 137, ..fits };
        assert_eq!(conclusion(&row(100), &killed), "as predicted; COMMAND ended with 137");
    }
}
