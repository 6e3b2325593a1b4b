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
}

/// Writes both, and whether they agree. `code` is the command's exit code.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, predicted: &Row, happened: &Outcome, code: u8) -> io::Result<()> {
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
    let verdict = match happened.verdict.cmp(&predicted.verdict) {
        Ordering::Equal => "as predicted",
        _ if predicted.is_near => {
            "the limit was close to what is needed: either outcome was possible"
        }
        _ if happened.slowdown.is_none()
            && happened.kills == 0
            && predicted.verdict != Verdict::Oom =>
        {
            "nobody was killed, as predicted; how much slower it was is not known, as the recording has no end or is of another command"
        }
        Ordering::Greater => {
            "better than predicted: pages that are already in the page cache need no room"
        }
        Ordering::Less => "worse than predicted: docs/rehearsal.md says where forecasts are off",
    };
    let code = if code == 0 { String::new() } else { format!("; COMMAND ended with {code}") };
    writeln!(out, "\n{verdict}{code}")
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
        };
        for (mib, parts) in [
            (210, ["verdict slow slow", "read again 30.0MiB 31.0MiB", "as predicted"]),
            (203, ["verdict oom, near slow", "killed cc1plus 1 task", "either outcome"]),
            (150, ["slower - 10 %", "most memory 210.0MiB", "better than"]),
        ] {
            let mut text = Vec::new();
            write(&mut text, &rehearsal.judge(mib << 20), &happened, 0).unwrap();
            let text = String::from_utf8(text).unwrap();
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(parts.iter().all(|part| words.contains(part)), "{mib}: {text}");
        }
        let other = Outcome { verdict: Verdict::Reclaims, slowdown: None, kills: 0, ..happened };
        let mut text = Vec::new();
        write(&mut text, &rehearsal.judge(210 << 20), &other, 0).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("is of another command"));
    }
}
