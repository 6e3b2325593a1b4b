//! Random histories, compared after every step with a sequential reference that keeps no counters.

mod support;

#[path = "support/reference.rs"]
mod reference;

use std::sync::atomic::AtomicU64;

use memstock_common::control::{self, Refusal};
use memstock_common::{Loss, NO_INDEX, NO_LIMIT, Resource, StockWord, Word};
use proptest::prelude::*;
use reference::Reference;
use support::{Shape, World, limited, owner};

const CGROUPS: u32 = 6;
const LEVELS: usize = 3;

/// One step of a history. Those that make no sense where they stand are skipped.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// `times` faults in a row.
    Fault {
        cpu: u32,
        group: u32,
        times: u32,
    },
    Drain {
        cpu: u32,
        subtree: Option<u32>,
    },
    /// To the usage, `above` more, less 4 pages.
    SetLimit {
        group: u32,
        memsw: bool,
        above: Option<u64>,
    },
    /// Of a part, in sixteenths, of what the cgroup owns.
    Uncharge {
        group: u32,
        part: u64,
    },
    Register {
        group: u32,
        parent: Option<u32>,
        limit: u64,
    },
    Close {
        group: u32,
    },
    Evict {
        cpu: u32,
        group: u32,
    },
    /// Evicts on all CPUs first, as it must be.
    Release {
        group: u32,
    },
}

fn steps(cpus: u32) -> impl Strategy<Value = Vec<Step>> {
    let group = 0..CGROUPS;
    let cpu = 0..cpus;
    let maybe = || prop::option::weighted(0.8, 0..CGROUPS);
    let step = prop_oneof![
        12 => (cpu.clone(), group.clone(), prop_oneof![3 => 1..4_u32, 1 => 1..80_u32])
            .prop_map(|(cpu, group, times)| Step::Fault { cpu, group, times }),
        2 => (cpu.clone(), maybe()).prop_map(|(cpu, subtree)| Step::Drain { cpu, subtree }),
        3 => (group.clone(), any::<bool>(), prop::option::weighted(0.9, 0..80_u64))
            .prop_map(|(group, memsw, above)| Step::SetLimit { group, memsw, above }),
        3 => (group.clone(), 0..=16_u64).prop_map(|(group, part)| Step::Uncharge { group, part }),
        3 => (group.clone(), maybe(), prop_oneof![0..200_u64, Just(NO_LIMIT)])
            .prop_map(|(group, parent, limit)| Step::Register { group, parent, limit }),
        2 => group.clone().prop_map(|group| Step::Close { group }),
        1 => (cpu, group.clone()).prop_map(|(cpu, group)| Step::Evict { cpu, group }),
        1 => group.prop_map(|group| Step::Release { group }),
    ];
    prop::collection::vec(step, 1..120)
}

fn histories() -> impl Strategy<Value = (Shape, Vec<Option<u32>>, Vec<Step>)> {
    let shapes = (1..=3_u32, prop::sample::select(vec![1_u32, 2, 4]), 1..=64_u32, any::<bool>());
    shapes.prop_flat_map(|(cpus, slots, batch, memsw)| {
        let shape = Shape { cpus, slots, batch, memsw, cgroups: CGROUPS };
        let parents = prop::collection::vec(prop::option::of(0..CGROUPS), CGROUPS as usize);
        (Just(shape), parents, steps(cpus))
    })
}

struct Pair {
    world: World<AtomicU64>,
    reference: Reference,
}

impl Pair {
    fn step(&mut self, step: Step) {
        let Self { world, reference } = self;
        let is_registered = |group| reference.groups.contains_key(&group);
        match step {
            Step::Fault { cpu, group, times } => {
                for _ in 0..times {
                    self.world.fault(cpu, owner(group));
                    self.reference.fault(cpu, group);
                    self.check_counters();
                }
            }
            Step::Drain { cpu, subtree } => {
                let drained = u64::from(world.drain(cpu, subtree.unwrap_or(NO_INDEX)));
                assert_eq!(drained, reference.drain(cpu, subtree));
            }
            Step::SetLimit { group, memsw, above } if is_registered(group) => {
                let usage = reference.usage(group);
                let nr_pages = above.map_or(NO_LIMIT, |above| (usage + above).saturating_sub(4));
                let resource = if memsw { Resource::Memsw } else { Resource::Memory };
                let set = control::set_limit(&world.cpu(0), group, resource, nr_pages);
                let due = reference.set_limit(group, memsw.into(), nr_pages);
                assert_eq!(set, if due { Ok(0) } else { Err(Refusal::Busy) });
            }
            Step::Uncharge { group, part } if is_registered(group) => {
                let member = reference.groups.get_mut(&group).expect("just found");
                let nr_pages = member.owned * part / 16;
                member.owned -= nr_pages;
                world.uncharge(group, nr_pages);
            }
            Step::Register { group, parent, limit } if !is_registered(group) => {
                self.register(group, parent, limit);
            }
            Step::Close { group } if reference.is_open(group) => {
                let closed = control::close(&world.cpu(0), group);
                let due = reference.close(group);
                assert_eq!(closed, if due { Ok(0) } else { Err(Refusal::Busy) });
            }
            Step::Evict { cpu, group } if is_registered(group) && !reference.is_open(group) => {
                self.evict(cpu, group);
            }
            Step::Release { group } if is_registered(group) && !reference.is_open(group) => {
                for cpu in 0..world.shape.cpus {
                    self.evict(cpu, group);
                }
                assert_eq!(control::release(&self.world.cpu(0), group), Ok(0));
                self.reference.release(group);
            }
            _ => {}
        }
    }

