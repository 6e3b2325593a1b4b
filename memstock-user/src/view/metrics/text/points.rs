//! The values of each family, with their labels, from a reading. Knows no format.
//!
//! A cgroup's label is its path: a service that is restarted continues its series, and there are as many series as
//! cgroups. The id is in `memstock_cgroup_info`. Removed cgroups have no path and may be many, so only their sums are
//! exported.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use memstock_common::Resource;
use memstock_common::stat::{
    DaemonStat, EngineStat, Info, KernelStockStat, LimitStat, PageCounterStat, PressureStat, Stat,
    Unit,
};

use super::{Family, Source};
use crate::daemon::parts::Part;
use crate::forecast::headroom::{Headroom, headrooms};
use crate::host::cgroup::display;
use crate::host::workload::Workload;
use crate::model::{Cgroup, PageCounter};
use crate::view::metrics::Reading;
use crate::view::metrics::health::Cause;
use crate::view::metrics::names::Found;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Unsigned(u64),
    Signed(i64),
    Seconds(Duration),
}

/// Receives the values of a family's labels, in order, and the number.
type Take<'t> = &'t mut dyn FnMut(&[&str], Number) -> fmt::Result;

/// A reading, with what several families need computed once.
pub(super) struct Points<'a> {
    reading: &'a Reading,
    tracked: Vec<Tracked<'a>>,
    /// Their places in `tracked`, by id.
    places: HashMap<u64, usize>,
    /// Their memory pressure.
    found: &'a Found,
    memory: Vec<Headroom<'a>>,
    memsw: Vec<Headroom<'a>>,
}

/// A tracked cgroup.
struct Tracked<'a> {
    cgroup: &'a Cgroup,
    label: String,
    /// The values of [`NAMES`](super::NAMES).
    names: [&'a str; 4],
}

fn counter(cgroup: &Cgroup, resource: Resource) -> &PageCounter {
    match resource {
        Resource::Memory => &cgroup.memory,
        Resource::Memsw => &cgroup.memsw,
    }
}

/// The values of [`NAMES`](super::NAMES) for what people call a cgroup.
fn names(workload: &Workload) -> [&str; 4] {
    let Workload { pod, namespace, container, .. } = workload;
    [container.as_deref(), pod.as_deref(), namespace.as_deref(), workload.unit()]
        .map(Option::unwrap_or_default)
}

impl<'a> Points<'a> {
    pub(super) fn new(reading: &'a Reading, found: &'a Found) -> Self {
        let sample = &reading.sample;
        let (mut tracked, mut used) = (Vec::new(), HashSet::new());
        for cgroup in sample.cgroups.iter().filter(|cgroup| !cgroup.is_dying) {
            let id = cgroup.name.id;
            let path = cgroup.name.path.as_deref().map(display);
            let mut label = path.unwrap_or_else(|| format!("(removed, id {id})"));
            // An escaped name can equal another cgroup's real name. Whoever creates such a cgroup must not be able to
            // corrupt the other's series.
            while !used.insert(label.clone()) {
                label += &format!(" (id {id})");
            }
            let names = found.workloads.get(&id).map_or([""; 4], names);
            tracked.push(Tracked { cgroup, label, names });
        }
        let places = tracked.iter().enumerate().map(|(n, it)| (it.cgroup.name.id, n)).collect();
        let of = |resource| headrooms(sample, move |cgroup| counter(cgroup, resource));
        Self {
            reading,
            tracked,
            places,
            found,
            memory: of(Resource::Memory),
            memsw: if sample.has_memsw { of(Resource::Memsw) } else { Vec::new() },
        }
    }

    /// Hands each point of a family to `take`.
    pub(super) fn of(&self, family: Family, take: Take) -> fmt::Result {
        let declared = family.stat();
        let number = |value| Number::Unsigned(self.scaled(value, declared));
        match family.0 {
            Source::Info(info) => self.info(info, take),
            Source::Engine(stat) => take(&[], number(self.engine(stat))),
            Source::Cpu(stat) => self.reading.sample.cpus.iter().try_for_each(|cpu| {
                let value = cpu.get(stat).map(number);
                value.map_or(Ok(()), |number| take(&[&cpu.cpu.to_string()], number))
            }),
            Source::CpuState(_) => self
                .reading
                .sample
                .cpus
                .iter()
                .try_for_each(|cpu| take(&[&cpu.cpu.to_string()], number(cpu.online.into()))),
            Source::Slot(stat) => self.reading.sample.cpus.iter().try_for_each(|cpu| {
                let label = cpu.cpu.to_string();
                cpu.slots.iter().enumerate().try_for_each(|(slot, values)| {
                    take(&[&label, &slot.to_string()], number(values.get(stat)))
                })
            }),
            Source::Counter(Resource::Memsw, _) if !self.reading.sample.has_memsw => Ok(()),
            Source::Counter(resource, stat) => {
                self.each(take, |cgroup| counter(cgroup, resource).get(stat).map(number))
            }
            Source::Memory(stat) => self.each(take, |cgroup| Some(number(cgroup.part(stat)))),
            Source::Cgroup(stat) => self.each(take, |cgroup| cgroup.get(stat).map(number)),
            Source::Pressure(stat) => self.each(take, |cgroup| {
                let pressure = self.found.pressures.get(&cgroup.name.id)?;
                let stall = match stat {
                    PressureStat::Waiting => pressure.some,
                    PressureStat::Stalled => pressure.full,
                };
                Some(Number::Seconds(stall.total))
            }),
            Source::KernelStock(KernelStockStat::Stranded) => self.each(take, |cgroup| {
                let path = cgroup.name.path.as_deref()?;
                self.reading.stranded.get(path).copied().map(number)
            }),
            Source::Limit(resource, stat) => self.limits(resource, stat, take),
            Source::Loss(loss) => self.loss(loss.stat(), take),
            Source::Probe(stat) => self.loss(stat.stat(), take),
            Source::Unreadable => take(&[], number(self.reading.unreadable)),
            Source::Daemon(stat) => self.daemon(stat, take),
        }
    }

