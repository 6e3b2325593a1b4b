//! What a rehearsal (`--observe`) came to: collects its reports, and says at the end what the limits would have done.
//! Must not look at an engine.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::exit::printable;
use crate::host::page_size;
use crate::journal::Record;
use crate::journal::record::Victim;
use crate::size::human;

/// The reports so far, by the cgroup that was over its limit.
#[derive(Debug, Default)]
pub struct Rehearsed(BTreeMap<String, Limit>);

#[derive(Debug, Default)]
struct Limit {
    reports: u64,
    drain_is_enough: u64,
    over_pages: u64,
    first_victim: Option<Victim>,
}

impl Rehearsed {
    /// Counts a record, if it is a report of a rehearsal.
    pub fn note(&mut self, record: &Record) {
        let Record::WouldEnforce { ancestor, over_pages, drain_is_enough, victim, .. } = record
        else {
            return;
        };
        let name =
            ancestor.path.clone().unwrap_or_else(|| format!("(removed, id {})", ancestor.id));
        let limit = self.0.entry(name).or_default();
        limit.reports += 1;
        limit.drain_is_enough += u64::from(*drain_is_enough);
        limit.over_pages = limit.over_pages.max(*over_pages);
        // Where giving back stocked pages makes room, nobody dies.
        if limit.first_victim.is_none() && !drain_is_enough {
            limit.first_victim.clone_from(victim);
        }
    }

    /// Writes what would have been done at each limit that was met.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for (name, limit) in &self.0 {
            let bytes = |pages: u64| human(pages * page_size());
            let Limit { reports, drain_is_enough, over_pages, first_victim } = limit;
            writeln!(out, "\nlimit of {}: reported {reports} times", printable(name))?;
            writeln!(out, "  at most                  {} above it", bytes(*over_pages))?;
            writeln!(out, "  a drain alone was enough {drain_is_enough} times")?;
            match first_victim {
                Some(Victim { victim, comm, rss_pages, .. }) => writeln!(
                    out,
                    "  killed first             {} ({victim}, {} resident), had nothing been reclaimed",
                    printable(comm),
                    bytes(*rss_pages)
                )?,
                None => writeln!(out, "  killed first             nobody")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::Cgroup;

    fn report(over_pages: u64, drain_is_enough: bool, victim: i32) -> Record {
        let cgroup = Cgroup { id: 7, path: Some("/a\n".into()), path_hex: None };
        let victim =
            Victim { victim, comm: "java".into(), rss_pages: 256, swap_pages: 0, oom_score_adj: 0 };
        Record::WouldEnforce {
            ancestor: cgroup.clone(),
            cgroup,
            over_pages,
            stocked: Vec::new(),
            drain_is_enough,
            victim: Some(victim),
        }
    }

    #[test]
    fn the_worst_and_the_first_are_kept() {
        let mut rehearsed = Rehearsed::default();
        rehearsed.note(&Record::Ended);
        for (over_pages, enough, victim) in [(1, true, 1), (5, false, 2), (3, false, 3)] {
            rehearsed.note(&report(over_pages, enough, victim));
        }
        let mut out = Vec::new();
        rehearsed.write(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 5, "{out}");
        assert_eq!(lines[1], "limit of /a\\x0a: reported 3 times");
        let worst = human(5 * page_size());
        assert!(lines[2].ends_with(&format!("{worst} above it")), "{out}");
        assert!(lines[3].ends_with("1 times") && lines[4].contains("java (2, "), "{out}");
    }

    #[test]
    fn a_run_without_reports_says_nothing() {
        let mut out = Vec::new();
        Rehearsed::default().write(&mut out).unwrap();
        assert!(out.is_empty());
    }
}
