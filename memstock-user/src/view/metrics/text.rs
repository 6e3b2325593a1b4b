//! Formats a reading as Prometheus text. Decides the name and labels of each metric; `points` has the values.
//!
//! A name consists of `memstock`, its subject, the declared name, the unit, and `total` for counters. Memory is in
//! bytes, as Prometheus recommends, so the words `nr` and `pages` are dropped. A value that does not exist, such as a
//! limit, is left out rather than infinite: a query that compares then finds nothing to compare with.

mod points;

use std::fmt;
use std::sync::Arc;

use memstock_common::stat::{
    CgroupStat, CpuStat, CpuState, DaemonStat, EngineStat, Info, KernelStockStat, LimitStat,
    MemoryStat, PageCounterStat, PressureStat, ProbeStat, SlotStat, Stat, StreamStat, Trend, Unit,
};
use memstock_common::{Loss, Resource};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, NoLabelSet,
    prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as MetricUnit};

pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

use self::points::{Number, Points};
use crate::view::metrics::Reading;
use crate::view::metrics::names::Found;

/// Labels for a cgroup's workload name, spelled as in kubelet's own metrics; after all others.
const NAMES: [&str; 4] = ["container", "pod", "namespace", "unit"];

/// These labels and [`NAMES`].
macro_rules! with_names {
    ($($label:literal),+) => { [$($label,)+ NAMES[0], NAMES[1], NAMES[2], NAMES[3]] };
}

/// First word of every name.
const PREFIX: &str = "memstock";

/// The whole exposition, in the text format 0.0.4: every scraper reads it, so we have no second one.
///
/// # Errors
/// Only those of writing to a string, which cannot fail.
pub fn text(reading: Arc<Reading>, found: Arc<Found>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition(reading, found)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

/// A metric: one declaration and its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family(Source);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Info(Info),
    Engine(EngineStat),
    Cpu(CpuStat),
    CpuState(CpuState),
    Slot(SlotStat),
    Counter(Resource, PageCounterStat),
    Limit(Resource, LimitStat),
    Memory(MemoryStat),
    Cgroup(CgroupStat),
    Pressure(PressureStat),
    KernelStock(KernelStockStat),
    Loss(Loss),
    Probe(ProbeStat),
    Unreadable,
    Daemon(DaemonStat),
}

impl Family {
    /// All of them, in the order in which they are shown.
    pub fn all() -> impl Iterator<Item = Self> {
        let counters = Resource::ALL.into_iter().flat_map(|resource| {
            let own = PageCounterStat::ALL.iter().map(move |&s| Source::Counter(resource, s));
            own.chain(LimitStat::ALL.iter().map(move |&s| Source::Limit(resource, s)))
        });
        (Info::ALL.iter().map(|&s| Source::Info(s)))
            .chain(EngineStat::ALL.iter().map(|&s| Source::Engine(s)))
            .chain(CpuState::ALL.iter().map(|&s| Source::CpuState(s)))
            .chain(CpuStat::ALL.iter().map(|&s| Source::Cpu(s)))
            .chain(SlotStat::ALL.iter().map(|&s| Source::Slot(s)))
            .chain(counters)
            .chain(MemoryStat::ALL.iter().map(|&s| Source::Memory(s)))
            .chain(CgroupStat::ALL.iter().map(|&s| Source::Cgroup(s)))
            .chain(PressureStat::ALL.iter().map(|&s| Source::Pressure(s)))
            .chain(KernelStockStat::ALL.iter().map(|&s| Source::KernelStock(s)))
            .chain(Loss::ALL.iter().map(|&s| Source::Loss(s)))
            .chain(ProbeStat::ALL.iter().map(|&s| Source::Probe(s)))
            .chain([Source::Unreadable])
            .chain(DaemonStat::ALL.iter().map(|&s| Source::Daemon(s)))
            .map(Self)
    }

    /// The declaration.
    pub const fn stat(self) -> Stat {
        match self.0 {
            Source::Info(stat) => stat.stat(),
            Source::Engine(stat) => stat.stat(),
            Source::Cpu(stat) => stat.stat(),
            Source::CpuState(stat) => stat.stat(),
            Source::Slot(stat) => stat.stat(),
            Source::Counter(_, stat) => stat.stat(),
            Source::Limit(_, stat) => stat.stat(),
            Source::Memory(stat) => stat.stat(),
            Source::Cgroup(stat) => stat.stat(),
            Source::Pressure(stat) => stat.stat(),
            Source::KernelStock(stat) => stat.stat(),
            Source::Loss(loss) => loss.stat(),
            Source::Probe(stat) => stat.stat(),
            Source::Unreadable => StreamStat::EventsUnreadable.stat(),
            Source::Daemon(stat) => stat.stat(),
        }
    }