    fn scaled(&self, value: u64, declared: Stat) -> u64 {
        match declared.unit {
            Unit::Bytes | Unit::Pages => value.saturating_mul(self.reading.page_size),
            // Seconds and percent are never the engine's own numbers.
            Unit::Count | Unit::Seconds | Unit::Percent => value,
        }
    }

    fn each(&self, take: Take, value: impl Fn(&Cgroup) -> Option<Number>) -> fmt::Result {
        self.tracked.iter().try_for_each(|Tracked { cgroup, label, names }| {
            let [container, pod, namespace, unit] = *names;
            value(cgroup)
                .map_or(Ok(()), |number| take(&[label, container, pod, namespace, unit], number))
        })
    }

    fn tracked(&self, id: u64) -> Option<&Tracked<'a>> {
        self.tracked.get(*self.places.get(&id)?)
    }

    fn info(&self, info: Info, take: Take) -> fmt::Result {
        match info {
            Info::Build => take(&[env!("CARGO_PKG_VERSION")], Number::Unsigned(1)),
            Info::Cgroup => self.tracked.iter().try_for_each(|Tracked { cgroup, label, names }| {
                let parent = cgroup.parent_id.and_then(|id| self.tracked(id));
                let parent = parent.map_or("", |parent| &parent.label);
                let id = cgroup.name.id.to_string();
                let [container, pod, namespace, unit] = *names;
                take(&[label, &id, parent, container, pod, namespace, unit], Number::Unsigned(1))
            }),
        }
    }

    fn engine(&self, stat: EngineStat) -> u64 {
        let sample = &self.reading.sample;
        let dying = || sample.cgroups.iter().filter(|cgroup| cgroup.is_dying);
        match stat {
            EngineStat::Batch => sample.batch.into(),
            EngineStat::Cgroups => self.tracked.len() as u64,
            EngineStat::DyingCgroups => dying().count() as u64,
            EngineStat::DyingUsage => {
                // Its usage includes that of its descendants.
                let ids: BTreeSet<_> = dying().map(|cgroup| cgroup.name.id).collect();
                let is_below = |id: u64| ids.contains(&id);
                let tops = dying().filter(|cgroup| !cgroup.parent_id.is_some_and(is_below));
                tops.filter_map(|cgroup| cgroup.memory.get(PageCounterStat::Usage)).sum()
            }
        }
    }

    fn limits(&self, resource: Resource, stat: LimitStat, take: Take) -> fmt::Result {
        let headrooms = match resource {
            Resource::Memory => &self.memory,
            Resource::Memsw => &self.memsw,
        };
        headrooms.iter().try_for_each(|headroom| {
            let number = match stat {
                LimitStat::Headroom => {
                    Number::Signed(headroom.nr_pages.saturating_mul(self.page_size()))
                }
                LimitStat::Binding => Number::Unsigned(headroom.is_binding.into()),
            };
            let [own, above] =
                [headroom.cgroup, headroom.ancestor].map(|it| self.tracked(it.name.id));
            let (Some(own), Some(above)) = (own, above) else { return Ok(()) };
            let [container, pod, namespace, unit] = own.names;
            take(&[&own.label, &above.label, container, pod, namespace, unit], number)
        })
    }

    fn page_size(&self) -> i64 {
        self.reading.page_size.cast_signed()
    }

    fn loss(&self, declared: Stat, take: Take) -> fmt::Result {
        let mut losses = self.reading.sample.loss.iter().filter(|(stat, _)| *stat == declared);
        losses.try_for_each(|&(_, value)| take(&[], Number::Unsigned(self.scaled(value, declared))))
    }

    fn daemon(&self, stat: DaemonStat, take: Take) -> fmt::Result {
        let Reading { records, left_out, checked, reasons, errors, .. } = self.reading;
        let last = checked.last.as_ref();
        match stat {
            DaemonStat::Events => {
                records.iter().try_for_each(|(kind, count)| take(&[kind], Number::Unsigned(count)))
            }
            DaemonStat::LeftOut => take(&[], Number::Unsigned(*left_out)),
            DaemonStat::Errors => Part::ALL
                .iter()
                .zip(errors)
                .try_for_each(|(part, &count)| take(&[part.name()], Number::Unsigned(count))),
            DaemonStat::Degraded => Cause::ALL.iter().try_for_each(|&cause| {
                let is_so = reasons.iter().any(|reason| reason.cause == cause);
                take(&[cause.name()], Number::Unsigned(is_so.into()))
            }),
            DaemonStat::Checks => [("exact", checked.exact), ("moving", checked.moving)]
                .into_iter()
                .try_for_each(|(result, count)| take(&[result], Number::Unsigned(count))),
            DaemonStat::Drift => last.map_or(Ok(()), |proof| {
                take(&[], Number::Signed(proof.drift.saturating_mul(self.page_size())))
            }),
            DaemonStat::Ownerless => last.map_or(Ok(()), |proof| {
                take(&[], Number::Unsigned(self.scaled(proof.ownerless, stat.stat())))
            }),
        }
    }
}
