//! What a measured command used: as text in the style of `perf stat`, and as JSON.

use std::ffi::OsString;
use std::io::{self, Write};

use memstock_common::stat::{CgroupStat, CommandStat, KernelStat, Stat, Unit};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::NEXT;
use super::json::members;
use crate::forecast::measure::{FIGURES, Figure, Measured, Scope, is_whole, losses, summarize};
use crate::forecast::verdict::Peaks;
use crate::host::cgroup::display;
use crate::model::ratio::operations_per_page;
use crate::model::size::human;

/// The figures of a measured command.
#[derive(Debug)]
pub struct Report {
    command: Vec<String>,
    exit_code: u8,
    runs: usize,
    last: Measured,
    figures: Vec<Figure>,
    peaks: Option<Peaks>,
    loss: Vec<(Stat, u64)>,
}

impl Report {
    /// Summarizes the runs of a command; `None` if there are none. `exit_code` is that of the last run.
    pub fn new(command: &[OsString], runs: &[Measured], exit_code: u8) -> Option<Self> {
        Some(Self {
            command: command.iter().map(display).collect(),
            exit_code,
            runs: runs.len(),
            last: runs.last()?.clone(),
            figures: summarize(runs),
            peaks: highest(runs),
            loss: losses(runs),
        })
    }

    fn mean(&self, stat: Stat) -> Option<f64> {
        self.figures.iter().find(|figure| figure.stat == stat)?.mean
    }

    fn of(&self, scope: Scope) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(move |figure| figure.scope == scope)
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Document<'a> {
    /// COMMAND and its arguments, with control characters and bytes that are not text escaped.
    command: &'a [String],
    /// COMMAND's exit code in the last run: 128 + N after signal N.
    exit_code: u8,
    /// How many runs there were; the figures are their means.
    runs: usize,
    /// The cgroup in which COMMAND ran; it no longer exists.
    cgroup_path: String,
    /// Whether an engine was started for COMMAND, and tracked nothing else.
    own_engine: bool,
    /// Pages charged at once on a miss.
    batch: u32,
    #[serde(flatten)]
    #[cfg_attr(test, schemars(schema_with = "super::schema::means"))]
    means: Map<String, Value>,
    /// Standard deviations over the runs, in the units of the means; null for a single run.
    #[cfg_attr(test, schemars(schema_with = "super::schema::deviations"))]
    stddev: Option<Map<String, Value>>,
    /// What was lost, skipped or merged meanwhile, by the whole engine.
    #[cfg_attr(test, schemars(schema_with = "super::schema::loss"))]
    loss: Map<String, Value>,
}

/// The document that `memstock stat --json` writes.
pub fn document(report: &Report) -> Value {
    let scopes = |value: fn(&Figure) -> Option<f64>| {
        let members =
            Scope::ALL.iter().map(|&scope| (scope.name().to_owned(), values(report, scope, value)));
        members.collect::<Map<_, _>>()
    };
    json!(Document {
        command: &report.command,
        exit_code: report.exit_code,
        runs: report.runs,
        cgroup_path: display(&report.last.cgroup),
        own_engine: report.last.is_own_engine,
        batch: report.last.batch,
        means: scopes(|figure| figure.mean),
        stddev: (report.runs > 1).then(|| scopes(|figure| figure.deviation)),
        loss: members(&report.loss),
    })
}

fn values(report: &Report, scope: Scope, value: impl Fn(&Figure) -> Option<f64>) -> Value {
    let value = |figure: &Figure| match value(figure) {
        // Print a whole number without a fraction.
        Some(whole) if is_whole(figure.stat.unit) && whole.fract() == 0.0 => json!(whole as u64),
        other => json!(other),
    };
    let row = report.of(scope).map(|figure| (figure.stat.name.to_owned(), value(figure)));
    row.collect::<Map<_, _>>().into()
}

/// Figures that appear in the note of another one.
const IN_NOTES: [Stat; 2] = [CommandStat::HitRate.stat(), CgroupStat::FromStock.stat()];