    /// Names of the labels.
    pub const fn labels(self) -> &'static [&'static str] {
        match self.0 {
            Source::Info(Info::Build) => &["version"],
            Source::Info(Info::Cgroup) => &with_names!("cgroup", "cgroup_id", "parent"),
            Source::Cpu(_) | Source::CpuState(_) => &["cpu"],
            Source::Slot(_) => &["cpu", "slot"],
            Source::Counter(..)
            | Source::Memory(_)
            | Source::Cgroup(_)
            | Source::Pressure(_)
            | Source::KernelStock(_) => &with_names!("cgroup"),
            Source::Limit(..) => &with_names!("cgroup", "ancestor"),
            Source::Daemon(DaemonStat::Events) => &["kind"],
            Source::Daemon(DaemonStat::Errors) => &["part"],
            Source::Daemon(DaemonStat::Degraded) => &["reason"],
            Source::Daemon(DaemonStat::Checks) => &["result"],
            Source::Engine(_)
            | Source::Loss(_)
            | Source::Probe(_)
            | Source::Unreadable
            | Source::Daemon(_) => &[],
        }
    }

    /// Its subject, as a word of the name.
    const fn subject(self) -> Option<&'static str> {
        match self.0 {
            Source::Cpu(_) | Source::CpuState(_) => Some("cpu"),
            Source::Slot(_) => Some("slot"),
            Source::Cgroup(_) => Some("cgroup"),
            Source::Pressure(_) => Some("cgroup_memory_pressure"),
            Source::KernelStock(_) => Some("cgroup_kernel"),
            Source::Counter(Resource::Memory, _)
            | Source::Limit(Resource::Memory, _)
            | Source::Memory(_) => Some("cgroup_memory"),
            Source::Counter(Resource::Memsw, _) | Source::Limit(Resource::Memsw, _) => {
                Some("cgroup_memsw")
            }
            Source::Info(_)
            | Source::Engine(_)
            | Source::Loss(_)
            | Source::Probe(_)
            | Source::Unreadable
            | Source::Daemon(_) => None,
        }
    }

    /// The name without unit and `total`.
    fn base(self) -> String {
        let is_amount = self.unit().is_some();
        let words = self.stat().name.split('_');
        let words = words.filter(|word| !(is_amount && matches!(*word, "nr" | "pages")));
        std::iter::once(PREFIX).chain(self.subject()).chain(words).collect::<Vec<_>>().join("_")
    }

    fn unit(self) -> Option<MetricUnit> {
        match self.stat().unit {
            Unit::Bytes | Unit::Pages => Some(MetricUnit::Bytes),
            Unit::Seconds => Some(MetricUnit::Seconds),
            Unit::Count | Unit::Percent => None,
        }
    }

    /// The full name.
    pub fn name(self) -> String {
        let unit = self.unit().map_or_else(String::new, |unit| format!("_{}", unit.as_str()));
        let total = if self.stat().trend == Trend::Counter { "_total" } else { "" };
        self.base() + &unit + total
    }

    fn encode(self, encoder: &mut DescriptorEncoder, points: &Points) -> fmt::Result {
        let (base, unit, stat) = (self.base(), self.unit(), self.stat());
        let kind = match stat.trend {
            Trend::Gauge => MetricType::Gauge,
            Trend::Counter => MetricType::Counter,
        };
        let mut family = encoder.encode_descriptor(&base, stat.help, unit.as_ref(), kind)?;
        let names = self.labels();
        let nr_kept = names.strip_suffix(&NAMES).map_or(names.len(), <[_]>::len);
        points.of(self, &mut |values, number| {
            let labels = Labels { names, values, nr_kept };
            let mut point = family.encode_family(&labels)?;
            match (stat.trend, number) {
                (Trend::Counter, Number::Unsigned(value)) => {
                    point.encode_counter::<NoLabelSet, u64, u64>(&value, None)
                }
                (Trend::Gauge, Number::Unsigned(value)) => point.encode_gauge(&value),
                (_, Number::Seconds(value)) => {
                    point.encode_counter::<NoLabelSet, f64, f64>(&value.as_secs_f64(), None)
                }
                (_, Number::Signed(value)) => point.encode_gauge(&value),
            }
        })
    }
}

/// The labels of a point.
struct Labels<'a> {
    names: &'static [&'static str],
    values: &'a [&'a str],
    /// The rest of them are left out if empty: to Prometheus an empty label is none, and many cgroups have no name.
    nr_kept: usize,
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (n, (name, value)) in self.names.iter().zip(self.values).enumerate() {
            if n < self.nr_kept || !value.is_empty() {
                (*name, *value).encode(encoder.encode_label())?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Exposition(Arc<Reading>, Arc<Found>);

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let points = Points::new(&self.0, &self.1);
        Family::all().try_for_each(|family| family.encode(&mut encoder, &points))
    }
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
