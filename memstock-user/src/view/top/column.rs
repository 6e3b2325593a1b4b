//! The columns of the cgroup tree: heads, taken from the declarations in `memstock_common::stat`, and values.

use std::cmp::Ordering;

use memstock_common::stat::{CgroupStat, MemoryStat, PageCounterStat};

use super::text::{UNKNOWN, percent, short};
use crate::model::ratio::hit_rate;
use crate::model::size::human;
use crate::view::show::table::head;

/// The figures of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Pages charged to it and its descendants.
    pub usage: u64,
    /// Those of them that the kernel could not reclaim.
    pub needed: u64,
    /// The highest `needed` so far.
    pub peak: u64,
    /// Limit in pages.
    pub limit: Option<u64>,
    /// Pages until a limit is reached, its own or an ancestor's; negative above it.
    pub headroom: Option<i64>,
    /// Pages stocked for it.
    pub stocked: u64,
    /// Faults a second.
    pub faults: Option<f64>,
    /// Pages charged a second.
    pub charged: Option<f64>,
    /// Those of them that came from a stock.
    pub from_stock: Option<f64>,
    /// Percent of the last ten seconds in which at least one task waited for memory.
    pub pressure: Option<f64>,
    /// Charges that were refused.
    pub failcnt: u64,
    /// Refused charges a second.
    pub failing: Option<f64>,
}

/// A cgroup that needs this fraction of its limit is near it.
const NEAR: f64 = 0.9;

/// How close a cgroup is to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// There is room, or no limit.
    None,
    /// It needs most of its limit.
    Near,
    /// Charges were refused since the last reading.
    Refused,
}

impl Figures {
    /// The fraction of the limit that is needed, at most 1.
    pub fn needed_part(&self) -> Option<f64> {
        self.part(self.needed)
    }

    /// The fraction of the limit that is used, at most 1.
    pub fn used(&self) -> Option<f64> {
        self.part(self.usage)
    }

    fn part(&self, nr_pages: u64) -> Option<f64> {
        let part = |limit| if limit == 0 { 1.0 } else { nr_pages as f64 / limit as f64 };
        self.limit.map(|limit| part(limit).min(1.0))
    }

    /// The percentage of charged pages that came from a stock.
    pub fn hit_rate(&self) -> Option<f64> {
        hit_rate(self.from_stock?, self.charged?)
    }

    /// How close it is to its limit.
    pub fn pressure(&self) -> Pressure {
        if self.failing.is_some_and(|rate| rate > 0.0) {
            Pressure::Refused
        } else if self.needed_part().is_some_and(|part| part >= NEAR) {
            Pressure::Near
        } else {
            Pressure::None
        }
    }
}

/// A column. Rows are sorted by one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray)]
pub enum Column {
    /// The path.
    Name,
    /// [`PageCounterStat::Usage`].
    Usage,
    /// [`MemoryStat::Needed`].
    Needed,
    /// [`MemoryStat::NeededWatermark`].
    Peak,
    /// [`PageCounterStat::Limit`].
    Limit,
    /// What is needed in percent of the limit, with a bar of that and of the usage.
    Part,
    /// What may still be needed until the first limit is reached.
    Headroom,
    /// `memory.pressure`: some, avg10.
    Psi,
    /// [`CgroupStat::Faults`] a second.
    Faults,
    /// [`CgroupStat::FromStock`] in percent of the pages charged.
    Hits,
    /// [`CgroupStat::Stocked`].
    Stocked,
    /// [`PageCounterStat::Failcnt`].
    Failcnt,
}

impl Column {
    /// All, from left to right.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;
    /// All but the name, the most important first: on a narrow terminal the last are left out.
    pub const BY_PRIORITY: [Self; 11] = [
        Self::Usage,
        Self::Needed,
        Self::Limit,
        Self::Part,
        Self::Faults,
        Self::Headroom,
        Self::Peak,
        Self::Stocked,
        Self::Hits,
        Self::Psi,
        Self::Failcnt,
    ];

    /// Its head.
    pub fn head(self) -> String {
        let memory = |stat: PageCounterStat| head(stat.stat().name);
        let work = |stat: CgroupStat| head(stat.stat().name);
        match self {
            Self::Name => "CGROUP".into(),
            Self::Usage => memory(PageCounterStat::Usage),
            Self::Needed => head(MemoryStat::Needed.stat().name),
            Self::Limit => memory(PageCounterStat::Limit),
            Self::Part => head(MemoryStat::Needed.stat().name) + "%",
            Self::Peak => "NEED-PEAK".into(),
            Self::Headroom => "HEADROOM".into(),
            Self::Psi => "PSI%".into(),
            Self::Faults => work(CgroupStat::Faults) + "/S",
            Self::Hits => "STOCK%".into(),
            Self::Stocked => work(CgroupStat::Stocked),
            Self::Failcnt => memory(PageCounterStat::Failcnt),
        }
    }

    /// Its width on the terminal; 0 for the name, which takes the rest.
    pub fn width(self) -> usize {
        match self {
            Self::Name => 0,
            Self::Usage | Self::Needed | Self::Peak | Self::Limit | Self::Stocked => 9,
            Self::Headroom => 10,
            Self::Part => 14,
            Self::Faults => 8,
            Self::Hits | Self::Psi => 6,
            Self::Failcnt => 8,
        }
    }