/// Writes the report.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let Report { command, runs, last, .. } = report;
    let engine = if last.is_own_engine { "an engine of its own" } else { "the running engine" };
    let runs = if *runs > 1 { format!(", mean of {runs} runs") } else { String::new() };
    writeln!(out, "\nmemstock stat of {}", command.join(" "))?;
    writeln!(out, "cgroup {}, {engine}, batch {}{runs}", display(&last.cgroup), last.batch)?;
    let width = if report.runs > 1 { 46 } else { 35 };
    let is_told = |scope: &Scope| report.of(*scope).any(|figure| figure.mean.is_some());
    for scope in Scope::ALL.iter().copied().filter(is_told) {
        writeln!(out)?;
        for figure in report.of(scope).filter(|figure| !IN_NOTES.contains(&figure.stat)) {
            let value = figure.mean.map_or_else(|| "-".into(), |mean| text(mean, figure.stat.unit));
            let line = format!("{value:>14}{}  {}", spread(figure), figure.stat.name);
            match note(report, figure) {
                Some(note) => writeln!(out, "{line:<width$} # {note}")?,
                None => writeln!(out, "{line}")?,
            }
        }
    }
    if let Some(peaks) = report.peaks {
        writeln!(out, "\na limit {peaks}")?;
        writeln!(out, "{NEXT}")?;
    }
    let lost = report.loss.iter().filter(|(_, count)| *count > 0);
    let lost: Vec<_> = lost.map(|(stat, count)| format!("{} {count}", stat.name)).collect();
    if !lost.is_empty() {
        writeln!(out, "\nloss: {}", lost.join(", "))?;
    }
    writeln!(out)
}

/// The highest peaks of all runs: a limit has to be enough for each.
fn highest(runs: &[Measured]) -> Option<Peaks> {
    let [usage, needed] = [CommandStat::Peak, CommandStat::NeededPeak].map(|stat| {
        let at = FIGURES.iter().position(|&(_, figure)| figure == stat.stat())?;
        runs.iter().filter_map(|run| run.figures[at]).reduce(f64::max)
    });
    Some(Peaks::of(usage? as u64, needed? as u64))
}

fn text(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => human(value.round() as u64),
        Unit::Seconds => format!("{value:.6} s"),
        Unit::Percent => format!("{value:.2} %"),
        Unit::Pages | Unit::Count if value.fract() == 0.0 => format!("{value}"),
        Unit::Pages | Unit::Count => format!("{value:.1}"),
    }
}

/// The standard deviation relative to the mean, as perf prints it.
fn spread(figure: &Figure) -> String {
    match (figure.mean, figure.deviation) {
        (Some(mean), Some(deviation)) if mean > 0.0 => {
            format!("  ±{:6.2} %", 100.0 * deviation / mean)
        }
        (_, Some(_)) => format!("{:11}", ""),
        _ => String::new(),
    }
}

