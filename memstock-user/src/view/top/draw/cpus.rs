//! Draws the CPUs: a line of rates for each, and a line for each slot in use.

use memstock_common::stat::{CpuStat, Stat};
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{RenderDirection, Sparkline, Widget as _};

use super::super::app::App;
use super::super::text::{UNKNOWN, short};
use super::Canvas;
use crate::model::{Cpu, Slot};
use crate::view::show::table::{head, label};

/// The rates shown for a CPU.
pub const RATES: [CpuStat; 4] =
    [CpuStat::Faults, CpuStat::Refills, CpuStat::Charges, CpuStat::Drains];

/// Width of a CPU's number.
const NUMBER: u16 = 4;
/// Width of a rate, as wide as the longest head.
const RATE: u16 = 10;
/// Width of the pages.
const PAGES: u16 = 6;

/// A line for each slot in use of a CPU; one line that says so if none is.
pub fn slots(cpu: &Cpu) -> Vec<String> {
    let is_one = cpu.slots.len() == 1;
    let used = cpu.slots.iter().enumerate().filter(|(_, slot)| pages(slot) > 0);
    let lines = used.map(|(n, slot)| {
        let text = text(slot);
        if is_one { text } else { format!("{n}: {text}") }
    });
    let lines: Vec<_> = lines.collect();
    if lines.is_empty() { vec!["nothing stocked".into()] } else { lines }
}

fn pages(slot: &Slot) -> u64 {
    slot.nr_pages + slot.uncharge_pages
}

fn text(slot: &Slot) -> String {
    let mut parts = Vec::new();
    if let Some(cgroup) = &slot.cgroup {
        let pending =
            if slot.pending > 0 { format!(" ({} pending)", slot.pending) } else { String::new() };
        parts.push(format!("{}{pending} for {}", slot.nr_pages, label(cgroup)));
    }
    if let Some(cgroup) = slot.uncharge_cgroup.as_ref().filter(|_| slot.uncharge_pages > 0) {
        let same = slot.uncharge_cgroup == slot.cgroup;
        let whose = if same { String::new() } else { format!(" of {}", label(cgroup)) };
        parts.push(format!("{} to uncharge{whose}", slot.uncharge_pages));
    }
    parts.join(", ")
}

/// Whether a CPU is worth a line: possible CPUs may never come online.
fn is_shown(cpu: &Cpu) -> bool {
    cpu.online || cpu.slots.iter().any(|slot| pages(slot) > 0)
}

/// Lines needed for all CPUs, title and heads included.
pub(super) fn wanted_lines(app: &App) -> usize {
    let cpus = app.reading.iter().flat_map(|reading| &reading.sample.cpus);
    2 + cpus.filter(|cpu| is_shown(cpu)).map(|cpu| 1 + slots(cpu).len()).sum::<usize>()
}

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &mut App) {
    let Some(reading) = &app.reading else { return };
    let shown: Vec<_> = reading.sample.cpus.iter().filter(|cpu| is_shown(cpu)).collect();
    app.first_cpu = app.first_cpu.min(shown.len().saturating_sub(1));
    let title = match shown.get(app.first_cpu) {
        Some(first) if app.first_cpu > 0 => format!("CPUS from {} on", first.cpu),
        _ => "CPUS".to_owned(),
    };
    let Some(table) = canvas.title(area, &title) else { return };
    let line = |y| Rect { y, height: 1, ..table };
    if table.height > 0 {
        heads(canvas, line(table.y));
    }
    let mut y = table.y + 1;
    for cpu in &shown[app.first_cpu..] {
        if y >= table.bottom() {
            break;
        }
        numbers(canvas, line(y), cpu, app);
        y += 1;
        for slot in slots(cpu) {
            if y >= table.bottom() {
                break;
            }
            let indent =
                Rect { x: table.x + NUMBER + 1, width: table.width - NUMBER - 1, ..line(y) };
            canvas.text(indent, &slot, canvas.theme.faint);
            y += 1;
        }
    }
}

