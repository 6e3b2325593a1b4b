//! What limits would do, printed at the end of a run: a verdict for all limits, and with `--observe` one for the given
//! limit, with what was reported at it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;
use memstock_common::Counter;
use memstock_common::counter::limit_of;
use memstock_common::stat::{MemoryStat, PageCounterStat};

use super::NEXT;
use super::table::label;
use crate::engine::Engine;
use crate::engine::needed::{InFlight, Need};
use crate::exit::printable;
use crate::forecast::verdict::Peaks;
use crate::host::page_size;
use crate::journal::Record;
use crate::journal::record::{self, Victim};
use crate::model::size::human;
use crate::model::{Cgroup, Sample};

/// What was reported at limits with `--observe`, and the cgroups removed meanwhile.
#[derive(Debug, Default)]
pub struct Observed {
    /// By the id of the cgroup that was at its limit.
    reports: BTreeMap<u64, Reports>,
    /// By path, because a service that is restarted has a new cgroup.
    removed: BTreeMap<String, Judged>,
}

/// What is kept of a cgroup for its verdict.
#[derive(Clone, Copy, Debug)]
struct Judged {
    id: u64,
    peaks: Peaks,
    /// In bytes.
    limit: Option<u64>,
}

#[derive(Debug, Default)]
struct Reports {
    nr: u64,
    first_victim: Option<Victim>,
}

impl Observed {
    /// Counts a record, if it is one of those reports.
    pub fn note(&mut self, record: &Record) {
        let Record::WouldEnforce { ancestor, victim, .. } = record else { return };
        let reports = self.reports.entry(ancestor.id).or_default();
        reports.nr += 1;
        if reports.first_victim.is_none() {
            reports.first_victim.clone_from(victim);
        }
    }

    /// Keeps the figures of a tracked cgroup that is removed, for the end of the run.
    ///
    /// # Errors
    /// The engine cannot be read.
    pub fn removed(&mut self, name: record::Cgroup, engine: &Engine) -> Result<()> {
        if let Some(index) = engine.index_of(name.id)? {
            self.gone(name, &engine.counter(index)?, page_size());
        }
        Ok(())
    }

    /// Only cgroups that are at the top or have a limit are kept; of several with one path, the highest figures.
    fn gone(&mut self, name: record::Cgroup, counter: &Counter<u64>, page_size: u64) {
        let limit = limit_of(counter.memory_limit).map(|limit| limit * page_size);
        let Some(path) = name.path.filter(|_| counter.parent == 0 || limit.is_some()) else {
            return;
        };
        let needed = counter.needed_watermark.max(Need::of(counter, InFlight::default()).needed);
        let peaks = Peaks::of(counter.memory.watermark * page_size, needed * page_size);
        let before = self.removed.get(&path).map(|judged| judged.peaks).unwrap_or_default();
        self.removed.insert(path, Judged { id: name.id, peaks: peaks.or(before), limit });
    }

    /// Writes what limits would do to each cgroup that is at the top or has a limit.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write(&self, out: &mut dyn Write, sample: &Sample, page_size: u64) -> io::Result<()> {
        let mut all = self.removed.clone();
        for cgroup in sample.cgroups.iter().filter(|cgroup| !cgroup.is_dying) {
            let limit = cgroup.memory.get(PageCounterStat::Limit).map(|limit| limit * page_size);
            if cgroup.parent_id.is_some() && limit.is_none() {
                continue;
            }
            let name = label(&cgroup.name);
            let before = all.get(&name).map(|judged| judged.peaks).unwrap_or_default();
            let peaks = peaks(cgroup, page_size).or(before);
            all.insert(name, Judged { id: cgroup.name.id, peaks, limit });
        }
        for (name, Judged { id, peaks, limit }) in &all {
            writeln!(out, "\n{}: {peaks}", printable(name))?;
            let Some(limit) = limit else { continue };
            writeln!(out, "  {}", peaks.judge(*limit))?;
            let Some(Reports { nr, first_victim }) = self.reports.get(id) else { continue };
            let victim = match first_victim {
                None => "would have killed nobody".to_owned(),
                Some(Victim { victim, comm, rss_pages, .. }) => format!(
                    "would have killed {} ({victim}, {} resident) first",
                    printable(comm),
                    human(rss_pages * page_size)
                ),
            };
            writeln!(out, "  reported {nr} times, {victim}")?;
        }
        if !all.is_empty() {
            writeln!(out, "{NEXT}")?;
        }
        Ok(())
    }
}