fn note(report: &Report, figure: &Figure) -> Option<String> {
    let shared = CommandStat::SharedOperations.stat();
    if figure.stat == CommandStat::Peak.stat() {
        Some("stocked pages included".into())
    } else if figure.stat == CommandStat::NeededPeak.stat() {
        Some("less page cache that the kernel could take back".into())
    } else if figure.stat == CgroupStat::Charged.stat() {
        let rate = report.mean(CommandStat::HitRate.stat())?;
        Some(format!("{} from a stock", text(rate, Unit::Percent)))
    } else if figure.stat == shared && figure.scope == Scope::Engine && report.last.is_own_engine {
        let charged = report.mean(CgroupStat::Charged.stat())?;
        let ratio = operations_per_page(figure.mean?, charged)?;
        Some(format!("{ratio:.3} for each page charged"))
    } else if figure.stat == KernelStat::Charges.stat() {
        Some("of the kernel's own memory controller".into())
    } else if figure.scope == Scope::Kernel {
        let charges = report.mean(KernelStat::Charges.stat())?;
        let ratio = operations_per_page(figure.mean?, charges)?;
        let is_shared = figure.stat == KernelStat::SharedOperations.stat();
        is_shared.then(|| format!("{ratio:.3} for each charge"))
    } else if figure.scope == Scope::Engine && !report.last.is_own_engine {
        Some("whole engine".into())
    } else if figure.stat == CommandStat::MaxRss.stat() {
        Some("of the largest process, by the kernel".into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;
    use std::time::Duration;

    use memstock_common::stat::{CpuStat, Loss};

    use super::*;
    use crate::forecast::measure::Work;
    use crate::host::launch::Ended;
    use crate::model::{Cgroup, Cpu, Figure, Name, PageCounter, Sample};

    /// An engine with one cgroup, a dying child of it, and one CPU that charged so many pages from its stock, and
    /// missed so many.
    fn engine(from_stock: u64, missed: u64) -> Sample {
        let cgroup = |id, parent_id, stats| Cgroup {
            name: Name::new(id, None),
            parent_id,
            memory: PageCounter { stats: [Some(40), None, Some(500), Some(3)].map(Figure::from) },
            parts: [1, 2, 256, 0],
            stats,
            ..Cgroup::default()
        };
        let cpu = CpuStat::ALL.iter().map(|stat| match stat {
            CpuStat::Charged => Figure::from(from_stock + missed),
            CpuStat::FromStock => from_stock.into(),
            _ => 10.into(),
        });
        Sample {
            batch: 32,
            cpus: vec![Cpu {
                stats: cpu.collect::<Vec<_>>().try_into().unwrap(),
                ..Cpu::default()
            }],
            cgroups: vec![
                cgroup(8, Some(7), [2, 30, 30, 28, 1, 4].map(Figure::from)),
                cgroup(7, None, [5, 60, 60, 56, 0, 0].map(Figure::from)),
                cgroup(9, None, [99.into(); 6]),
            ],
            loss: vec![(Loss::Healed.stat(), 11)],
            ..Sample::default()
        }
    }

    fn run(before: Option<&Sample>, wall: u64) -> Measured {
        let ended = Ended {
            status: ExitStatus::from_raw(0),
            wall: Duration::from_secs(wall),
            user: Duration::from_millis(1500),
            system: Duration::ZERO,
            max_rss: None,
            read_bytes: 0,
        };
        let after = engine(970, 30);
        let work = Work { before, after: &after, cgroup_id: 7, ended, kernel: None };
        Measured {
            cgroup: "/a/x y".into(),
            is_own_engine: before.is_none(),
            batch: after.batch,
            ended,
            figures: work.figures(4096).unwrap(),
            loss: work.loss(),
        }
    }

    fn report(runs: &[Measured]) -> Report {
        Report::new(&["echo".into(), "\u{1b}[31m".into()], runs, 0).unwrap()
    }

    fn lines(report: &Report) -> String {
        let mut text = Vec::new();
        write(&mut text, report).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn of_an_own_engine_all_is_the_commands() {
        let report = report(&[run(None, 2)]);
        let value = document(&report);
        let (cgroup, engine) = (&value["cgroup"], &value["engine"]);
        assert_eq!(cgroup["peak"], 500 * 4096);
        assert_eq!(cgroup["stranded"], 7 * 4096);
        assert_eq!(cgroup["needed_peak"], 256 * 4096);
        assert_eq!((&cgroup["charged_pages"], &cgroup["hit_rate"]), (&json!(1000), &json!(97.0)));
        assert_eq!((&cgroup["singles"], &cgroup["failcnt"]), (&json!(1), &json!(3)));
        assert_eq!((&engine["shared_operations"], &engine["drains"]), (&json!(30), &json!(10)));
        assert_eq!((&value["process"]["max_rss"], &value["stddev"]), (&Value::Null, &Value::Null));
        assert_eq!(value["loss"]["healed"], 11);
        let text = lines(&report);
        for part in [
            "echo \\x1b[31m",
            "cgroup /a/x y, an engine of its own, batch 32\n",
            "2.0MiB  peak",
            "97.00 % from a stock",
            "0.030 for each page charged",
            "a limit fits at 4.0MiB and above, oom below 1.0MiB\nwhich limit to set: ",
            "2.000000 s  wall_time",
            "-  max_rss",
            "loss: healed 11",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("hit_rate") && !text.contains('±'), "{text}");
    }

    #[test]
    fn of_a_running_engine_the_cgroups_are_told_apart() {
        let before = engine(870, 30);
        let report = report(&[run(Some(&before), 2)]);
        let value = document(&report);
        assert_eq!(
            (&value["cgroup"]["charged_pages"], &value["cgroup"]["from_stock_pages"]),
            (&json!(90), &json!(84))
        );
        assert_eq!((&value["engine"]["refills"], &value["loss"]["healed"]), (&json!(0), &json!(0)));
        let text = lines(&report);
        assert!(text.contains("the running engine") && text.contains("# whole engine"), "{text}");
    }

    #[test]
    fn runs_have_a_mean_and_a_deviation() {
        let runs = [run(None, 1), run(None, 2), run(None, 3)];
        let report = report(&runs);
        let value = document(&report);
        assert_eq!(value["process"]["wall_time"], 2.0);
        assert_eq!(value["stddev"]["process"]["wall_time"], 1.0);
        assert_eq!(value["stddev"]["cgroup"]["peak"], 0);
        assert_eq!((&value["runs"], &value["loss"]["healed"]), (&json!(3), &json!(33)));
        let text = lines(&report);
        assert!(text.contains("± 50.00 %  wall_time") && text.contains("mean of 3 runs"), "{text}");
    }

    #[test]
    fn a_cgroup_that_is_gone_is_not_measured() {
        let ended = run(None, 1).ended;
        let after = engine(0, 0);
        let work = Work { before: None, after: &after, cgroup_id: 77, ended, kernel: None };
        assert!(work.figures(4096).is_err());
        // Nothing charged, no rate.
        let work = Work { cgroup_id: 7, ..work };
        let rate = FIGURES.iter().position(|(_, stat)| *stat == CommandStat::HitRate.stat());
        assert_eq!(work.figures(4096).unwrap()[rate.unwrap()], None);
    }
}