    fn register(&mut self, group: u32, parent: Option<u32>, limit: u64) {
        let Self { world, reference } = self;
        let parent = parent
            .filter(|&parent| reference.is_open(parent))
            .filter(|&parent| reference.lineage(parent).len() < LEVELS);
        for cpu in 0..world.shape.cpus {
            assert_eq!(control::reset_cgroup_cpu(&world.cpu(0), group, cpu), Ok(0));
        }
        let registered = world.register(limited(group, parent.unwrap_or(NO_INDEX), limit));
        assert_eq!(registered, Ok(0));
        reference.register(group, parent, limit);
    }

    fn evict(&mut self, cpu: u32, group: u32) {
        let evict = |slot| control::evict(&self.world.cpu(0), group, cpu, slot);
        let evicted: u32 =
            (0..self.world.shape.slots).map(|slot| evict(slot).expect("a slot")).sum();
        assert_eq!(u64::from(evicted), self.reference.evict(cpu, group));
    }

    fn check_counters(&self) {
        let Self { world, reference } = self;
        for (&index, group) in &reference.groups {
            let counter = world.counter(index);
            let usage = reference.usage(index);
            for (resource, page_counter) in
                [&counter.memory, &counter.memsw].into_iter().enumerate()
            {
                let is_counted = resource == 0 || world.shape.memsw;
                let due = if is_counted { [usage, group.peak] } else { [0, 0] };
                let watermark = Word::load(&page_counter.watermark);
                assert_eq!([Word::load(&page_counter.usage), watermark], due, "counter {index}");
                assert_eq!(Word::load(&page_counter.failcnt), group.failcnt[resource]);
                assert!(watermark <= group.highest_limits[resource] || group.overrun);
            }
        }
        let Shape { cpus, slots, batch, .. } = world.shape;
        assert!(world.stocked() <= u64::from(cpus * slots * batch));
    }

    fn check(&self) {
        self.check_counters();
        let Self { world, reference } = self;
        for (&index, group) in &reference.groups {
            let counter = world.counter(index);
            let limits = [&counter.memory_limit, &counter.memsw_limit];
            assert_eq!(limits.map(Word::load), group.limits);
            assert_eq!(world.sum(index, |share| &share.misses), group.misses);
            assert_eq!(world.sum(index, |share| &share.singles), group.singles);
            assert_eq!(world.sum(index, |share| &share.forced), group.forced);
            // Eviction forgets the hits of a closed cgroup.
            if group.open {
                assert_eq!(world.hits(index) + group.misses, group.faults, "hits of {index}");
            }
        }
        for cpu in 0..world.shape.cpus {
            for slot in 0..world.shape.slots {
                let word = StockWord(Word::load(&world.slot(cpu, slot).word));
                let cached = reference.stocks.get(&(cpu, slot));
                assert_eq!(u64::from(word.charged()), cached.map_or(0, |stock| stock.1));
                assert!(cached.is_none_or(|stock| word.owner() == owner(stock.0)));
            }
        }
        assert_eq!(world.loss(Loss::OrphanedPages), reference.orphaned);
        assert_eq!(world.loss(Loss::RefillsReturned) + world.loss(Loss::CountersMissing), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 384,
        // A failure prints its shrunk history; it belongs into a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_agrees_with_the_reference((shape, parents, steps) in histories()) {
        let mut pair = Pair { world: World::new(shape), reference: Reference::new(shape) };
        for (group, parent) in (0..).zip(parents) {
            pair.register(group, parent, NO_LIMIT);
        }
        for step in steps {
            pair.step(step);
            pair.check();
        }
    }
}
