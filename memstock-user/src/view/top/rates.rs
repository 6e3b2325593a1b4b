//! Rates per second, from the difference of two samples. Pure.
//!
//! A rate is unknown, not 0, if there is nothing to compare with, if a count is unknown, or if a counter went back,
//! because it was reset in between. A new cgroup started at 0; a new CPU was merely not seen before.

use std::collections::HashMap;
use std::time::Duration;

use memstock_common::stat::{CgroupStat, CpuStat, PageCounterStat};

use crate::model::{Cgroup, Cpu, Sample};

/// Rates of everything in a sample, by the id of the cgroup and the number of the CPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    cgroups: HashMap<u64, CgroupRates>,
    cpus: HashMap<u32, [Option<f64>; CpuStat::COUNT as usize]>,
}

/// Rates of one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CgroupRates {
    /// Indexed by [`CgroupStat`]; for gauges, the change per second.
    pub stats: [Option<f64>; CgroupStat::COUNT as usize],
    /// Refused charges to memory and to memory+swap.
    pub failcnt: Option<f64>,
}

impl CgroupRates {
    /// The rate of `stat`.
    pub fn get(&self, stat: CgroupStat) -> Option<f64> {
        self.stats[stat as usize]
    }
}

impl Rates {
    /// The rates from `before` to `after`, `elapsed` later.
    pub fn between(before: &Sample, after: &Sample, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let rate = |before: Option<u64>, after: Option<u64>| {
            let more = after?.checked_sub(before?)?;
            (seconds > 0.0).then(|| more as f64 / seconds)
        };
        let cgroups: HashMap<_, _> = before.cgroups.iter().map(|c| (c.name.id, c)).collect();
        let cpus: HashMap<_, _> = before.cpus.iter().map(|cpu| (cpu.cpu, cpu)).collect();
        let of_cgroup = |after: &Cgroup| {
            let before = cgroups.get(&after.name.id);
            let stat = |stat: &CgroupStat| {
                rate(before.map_or(Some(0), |before| before.get(*stat)), after.get(*stat))
            };
            CgroupRates {
                stats: std::array::from_fn(|n| stat(&CgroupStat::ALL[n])),
                failcnt: rate(
                    Some(before.map_or(0, |before| failcnt(before))),
                    Some(failcnt(after)),
                ),
            }
        };
        let of_cpu = |after: &Cpu| {
            let before = cpus.get(&after.cpu)?;
            let stat = |stat: CpuStat| rate(before.get(stat), after.get(stat));
            Some(std::array::from_fn(|n| stat(CpuStat::ALL[n])))
        };
        Self {
            cgroups: after.cgroups.iter().map(|c| (c.name.id, of_cgroup(c))).collect(),
            cpus: after.cpus.iter().filter_map(|cpu| Some((cpu.cpu, of_cpu(cpu)?))).collect(),
        }
    }

    /// The rates of the cgroup `id`; all unknown if it is not in the sample.
    pub fn cgroup(&self, id: u64) -> CgroupRates {
        self.cgroups.get(&id).copied().unwrap_or_default()
    }

    /// A rate of the CPU `cpu`.
    pub fn cpu(&self, cpu: u32, stat: CpuStat) -> Option<f64> {
        self.cpus.get(&cpu)?[stat as usize]
    }

    /// The sum over the CPUs for which it is known; unknown if that is none.
    pub fn all_cpus(&self, stat: CpuStat) -> Option<f64> {
        let known = self.cpus.values().filter_map(|rates| rates[stat as usize]);
        known.fold(None, |sum, rate| Some(sum.unwrap_or(0.0) + rate))
    }
}