/// The highest figures of a cgroup.
fn peaks(cgroup: &Cgroup, page_size: u64) -> Peaks {
    let usage = cgroup.memory.get(PageCounterStat::Watermark).unwrap_or(0) * page_size;
    Peaks::of(usage, cgroup.part(MemoryStat::NeededWatermark) * page_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use memstock_common::PageCounter;

    fn report(victim: Option<i32>) -> Record {
        let cgroup = record::Cgroup::new(7, Some("/a".as_ref()));
        let victim = victim.map(|victim| Victim {
            victim,
            comm: "java\n".into(),
            rss_pages: 256,
            swap_pages: 0,
            page_table_pages: 3,
            oom_score_adj: 0,
        });
        Record::WouldEnforce {
            ancestor: cgroup.clone(),
            cgroup,
            over_pages: 1,
            needed_pages: 2,
            file_pages: 3,
            stocked: Vec::new(),
            drain_is_enough: false,
            victim,
        }
    }

    fn cgroup(id: u64, parent_id: Option<u64>, limit: Option<u64>) -> Cgroup {
        let mut cgroup = Cgroup { parent_id, ..Cgroup::default() };
        cgroup.name = Name::new(id, Some(format!("/{id}").into()));
        cgroup.memory.stats[PageCounterStat::Limit as usize] = limit.into();
        cgroup.memory.stats[PageCounterStat::Watermark as usize] = 2048.into();
        cgroup.parts[MemoryStat::NeededWatermark as usize] = 256;
        cgroup
    }

    fn written(observed: &Observed, cgroups: Vec<Cgroup>) -> String {
        let mut out = Vec::new();
        let sample = Sample { cgroups, ..Sample::default() };
        observed.write(&mut out, &sample, 4096).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.strip_suffix(&format!("{NEXT}\n")).expect("where to go from there").into()
    }

    #[test]
    fn every_limit_and_the_one_that_was_named_are_judged() {
        let mut observed = Observed::default();
        observed.note(&Record::Ended);
        for victim in [None, Some(2), Some(3)] {
            observed.note(&report(victim));
        }
        let text = written(&observed, vec![cgroup(7, Some(1), Some(128))]);
        assert_eq!(
            text,
            "\n/7: fits at 8.0MiB and above, reclaims down to 7.0MiB, oom below 1.0MiB\n  \
             512.0KiB: oom (1.0MiB needed)\n  \
             reported 3 times, would have killed java\\x0a (2, 1.0MiB resident) first\n"
        );
        let text = written(&Observed::default(), vec![cgroup(8, None, Some(1792))]);
        assert!(text.ends_with("\n  7.0MiB: reclaims (1.0MiB needed)\n"), "{text}");
    }

    #[test]
    fn what_was_removed_is_judged_by_the_highest_of_its_name() {
        let name = |id| record::Cgroup::new(id, Some("/7".as_ref()));
        let counter = |watermark, needed_watermark| Counter {
            memory: PageCounter { usage: 0, watermark, failcnt: 0 },
            needed_watermark,
            memory_limit: u64::MAX,
            ..Counter::default()
        };
        let mut observed = Observed::default();
        observed.gone(name(5), &counter(2048, 1), 4096);
        observed.gone(name(6), &counter(2, 256), 4096);
        observed.gone(name(8), &Counter { parent: 3, ..counter(9999, 9999) }, 4096);
        let judged = "\n/7: fits at 8.0MiB and above, reclaims down to 7.0MiB, oom below 1.0MiB\n";
        assert_eq!(written(&observed, vec![]), judged);
        assert_eq!(written(&observed, vec![cgroup(7, None, None)]), judged);
    }

    #[test]
    fn only_the_top_and_what_has_a_limit_is_told_of() {
        let dying = Cgroup { is_dying: true, ..cgroup(3, None, None) };
        let text = written(
            &Observed::default(),
            vec![cgroup(1, None, None), cgroup(2, Some(1), None), dying],
        );
        assert_eq!(
            text,
            "\n/1: fits at 8.0MiB and above, reclaims down to 7.0MiB, oom below 1.0MiB\n"
        );
    }
}