/// The cells of a line: the rates, the pages, and the pages over time.
fn cells(line: Rect) -> (Vec<Rect>, Rect, Rect) {
    let cell = |x, width| Rect { x: line.x + x, width, ..line };
    // Drop the fourth rate before the pages over time become too narrow to read.
    let nr = if line.width < NUMBER + 4 * RATE + PAGES { 3 } else { 4 };
    let rates = (0..nr).map(|n| cell(NUMBER + n * RATE, RATE)).collect();
    let after = NUMBER + nr * RATE;
    let rest = line.width.saturating_sub(after);
    let pages = PAGES.min(rest);
    (rates, cell(after, pages), cell(after + pages + 1, rest.saturating_sub(pages + 1)))
}

fn heads(canvas: &mut Canvas<'_>, line: Rect) {
    let style = canvas.theme.head;
    let (rates, pages, history) = cells(line);
    canvas.right(Rect { width: NUMBER, ..line }, "CPU", style);
    for (cell, stat) in rates.into_iter().zip(RATES) {
        let Stat { name, .. } = stat.stat();
        canvas.right(cell, &(head(name) + "/S"), style);
    }
    canvas.right(pages, "PAGES", style);
    canvas.text(history, "STOCKED", style);
}

fn numbers(canvas: &mut Canvas<'_>, line: Rect, cpu: &Cpu, app: &App) {
    let (rates, pages_cell, history) = cells(line);
    let style = Style::new();
    canvas.right(Rect { width: NUMBER, ..line }, &cpu.cpu.to_string(), canvas.theme.head);
    if cpu.online {
        for (cell, stat) in rates.into_iter().zip(RATES) {
            let rate = app.rates.cpu(cpu.cpu, stat).map_or(UNKNOWN.into(), short);
            canvas.right(cell, &rate, style);
        }
    } else {
        canvas.text(
            Rect { x: line.x + NUMBER + 1, width: 3 * RATE - 1, ..line },
            "(offline)",
            style,
        );
    }
    let stocked: u64 = cpu.slots.iter().map(pages).sum();
    canvas.right(pages_cell, &stocked.to_string(), style);
    if let Some(past) = app.history.get(&cpu.cpu).filter(|_| history.width > 0) {
        let newest_first: Vec<_> = past.iter().rev().copied().collect();
        let batch = app.reading.as_ref().map_or(0, |reading| u64::from(reading.sample.batch));
        // The most that slots and uncharge batches can hold.
        let most = 2 * batch * cpu.slots.len() as u64;
        Sparkline::default()
            .data(newest_first)
            .direction(RenderDirection::RightToLeft)
            .max(most.max(1))
            .style(canvas.theme.history)
            .render(history, canvas.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::top::fixture::sample;

    #[test]
    fn slots_are_said_in_words() {
        let sample = sample();
        assert_eq!(
            slots(&sample.cpus[0]),
            ["15 (1 pending) for /web/api, 7 to uncharge of /batch"]
        );
        assert_eq!(slots(&sample.cpus[1]), ["31 for /web/static"]);
        let mut cpu = sample.cpus[0].clone();
        cpu.slots.push(Slot::default());
        assert!(slots(&cpu)[0].starts_with("0: "));
        cpu.slots.remove(0);
        assert_eq!(slots(&cpu), ["nothing stocked"]);
        assert!(is_shown(&cpu) && is_shown(&sample.cpus[1]));
        cpu.online = false;
        assert!(!is_shown(&cpu));
    }

    #[test]
    fn cells_stay_in_their_line() {
        for width in 40..200 {
            let line = Rect::new(3, 0, width, 1);
            let (rates, pages, history) = cells(line);
            for cell in rates.iter().chain([&pages, &history]).filter(|cell| cell.width > 0) {
                assert!(cell.right() <= line.right(), "{width}: {cell:?}");
            }
            assert!(pages.width == PAGES, "{width}");
        }
    }
}
