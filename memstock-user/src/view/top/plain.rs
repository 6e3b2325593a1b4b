//! Prints one sample after the other as plain text, where there is no terminal.

use std::io::{self, BufWriter, Write};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use humantime::format_rfc3339_seconds;
use memstock_common::stat::CpuStat;

use super::app::App;
use super::column::Column;
use super::draw::cpus::{RATES, slots};
use super::draw::header::{daemon, totals};
use super::live::Options;
use super::source::{Source, ended};
use super::terminal::Signals;
use super::text::{UNKNOWN, short};
use crate::host::page_size;
use crate::view::show::table::{head, plain};

/// The longest wait before signals are checked.
const PAUSE: Duration = Duration::from_millis(100);

/// Prints samples until their number is reached, a signal arrives, or the reader is gone. Rates are unknown in the
/// first one.
///
/// # Errors
/// The engine ended, or cannot be read. The inner error is that of writing.
pub fn run(mut source: Source, options: &Options) -> Result<io::Result<()>> {
    let signals = Signals::listen()?;
    let mut app = App::new(page_size(), options.delay);
    let mut due = Instant::now();
    let mut readings = 0;
    loop {
        let reading = source.reading(|_| true)?.ok_or_else(ended)?;
        reading.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        app.take(reading);
        let mut out = BufWriter::new(io::stdout().lock());
        if let Err(error) = write(&mut out, &app).and_then(|()| out.flush()) {
            return Ok(Err(error));
        }
        readings += 1;
        if options.readings.is_some_and(|wanted| readings >= wanted) {
            return Ok(Ok(()));
        }
        due = (due + options.delay).max(Instant::now());
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
            if signals.end() {
                return Ok(Ok(()));
            }
            sleep(left.min(PAUSE));
        }
        if signals.end() {
            return Ok(Ok(()));
        }
    }
}

fn write(out: &mut impl Write, app: &App) -> io::Result<()> {
    let Some(reading) = &app.reading else { return Ok(()) };
    let sample = &reading.sample;
    let time = format_rfc3339_seconds(SystemTime::now());
    writeln!(out, "memstock top - {time}, batch {}, {}", sample.batch, daemon(reading.daemon))?;
    writeln!(out, "{}\n", totals(app))?;
    let heads = ["CPU".to_owned(), "CACHED CGROUP".to_owned(), "STOCKED".to_owned()];
    let rates = RATES.iter().map(|stat| head(stat.stat().name) + "/S");
    let mut cpus = plain(heads.into_iter().chain(rates), &[1]);
    for cpu in &sample.cpus {
        let number =
            if cpu.online { cpu.cpu.to_string() } else { format!("{} (offline)", cpu.cpu) };
        let stocked: u64 = cpu.slots.iter().map(|slot| slot.nr_pages + slot.uncharge_pages).sum();
        let rate = |stat: &CpuStat| app.rates.cpu(cpu.cpu, *stat).map_or(UNKNOWN.into(), short);
        let row = [number, slots(cpu).join("; "), stocked.to_string()];
        cpus.add_row(row.into_iter().chain(RATES.iter().map(rate)));
    }
    writeln!(out, "{}\n", cpus.trim_fmt())?;
    let mut cgroups = plain(Column::ALL.iter().map(|column| column.head()), &[0]);
    for row in &app.rows {
        let values =
            Column::ALL[1..].iter().map(|column| column.value(&row.figures, app.page_size));
        let name = format!("{}{}", "  ".repeat(row.depth), row.name(sample));
        cgroups.add_row(std::iter::once(name).chain(values));
    }
    writeln!(out, "{}\n", cgroups.trim_fmt())
}
