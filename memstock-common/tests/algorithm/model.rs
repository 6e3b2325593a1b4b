//! Random histories, compared after every step with a sequential reference that keeps no counters.

use std::sync::atomic::AtomicU64;

use crate::support::folio::Added;
use crate::support::history::{Block, Step, histories};
use crate::support::reference::{Group, Reference};
use crate::support::{self, Shape, World, compare, limited, owner, window};
use memstock_common::adopt::{Window, adopt, disown, doubt, reparent};
use memstock_common::control::{self, Refusal};
use memstock_common::file::FILE;
use memstock_common::migrate::migrated;
use memstock_common::page::UNCONFIRMED;
use memstock_common::plain::Cpu;
use memstock_common::{Entry, Loss, NO_INDEX, NO_LIMIT, NOBODY, Resource, Word};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const LEVELS: usize = 3;

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
                    self.world.fault(cpu, group);
                    self.reference.fault(cpu, group);
                    self.check_counters();
                }
            }
            Step::Touch { cpu, group, times } => self.touch(cpu, group, times, false),
            Step::Read { cpu, group, times } => self.touch(cpu, group, times, true),
            Step::Unmap { cpu, group, times } => {
                let owned = reference.pages.iter().filter(|(_, page)| page.group == group);
                let owned: Vec<_> = owned.map(|(&pfn, _)| pfn).take(times as usize).collect();
                for pfn in owned {
                    self.world.free(cpu, pfn, 0);
                    self.reference.free(cpu, pfn, 0);
                    self.check_counters();
                }
            }
            Step::Alloc { cpu, group, block: Block { pfn, order } } => {
                reference.lose_free(pfn, order);
                world.alloc(cpu, group, pfn, order);
                reference.alloc(cpu, group, pfn, order);
            }
            Step::Free { cpu, block: Block { pfn, order } } => {
                world.free(cpu, pfn, order);
                reference.free(cpu, pfn, order);
            }
            Step::LoseFree { block: Block { pfn, order } } => reference.lose_free(pfn, order),
            Step::Cache { cpu, task, block: Block { pfn, order }, can_go } => {
                let owner = task.map_or(NOBODY, |task| world.ask(cpu, task));
                let folio =
                    Added { nr_pages: 1 << order, is_evictable: can_go, owner, ..Added::default() };
                world.cache_folio(cpu, pfn, &folio);
                reference.claim(cpu, task, pfn, order);
                if can_go {
                    reference.cache(cpu, pfn, 1 << order);
                }
            }
            Step::Migrate { cpu, block: Block { pfn, order }, to } => {
                let to = to >> order << order;
                if to != pfn {
                    migrated(&world.cpu(cpu), pfn, to, 1 << order);
                    reference.migrate(cpu, pfn, to, order);
                }
            }
            Step::Adopt { group, window, is_file } if is_registered(group) => {
                let due = reference.adopt(group, &window.list(), is_file);
                let adopt = |cpu: &Cpu<'_, AtomicU64>, window| {
                    adopt(cpu, Window { is_file: is_file.into(), ..window })
                };
                self.ask(adopt, group, &window.list(), due);
            }
            Step::Doubt { group, window } if is_registered(group) => {
                let due = reference.doubt(group, &window.list());
                self.ask(doubt, group, &window.list(), due);
            }
            Step::Disown { group, window } if is_registered(group) => {
                let due = reference.disown(group, &window.list());
                self.ask(disown, group, &window.list(), due);
            }
            Step::Reparent { group, window } if is_registered(group) => {
                let pages = window.list();
                match reference.reparent(group, &pages) {
                    Some(due) => self.ask(reparent, group, &pages, due),
                    None => {
                        let refused = reparent(&world.cpu(0), support::window(group, pages));
                        assert!(refused.is_err(), "{refused:?}");
                    }
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
                let set = world.set_limit(group, resource, nr_pages);
                assert_eq!(set, reference.set_limit(group, memsw.into(), nr_pages));
            }
            Step::Register { group, parent, limit } if !is_registered(group) => {
                self.register(group, parent, limit);
            }
            Step::Close { group } if is_registered(group) => {
                let due = if reference.is_open(group) { Ok(0) } else { Err(Refusal::Missing) };
                assert_eq!(world.close(group), due);
                reference.close(group);
            }
            Step::Flush { cpu, group } if is_registered(group) && !reference.is_open(group) => {
                let flushed = u64::from(world.flush(group, cpu));
                assert_eq!(flushed, reference.flush(cpu, group));
            }
            Step::Release { group } if is_registered(group) => {
                let cpus = if reference.is_open(group) { 0 } else { world.shape.cpus };
                for cpu in 0..cpus {
                    let flushed = u64::from(world.flush(group, cpu));
                    assert_eq!(flushed, reference.flush(cpu, group));
                }
                let due = if reference.release(group) { Ok(0) } else { Err(Refusal::Busy) };
                assert_eq!(world.release(group), due);
            }
            _ => {}
        }
    }

    fn touch(&mut self, cpu: u32, group: u32, times: u32, is_file: bool) {
        for _ in 0..times {
            let unused = |pfn: &u64| !self.reference.pages.contains_key(pfn);
            let pfn = (0..).find(unused).expect("without an end");
            self.world.touch(cpu, group, pfn);
            self.reference.fault(cpu, group);
            self.reference.alloc(cpu, Some(group), pfn, 0);
            if is_file {
                self.world.cache(cpu, pfn, 1);
                self.reference.cache(cpu, pfn, 1);
            }
            self.check_counters();
        }
    }

    fn ask<'a>(
        &'a self,
        program: impl Fn(&Cpu<'a, AtomicU64>, Window) -> Result<u32, Refusal>,
        group: u32,
        pages: &[u64],
        due: u64,
    ) {
        let answer = program(&self.world.cpu(0), window(group, pages.iter().copied()));
        assert_eq!(answer.map(u64::from), Ok(due));
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

    fn check_counters(&mut self) {
        let Self { world, reference } = self;
        reference.observe();
        reference.forget_huge();
        for (index, file) in reference.files() {
            assert_eq!(world.file(index), file, "page cache of counter {index}");
            let watermark = world.needed_peak(index);
            let bounds = reference.need(index);
            assert!(bounds.contains(&watermark), "{watermark} needed of {index}: {bounds:?}");
        }
        for ((&index, group), usage) in
            reference.groups.iter().zip(reference.usages().into_values())
        {
            let counter = world.counter(index);
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
    }

    fn check(&mut self) {
        self.check_counters();
        compare::slots(&self.world, &self.reference);
        let Self { world, reference } = self;
        for (&index, group) in &reference.groups {
            let counter = world.counter(index);
            let limits = [&counter.memory_limit, &counter.memsw_limit];
            assert_eq!(limits.map(Word::load), group.limits);
            assert_eq!(Word::load(&counter.huge), group.huge, "allowed above limits of {index}");
            assert_eq!(world.charged(index), [group.from_stock, group.missed], "pages of {index}");
            assert_eq!(world.sum(index, |share| &share.singles), group.singles);
            assert_eq!(world.sum(index, |share| &share.forced), group.forced);
            // Flushing a closed cgroup forgets its faults.
            if group.open {
                assert_eq!(world.faults(index), group.faults, "faults of {index}");
            }
        }
        let mut pages = reference.pages.iter().peekable();
        for pfn in 0..1024 * u64::from(world.shape.chunks) {
            let due = pages.next_if(|page| *page.0 == pfn).map_or(NOBODY, |(_, page)| {
                let mark = |is_set, bit| if is_set { bit } else { 0 };
                owner(page.group) | mark(page.unconfirmed, UNCONFIRMED) | mark(page.file, FILE)
            });
            assert_eq!(Entry::load(world.entry(pfn)), due, "page {pfn}");
        }
        assert_eq!(world.loss(Loss::Healed), reference.healed);
        assert_eq!(world.loss(Loss::PagesOutside), reference.outside);
        assert_eq!(world.loss(Loss::BlocksMixed), reference.mixed);
        assert_eq!(world.loss(Loss::RefillsReturned) + world.loss(Loss::CountersMissing), 0);
        world.assert_conserved();
    }
}

type History = (Shape, Vec<Option<u32>>, Vec<Step>);

/// Plays a history, and runs `check` after each step.
fn run((shape, parents, steps): History, check: impl Fn(&mut Pair)) -> Pair {
    let mut pair = Pair { world: World::new(shape), reference: Reference::new(shape) };
    for (group, parent) in (0..).zip(parents) {
        pair.register(group, parent, NO_LIMIT);
    }
    for step in steps {
        pair.step(step);
        check(&mut pair);
    }
    pair
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        // Optimised tests are ten times faster.
        cases: if cfg!(debug_assertions) { cases / 8 } else { cases },
        // A failure prints its shrunk history, which belongs in a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(2048))]

    #[test]
    fn every_history_agrees_with_the_reference(history in histories()) {
        run(history, Pair::check);
    }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn no_percentage_is_ever_below_0_or_above_100(history in histories()) {
        run(history, |pair| compare::percentages(&pair.world, &pair.reference));
    }
}

/// Agreement would mean little if the histories never reached rare states.
#[test]
fn the_histories_come_to_what_is_rare() {
    let mut runner = TestRunner::deterministic();
    let (mut healed, mut mixed, mut outside, mut forced) = (0, 0, 0, 0);
    let (mut gone, mut displaced, mut needed, mut huge) = (0, 0, 0, 0);
    for _ in 0..64 {
        let history = histories().new_tree(&mut runner).expect("nothing is rejected").current();
        let Pair { reference, world } = run(history, Pair::check);
        healed += u32::from(reference.healed > 0);
        mixed += u32::from(reference.mixed > 0);
        outside += u32::from(reference.outside > 0);
        forced += u32::from(reference.groups.values().any(|group| group.forced > 0));
        huge += u32::from(reference.groups.values().any(|group| group.huge > 0));
        gone += u32::from(reference.gone > 0);
        displaced += u32::from(reference.displaced > 0);
        let spares = |(&index, group): (&u32, &Group)| world.needed_peak(index) < group.peak;
        needed += u32::from(reference.groups.iter().any(spares));
    }
    assert!(
        healed > 16 && mixed > 4 && outside > 4 && forced > 4,
        "{healed} {mixed} {outside} {forced}"
    );
    assert!(gone > 16 && displaced > 0 && needed > 16, "{gone} {displaced} {needed}");
    assert!(huge > 4, "{huge}");
}