/// Charges that were refused at either limit of a cgroup.
pub fn failcnt(cgroup: &Cgroup) -> u64 {
    let of = |counter: &crate::model::PageCounter| counter.get(PageCounterStat::Failcnt);
    of(&cgroup.memory).unwrap_or(0) + of(&cgroup.memsw).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    fn cgroup(id: u64, faults: u64, failed: u64) -> Cgroup {
        let mut cgroup = Cgroup { name: Name::new(id, None), ..Cgroup::default() };
        cgroup.stats[CgroupStat::Faults as usize] = faults.into();
        cgroup.memory.stats[PageCounterStat::Failcnt as usize] = failed.into();
        cgroup
    }

    fn cpu(cpu: u32, faults: u64) -> Cpu {
        let mut row = Cpu { cpu, ..Cpu::default() };
        row.stats[CpuStat::Faults as usize] = faults.into();
        row
    }

    fn sample(cgroups: &[Cgroup], cpus: &[Cpu]) -> Sample {
        Sample { cgroups: cgroups.to_vec(), cpus: cpus.to_vec(), ..Sample::default() }
    }

    fn faults(rates: &Rates, id: u64) -> Option<f64> {
        rates.cgroup(id).get(CgroupStat::Faults)
    }

    #[test]
    fn a_rate_is_a_difference_by_time() {
        let before = sample(&[cgroup(1, 100, 2)], &[cpu(0, 10)]);
        let after = sample(&[cgroup(1, 400, 3)], &[cpu(0, 30)]);
        let rates = Rates::between(&before, &after, Duration::from_millis(500));
        assert_eq!(faults(&rates, 1), Some(600.0));
        assert_eq!(rates.cgroup(1).failcnt, Some(2.0));
        assert_eq!(rates.cpu(0, CpuStat::Faults), Some(40.0));
        assert_eq!(rates.all_cpus(CpuStat::Faults), Some(40.0));
        let none = Rates::between(&before, &after, Duration::ZERO);
        assert_eq!((faults(&none, 1), none.all_cpus(CpuStat::Faults)), (None, None));
    }

    #[test]
    fn a_cgroup_that_comes_began_at_0_and_one_that_went_has_no_rate() {
        let second = Duration::from_secs(1);
        let (with, without) = (sample(&[cgroup(1, 5, 0)], &[]), sample(&[], &[]));
        assert_eq!(faults(&Rates::between(&without, &with, second), 1), Some(5.0));
        assert_eq!(faults(&Rates::between(&with, &without, second), 1), None);
        // It reappears, registered again, with less than it had: only consecutive samples are compared.
        let again = sample(&[cgroup(1, 2, 0)], &[]);
        assert_eq!(faults(&Rates::between(&without, &again, second), 1), Some(2.0));
    }

    #[test]
    fn a_counter_that_went_back_is_unknown_for_once() {
        let second = Duration::from_secs(1);
        let [high, low, next] = [50, 3, 10]
            .map(|value| sample(&[cgroup(1, value, 0), cgroup(2, 1, 0)], &[cpu(0, value)]));
        let rates = Rates::between(&high, &low, second);
        assert_eq!((faults(&rates, 1), rates.cpu(0, CpuStat::Faults)), (None, None));
        assert_eq!(faults(&rates, 2), Some(0.0), "the others are known");
        assert_eq!(faults(&Rates::between(&low, &next, second), 1), Some(7.0));
    }

    #[test]
    fn a_cpu_that_comes_is_unknown_and_one_that_went_is_left_out() {
        let second = Duration::from_secs(1);
        let (one, two) = (sample(&[], &[cpu(0, 5)]), sample(&[], &[cpu(0, 9), cpu(1, 1000)]));
        let came = Rates::between(&one, &two, second);
        assert_eq!(came.cpu(1, CpuStat::Faults), None);
        assert_eq!(came.all_cpus(CpuStat::Faults), Some(4.0));
        let went = Rates::between(&two, &sample(&[], &[cpu(0, 10)]), second);
        assert_eq!((went.cpu(0, CpuStat::Faults), went.cpu(1, CpuStat::Faults)), (Some(1.0), None));
    }
}