    /// Its value in a row; empty for the name.
    pub fn value(self, of: &Figures, page_size: u64) -> String {
        let unknown = || UNKNOWN.to_owned();
        // Visible without colour, too.
        let mark = if of.pressure() == Pressure::Refused { "!" } else { "" };
        match self {
            Self::Name => String::new(),
            Self::Usage => human(of.usage * page_size),
            Self::Needed => human(of.needed * page_size),
            Self::Peak => human(of.peak * page_size),
            Self::Headroom => of.headroom.map_or_else(unknown, |left| {
                let sign = if left < 0 { "-" } else { "" };
                format!("{sign}{}", human(left.unsigned_abs() * page_size))
            }),
            Self::Limit => of.limit.map_or("max".into(), |limit| human(limit * page_size)),
            Self::Part => of.needed_part().map_or_else(unknown, |part| percent(part) + mark),
            Self::Psi => of.pressure.map_or_else(unknown, |part| percent(part / 100.0)),
            Self::Faults => of.faults.map_or_else(unknown, short),
            Self::Hits => of.hit_rate().map_or_else(unknown, |rate| percent(rate / 100.0)),
            Self::Stocked => human(of.stocked * page_size),
            Self::Failcnt => short(of.failcnt as f64) + mark,
        }
    }

    /// Sorts two rows: the larger value comes first (the smaller [`Self::Headroom`]), and what is unknown or has no
    /// limit last. Not for the name.
    pub fn compare(self, a: &Figures, b: &Figures) -> Ordering {
        let by = |value: fn(&Figures) -> Option<f64>| {
            value(b).unwrap_or(-1.0).total_cmp(&value(a).unwrap_or(-1.0))
        };
        match self {
            Self::Name => Ordering::Equal,
            Self::Usage => b.usage.cmp(&a.usage),
            Self::Needed => b.needed.cmp(&a.needed),
            Self::Limit => by(|of| of.limit.map(|limit| limit as f64)),
            Self::Peak => b.peak.cmp(&a.peak),
            // The smallest comes first, as the most urgent.
            Self::Headroom => {
                let left = |of: &Figures| of.headroom.unwrap_or(i64::MAX);
                left(a).cmp(&left(b))
            }
            Self::Part => by(Figures::needed_part),
            Self::Psi => by(|of| of.pressure),
            Self::Faults => by(|of| of.faults),
            Self::Hits => by(Figures::hit_rate),
            Self::Stocked => b.stocked.cmp(&a.stocked),
            Self::Failcnt => b.failcnt.cmp(&a.failcnt),
        }
    }

    /// The column `step` places to the right, wrapping around.
    pub fn step(self, step: isize) -> Self {
        let here = Self::ALL.iter().position(|&column| column == self).unwrap_or(0);
        let nr = Self::ALL.len() as isize;
        Self::ALL[(here as isize + step).rem_euclid(nr) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_values_fit_their_columns() {
        let most = Figures {
            usage: (1 << 30) - 1,
            needed: (1 << 30) - 1,
            peak: (1 << 30) - 1,
            headroom: Some(1 - (1 << 30)),
            limit: Some((1 << 30) - 1),
            stocked: 261_888,
            pressure: Some(100.0),
            faults: Some(9.999e8),
            charged: Some(9.999e8),
            from_stock: Some(9.999e8),
            failcnt: 999_949_000,
            failing: Some(1.0),
        };
        for column in &Column::ALL[1..] {
            assert!(column.head().len() <= column.width(), "{column:?}");
            assert!(column.value(&most, 4096).len() <= column.width(), "{column:?}");
            let none = column.value(&Figures::default(), 4096);
            assert!(!none.is_empty() && none.len() <= column.width(), "{column:?}");
        }
    }

    #[test]
    fn each_column_is_reached_both_ways() {
        let mut seen = vec![Column::Name];
        while seen.len() < Column::ALL.len() {
            seen.push(seen[seen.len() - 1].step(1));
        }
        assert_eq!(seen, Column::ALL);
        assert_eq!(Column::Failcnt.step(1), Column::Name);
        assert_eq!(Column::Name.step(-1), Column::Failcnt);
    }

    #[test]
    fn pressure_is_said_once_it_is_there() {
        let of = |needed, limit, failing| Figures { needed, limit, failing, ..Figures::default() };
        assert_eq!(of(89, Some(100), Some(0.0)).pressure(), Pressure::None);
        assert_eq!(of(90, Some(100), None).pressure(), Pressure::Near);
        assert_eq!(of(9, Some(100), Some(0.5)).pressure(), Pressure::Refused);
        assert_eq!(of(u64::MAX, None, None).pressure(), Pressure::None);
        assert_eq!(of(0, Some(0), None).needed_part(), Some(1.0));
        // Page cache is not pressure.
        let cache = Figures { usage: 900, ..of(10, Some(100), None) };
        assert_eq!((cache.pressure(), cache.used()), (Pressure::None, Some(1.0)));
        assert!(Column::Failcnt.value(&of(1, Some(1), Some(1.0)), 4096).ends_with('!'));
    }
}
