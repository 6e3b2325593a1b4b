//! The state of the view, changed by readings, events and [`keys`](super::keys). Knows neither the engine nor the
//! terminal.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use super::column::Column;
use super::rates::Rates;
use super::source::Reading;
use super::tree::{Order, Row, rows};
use crate::journal::Entry;
use crate::model::kernel::View;

/// How many events are kept, and how many readings of each CPU's stock.
const KEPT: usize = 256;

/// What keys act on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The view.
    #[default]
    View,
    /// The filter is being edited; this one is restored on Esc.
    Filter(String),
    /// The question whether to drain this target.
    Drain(Target),
    /// The help.
    Help,
}

/// Whose stocks are to be drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those of all cgroups.
    All,
    /// Those of a cgroup and its descendants.
    Subtree {
        /// cgroup v2 id.
        id: u64,
        /// Its path; escaped.
        path: String,
    },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all cgroups"),
            Self::Subtree { path, .. } => write!(f, "{path} and all below it"),
        }
    }
}

/// The state of the view.
#[derive(Debug)]
pub struct App {
    /// Bytes in a page.
    pub page_size: u64,
    /// Time between two readings.
    pub delay: Duration,
    /// The last reading.
    pub reading: Option<Reading>,
    /// Rates since the reading before.
    pub rates: Rates,
    /// Past pages in each CPU's stock, the oldest first.
    pub history: BTreeMap<u32, VecDeque<u64>>,
    /// Lines of the event tail, the oldest first.
    pub events: VecDeque<String>,
    /// Sorting, filtering and folding of the rows.
    pub order: Order,
    /// The rows of the cgroup tree.
    pub rows: Vec<Row>,
    /// Index of the selected row.
    pub selected: usize,
    /// Index of the first row shown.
    pub offset: usize,
    /// How many rows are shown; known once drawn.
    pub page: usize,
    /// The kernel's own stocks, while they are shown in place of memstock's.
    pub kernel: Option<View>,
    /// Index of the first CPU shown.
    pub first_cpu: usize,
    /// What keys act on.
    pub mode: Mode,
    /// Whether updates are paused.
    pub paused: bool,
    /// A message to show, often the result of the last key.
    pub message: Option<String>,
}

impl App {
    /// An empty view.
    pub fn new(page_size: u64, delay: Duration) -> Self {
        Self {
            page_size,
            delay,
            reading: None,
            rates: Rates::default(),
            history: BTreeMap::new(),
            events: VecDeque::new(),
            order: Order::default(),
            rows: Vec::new(),
            selected: 0,
            offset: 0,
            page: 1,
            kernel: None,
            first_cpu: 0,
            mode: Mode::View,
            paused: false,
            message: None,
        }
    }

    /// Shows the next reading.
    pub fn take(&mut self, reading: Reading) {
        if reading.is_new_engine {
            self.reading = None;
            self.history.clear();
            self.events.clear();
            self.message = Some("the previous engine ended; this is a new one".into());
        }
        if let Some(warning) = reading.warnings.first() {
            self.message = Some(warning.clone());
        }
        self.rates = match &self.reading {
            Some(before) => {
                let elapsed = reading.at.saturating_duration_since(before.at);
                Rates::between(&before.sample, &reading.sample, elapsed)
            }
            None => Rates::default(),
        };
        for cpu in &reading.sample.cpus {
            let past = self.history.entry(cpu.cpu).or_default();
            past.push_back(cpu.slots.iter().map(|slot| slot.nr_pages + slot.uncharge_pages).sum());
            keep(past);
        }
        self.reading = Some(reading);
        self.reorder();
    }

    /// Adds entries to the event tail.
    pub fn tell(&mut self, entries: &[Entry]) {
        for entry in entries.iter().skip(entries.len().saturating_sub(KEPT)) {
            // "2026-01-31T12:00:01.002Z": the day is in `memstock events`.
            let time = entry.time.get(11..19).unwrap_or(&entry.time);
            let record = entry.record.to_string();
            self.events.push_back(format!("{time} {}", record.trim_start_matches("event: ")));
            keep(&mut self.events);
        }
    }

    /// Rebuilds the rows, and keeps the same cgroup selected if it is still shown.
    pub fn reorder(&mut self) {
        let selected = self.rows.get(self.selected).map(|row| row.id);
        self.rows = match &self.reading {
            Some(reading) => rows(&reading.sample, &self.rates, &reading.pressures, &self.order),
            None => Vec::new(),
        };
        let same = self.rows.iter().position(|row| Some(row.id) == selected);
        self.select(same.unwrap_or(self.selected));
    }

    /// Selects a row, or the last one if there are not so many.
    pub fn select(&mut self, row: usize) {
        self.selected = row.min(self.rows.len().saturating_sub(1));
    }

    /// Scrolls so that the selected row is among the `page` rows shown.
    pub fn scroll(&mut self, page: usize) {
        self.page = page.max(1);
        let most = self.rows.len().saturating_sub(self.page);
        let lowest = (self.selected + 1).saturating_sub(self.page);
        self.offset = self.offset.clamp(lowest, self.selected.max(lowest)).min(most);
    }

    /// The ids of the cgroups of which the next reading is to have the pressure, which takes the kernel a while to sum
    /// up: those shown, or, if the order depends on it, all (`None`).
    pub fn pressures_wanted(&self) -> Option<HashSet<u64>> {
        if self.reading.is_none() || self.order.sort == Column::Psi {
            return None;
        }
        let shown = self.rows.iter().skip(self.offset).take(self.page);
        Some(shown.map(|row| row.id).collect())
    }

    /// The selected row.
    pub fn row(&self) -> Option<&Row> {
        self.rows.get(self.selected)
    }
}

fn keep<T>(all: &mut VecDeque<T>) {
    while all.len() > KEPT {
        all.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::top::fixture::{later, reading, sample};
    use std::time::Instant;

    #[test]
    fn two_readings_make_rates_and_another_engine_none() {
        let mut app = App::new(4096, Duration::from_secs(1));
        let start = Instant::now();
        app.take(reading(sample(), start));
        assert_eq!(app.rates, Rates::default());
        app.take(reading(later(), start + Duration::from_secs(2)));
        assert_eq!(app.rows[0].figures.faults, Some(500.0));
        assert_eq!(app.history[&0], [15 + 7, 15 + 7]);
        let other =
            Reading { is_new_engine: true, ..reading(later(), start + Duration::from_secs(3)) };
        app.take(other);
        assert_eq!(app.rates, Rates::default());
        assert_eq!(app.history[&0].len(), 1);
        assert!(app.message.is_some());
    }

    #[test]
    fn the_selection_stays_with_its_cgroup_and_on_the_screen() {
        let mut app = App::new(4096, Duration::from_secs(1));
        app.take(reading(sample(), Instant::now()));
        app.select(2);
        let id = app.row().map(|row| row.id);
        app.order.reverse = true;
        app.reorder();
        assert_eq!(app.row().map(|row| row.id), id);
        app.select(99);
        assert_eq!(app.selected, 4);
        app.scroll(2);
        assert_eq!((app.offset, app.page), (3, 2));
        app.select(0);
        app.scroll(2);
        assert_eq!(app.offset, 0);
        app.order.filter = "no such".into();
        app.reorder();
        app.scroll(2);
        assert_eq!((app.row(), app.offset), (None, 0));
    }
}
