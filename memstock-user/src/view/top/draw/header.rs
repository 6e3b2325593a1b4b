//! Draws the lines at the top: what runs, and its totals.

use memstock_common::stat::{CgroupStat, CpuStat};
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::app::App;
use super::super::text::{UNKNOWN, percent, short};
use super::Canvas;
use crate::model::ratio::hit_rate;
use crate::model::size::human;

/// The daemon's process id, in words.
pub fn daemon(pid: Option<u32>) -> String {
    pid.map_or("no daemon".into(), |pid| format!("daemon {pid}"))
}

/// The totals over all cgroups and CPUs.
pub fn totals(app: &App) -> String {
    let Some(reading) = &app.reading else { return String::new() };
    let rate = |stats: &[CpuStat]| {
        stats.iter().try_fold(0.0, |sum, &stat| Some(sum + app.rates.all_cpus(stat)?))
    };
    let text = |rate: Option<f64>| rate.map_or(UNKNOWN.into(), short);
    let [faults, charged, from_stock] =
        [CpuStat::Faults, CpuStat::Charged, CpuStat::FromStock].map(|stat| rate(&[stat]));
    let hit_rate = from_stock.zip(charged).and_then(|(part, whole)| hit_rate(part, whole));
    let shared = rate(&[CpuStat::Charges, CpuStat::Uncharges, CpuStat::Drains]);
    let stocked = reading.sample.all_cgroups(CgroupStat::Stocked).unwrap_or(0) * app.page_size;
    let mut line = format!(
        "faults {}/s  pages {}/s, {}% from a stock  shared-counter operations {}/s  stocked {}",
        text(faults),
        text(charged),
        hit_rate.map_or(UNKNOWN.into(), |rate| percent(rate / 100.0)),
        text(shared),
        human(stocked),
    );
    let lost = reading.sample.loss.iter().filter(|(_, value)| *value > 0);
    let lost: Vec<_> = lost.map(|(stat, value)| format!("{} {value}", stat.name)).collect();
    if !lost.is_empty() {
        line += &format!("  loss: {}", lost.join(", "));
    }
    if !reading.sample.degraded.is_empty() {
        line += &format!("  degraded: {}", reading.sample.degraded.join("; "));
    }
    line
}

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let (name, about) = ("memstock top", about(app));
    let is_degraded =
        app.reading.as_ref().is_some_and(|reading| !reading.sample.degraded.is_empty());
    let every = format!("every {} s", app.delay.as_secs_f64());
    let state = match (app.paused, is_degraded) {
        (true, _) => " PAUSED ".to_owned(),
        (false, true) => format!("DEGRADED  {every}"),
        (false, false) => every,
    };
    let taken = state.len() as u16 + 1;
    let left = Rect { width: area.width.saturating_sub(taken), ..area };
    canvas.text(left, name, canvas.theme.name);
    let after = name.len() as u16 + 2;
    let rest = Rect { x: left.x + after, width: left.width.saturating_sub(after), ..left };
    canvas.text(rest, &about, Style::new());
    let style = if app.paused || is_degraded { canvas.theme.alert } else { canvas.theme.faint };
    canvas.right(area, &state, style);
    if area.height > 1 {
        canvas.text(Rect { y: area.y + 1, ..area }, &totals(app), Style::new());
    }
}

fn about(app: &App) -> String {
    let Some(reading) = &app.reading else { return String::new() };
    let sample = &reading.sample;
    let dying = sample.cgroups.iter().filter(|cgroup| cgroup.is_dying).count();
    let dying = if dying > 0 { format!(" ({dying} dying)") } else { String::new() };
    let online = sample.cpus.iter().filter(|cpu| cpu.online).count();
    let cgroups = sample.cgroups.len();
    format!(
        "cgroups {cgroups}{dying}  CPUs {online}  batch {}  {}",
        sample.batch,
        daemon(reading.daemon)
    )
}
