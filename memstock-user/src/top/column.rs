//! The columns of the cgroups: their heads, by the declarations in `memstock_common::stat`, and their values.

use std::cmp::Ordering;

use memstock_common::stat::{CgroupStat, PageCounterStat};

use super::text::{UNKNOWN, percent, short};
use crate::show::table::head;
use crate::size::human;

/// What a row is about, beside its name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Pages charged to it and those below it.
    pub usage: u64,
    /// Limit in pages.
    pub limit: Option<u64>,
    /// Pages stocked for it.
    pub stocked: u64,
    /// Faults a second.
    pub faults: Option<f64>,
    /// Those of them that were hits.
    pub hits: Option<f64>,
    /// Charges that were refused.
    pub failcnt: u64,
    /// The same a second.
    pub failing: Option<f64>,
}

/// Of its limit, from which part on a cgroup is near it.
const NEAR: f64 = 0.9;

/// How a cgroup stands to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// There is room, or no limit.
    None,
    /// It has used most of it.
    Near,
    /// Charges were refused since the last reading.
    Refused,
}

impl Figures {
    /// The part of the limit that is used.
    pub fn used(&self) -> Option<f64> {
        self.limit.map(|limit| if limit == 0 { 1.0 } else { self.usage as f64 / limit as f64 })
    }

    /// The part of the faults that were hits.
    pub fn hit_rate(&self) -> Option<f64> {
        let (hits, faults) = (self.hits?, self.faults?);
        // Both are read in passing, one after the other.
        (faults > 0.0).then(|| (hits / faults).min(1.0))
    }

    /// How it stands to its limit.
    pub fn pressure(&self) -> Pressure {
        if self.failing.is_some_and(|rate| rate > 0.0) {
            Pressure::Refused
        } else if self.used().is_some_and(|used| used >= NEAR) {
            Pressure::Near
        } else {
            Pressure::None
        }
    }
}

/// A column. Rows are sorted by one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The path.
    Name,
    /// [`PageCounterStat::Usage`].
    Usage,
    /// [`PageCounterStat::Limit`].
    Limit,
    /// Usage as part of the limit, with a bar.
    Used,
    /// [`CgroupStat::Faults`] a second.
    Faults,
    /// [`CgroupStat::Hits`] as part of the faults.
    Hits,
    /// [`CgroupStat::Stocked`].
    Stocked,
    /// [`PageCounterStat::Failcnt`].
    Failcnt,
}

impl Column {
    /// All, from left to right.
    pub const ALL: [Self; 8] = [
        Self::Name,
        Self::Usage,
        Self::Limit,
        Self::Used,
        Self::Faults,
        Self::Hits,
        Self::Stocked,
        Self::Failcnt,
    ];
    /// All but the name, the one that is left out last first.
    pub const BY_WORTH: [Self; 7] = [
        Self::Usage,
        Self::Limit,
        Self::Used,
        Self::Faults,
        Self::Stocked,
        Self::Hits,
        Self::Failcnt,
    ];

    /// Its head.
    pub fn head(self) -> String {
        let memory = |stat: PageCounterStat| head(stat.stat().name);
        let work = |stat: CgroupStat| head(stat.stat().name);
        match self {
            Self::Name => "CGROUP".into(),
            Self::Usage => memory(PageCounterStat::Usage),
            Self::Limit => memory(PageCounterStat::Limit),
            Self::Used => memory(PageCounterStat::Usage) + "%",
            Self::Faults => work(CgroupStat::Faults) + "/S",
            Self::Hits => work(CgroupStat::Hits) + "%",
            Self::Stocked => work(CgroupStat::Stocked),
            Self::Failcnt => memory(PageCounterStat::Failcnt),
        }
    }

    /// Columns of the terminal; 0 for the name, which has what is left.
    pub fn width(self) -> usize {
        match self {
            Self::Name => 0,
            Self::Usage | Self::Limit | Self::Stocked => 9,
            Self::Used => 14,
            Self::Faults => 8,
            Self::Hits => 6,
            Self::Failcnt => 8,
        }
    }

    /// Its value in a row; not that of the name.
    pub fn value(self, of: &Figures, page_size: u64) -> String {
        let unknown = || UNKNOWN.to_owned();
        // Said without colour, too.
        let mark = if of.pressure() == Pressure::Refused { "!" } else { "" };
        match self {
            Self::Name => String::new(),
            Self::Usage => human(of.usage * page_size),
            Self::Limit => of.limit.map_or("max".into(), |limit| human(limit * page_size)),
            Self::Used => of.used().map_or_else(unknown, |used| percent(used) + mark),
            Self::Faults => of.faults.map_or_else(unknown, short),
            Self::Hits => of.hit_rate().map_or_else(unknown, percent),
            Self::Stocked => human(of.stocked * page_size),
            Self::Failcnt => short(of.failcnt as f64) + mark,
        }
    }

    /// How two rows stand by this column, the one that comes first as lesser: the largest value does, and
    /// what is unknown or without limit comes last. Not for the name.
    pub fn compare(self, a: &Figures, b: &Figures) -> Ordering {
        let by = |value: fn(&Figures) -> Option<f64>| {
            value(b).unwrap_or(-1.0).total_cmp(&value(a).unwrap_or(-1.0))
        };
        match self {
            Self::Name => Ordering::Equal,
            Self::Usage => b.usage.cmp(&a.usage),
            Self::Limit => by(|of| of.limit.map(|limit| limit as f64)),
            Self::Used => by(Figures::used),
            Self::Faults => by(|of| of.faults),
            Self::Hits => by(Figures::hit_rate),
            Self::Stocked => b.stocked.cmp(&a.stocked),
            Self::Failcnt => b.failcnt.cmp(&a.failcnt),
        }
    }

    /// The column `step` to the right, round and round.
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
            limit: Some((1 << 30) - 1),
            stocked: 261_888,
            faults: Some(9.999e8),
            hits: Some(9.999e8),
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
        let of = |usage, limit, failing| Figures { usage, limit, failing, ..Figures::default() };
        assert_eq!(of(89, Some(100), Some(0.0)).pressure(), Pressure::None);
        assert_eq!(of(90, Some(100), None).pressure(), Pressure::Near);
        assert_eq!(of(9, Some(100), Some(0.5)).pressure(), Pressure::Refused);
        assert_eq!(of(u64::MAX, None, None).pressure(), Pressure::None);
        assert_eq!(of(0, Some(0), None).used(), Some(1.0));
        assert!(Column::Failcnt.value(&of(1, Some(1), Some(1.0)), 4096).ends_with('!'));
    }
}
