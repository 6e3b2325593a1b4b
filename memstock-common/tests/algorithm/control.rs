//! What the control programs do and refuse, and the encoding of their arguments and answers.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use crate::support::plain::{Plain, pair, read};
use crate::support::{Shape, cgroup_id, key, limited, owner, window};
use memstock_common::adopt::Window;
use memstock_common::control::{
    Answer, Drain, Flush, Index, Limits, Refusal, Register, Reset, flush, release, reset_cgroup_cpu,
};
use memstock_common::counter::limit_of;
use memstock_common::event::{EventKind, Unknown};
use memstock_common::fault::Consumed;
use memstock_common::stat::{CgroupStat, CpuStat, PageCounterStat, Stat};
use memstock_common::{
    CgroupCpu, Loss, MAX_DEPTH, MAX_SLOTS, NO_INDEX, NO_LIMIT, NOBODY, Resource, Word, World as _,
    index_of, key_of, owner_of, slot_of,
};

#[test]
fn register_fills_the_counter() {
    let world = pair();
    let generation = world.cpu(0).generation();
    let args = Register { memory_limit: 5, memsw_limit: 9, ..limited(2, 1, 0) };
    assert_eq!(world.register(args), Ok(0));
    let counter = world.counter(2);
    assert_eq!((read(&counter.memory_limit), read(&counter.memsw_limit)), (5, 9));
    assert_eq!((read(&counter.id), counter.parent()), (cgroup_id(2), 1));
    let children = |index| world.counter(index).children();
    assert_eq!([children(0), children(1), children(2)], [1, 1, 0]);
    assert_eq!(world.cpu(1).tracked(key(2)), Some(2));
    assert_ne!(world.cpu(0).generation(), generation);
}

#[test]
fn register_refuses() {
    let world = pair();
    let refused = |args: Register| {
        let before = world.cpu(0).generation();
        let refusal = world.register(args).unwrap_err();
        assert_eq!(world.cpu(0).generation(), before);
        assert_eq!(world.counter(0).children(), 1);
        refusal
    };
    assert_eq!(refused(limited(4, NO_INDEX, 0)), Refusal::Missing, "no such counter");
    assert_eq!(refused(limited(2, 4, 0)), Refusal::Missing, "no such parent");
    assert_eq!(refused(limited(2, 3, 0)), Refusal::Missing, "the parent is free");
    assert_eq!(refused(limited(1, 0, 0)), Refusal::Taken, "the counter is in use");
    let twice = Register { cgroup_id: cgroup_id(1), ..limited(2, 0, 0) };
    assert_eq!(refused(twice), Refusal::Taken, "the cgroup is tracked already");
    assert_eq!(read(&world.counter(2).id), 0, "the counter stays free");
    assert_eq!(world.register(limited(2, 0, 0)), Ok(0));
}

#[test]
fn register_refuses_more_levels_than_the_walk_takes() {
    let world = Plain::new(Shape { cgroups: MAX_DEPTH + 1, ..Shape::default() });
    world.add(0, NO_INDEX);
    for index in 1..MAX_DEPTH {
        world.add(index, index - 1);
    }
    let too_deep = limited(MAX_DEPTH, MAX_DEPTH - 1, NO_LIMIT);
    assert_eq!(world.register(too_deep), Err(Refusal::Deep));
    assert_eq!(world.register(limited(MAX_DEPTH, MAX_DEPTH - 2, NO_LIMIT)), Ok(0));
    world.fault(0, MAX_DEPTH - 1);
    assert_eq!(world.usage(0), 32, "the walk from the deepest level reaches the top");
}

#[test]
fn close_hides_a_cgroup_and_hands_its_tasks_to_the_one_above() {
    let world = pair();
    world.demand(0, 1);
    assert_eq!(world.close(2), Err(Refusal::Missing), "free");
    assert_eq!(world.close(9), Err(Refusal::Missing), "no such counter");
    let generation = world.cpu(0).generation();
    assert_eq!(world.close(1), Ok(0));
    assert_ne!(world.cpu(0).generation(), generation);
    assert_eq!(world.close(1), Err(Refusal::Missing), "dying already");
    assert_eq!(world.cpu(0).tracked(key(1)), None);
    assert_eq!(world.demand(0, 1), Consumed::Miss, "of the parent, from its own stock");
    world.assert_owned(&[1, 1, 0, 0]);
    assert_eq!(world.register(limited(1, 0, 0)), Err(Refusal::Taken), "until it is released");
    assert_eq!(world.register(limited(2, 1, 0)), Err(Refusal::Missing), "no child below it");
}

/// A cgroup that is re-created while the old one is dying has the same key, and perhaps the same id.
#[test]
fn an_id_seen_again_is_a_new_cgroup() {
    let world = pair();
    world.demand(0, 1);
    world.close(1).unwrap();
    let again = Register { cgroup_id: cgroup_id(1), ..limited(2, 0, NO_LIMIT) };
    assert_eq!(world.register(again), Ok(0));
    assert_eq!(world.close(1), Err(Refusal::Missing), "the name is the new one's");
    assert_eq!(world.cpu(0).tracked(key(1)), Some(2));
    world.demand(1, 1);
    world.assert_owned(&[0, 1, 1, 0]);
    world.free(1, 0, 0);
    assert_eq!(world.flush(1, 0) + world.flush(1, 1), 8);
    assert_eq!(world.release(1), Ok(0), "though a cgroup of this name is tracked");
    world.assert_owned(&[0, 0, 1, 0]);
}

#[test]
fn release_waits_for_the_last_page_and_the_last_child() {
    let world = pair();
    world.demand(0, 0);
    world.demand(1, 1);
    assert_eq!(world.release(1), Err(Refusal::Busy), "tracked");
    world.close(0).unwrap();
    world.close(1).unwrap();
    assert_eq!((world.flush(0, 0), world.flush(0, 1), world.flush(1, 1)), (7, 0, 7));
    world.free(0, 0, 0);
    assert_eq!(world.flush(0, 0), 1, "out of the uncharge batch");
    assert_eq!(world.release(0), Err(Refusal::Busy), "its child is charged");
    world.free(0, 1, 0);
    assert_eq!((world.usage(0), world.usage(1)), (1, 1), "in an uncharge batch");
    assert_eq!(world.release(1), Err(Refusal::Busy));
    assert_eq!(world.flush(1, 0), 1);
    assert_eq!((world.usage(0), world.usage(1)), (0, 0));
    assert_eq!(world.release(0), Err(Refusal::Busy), "its child is not released");
    Word::store(&world.counter(1).memsw.usage, 1);
    assert_eq!(world.release(1), Err(Refusal::Busy), "memory+swap is charged");
    Word::store(&world.counter(1).memsw.usage, 0);
    assert_eq!((world.release(1), world.release(0)), (Ok(0), Ok(0)));
    world.assert_owned(&[0; 4]);
}

#[test]
fn unregistering_takes_everything_back_and_forgets() {
    let world = pair();
    for n in 0..6 {
        world.demand(n % 2, 1);
    }
    world.demand(0, 0);
    assert_eq!((world.usage(0), world.stocked_for(1), world.faults(1)), (8 + 3 + 8, 5, 6));
    world.set_limit(1, Resource::Memory, 12).unwrap();

    world.close(1).unwrap();
    assert_eq!(world.flush(1, 0), 0, "CPU 0 has cached another cgroup");
    assert_eq!(world.flush(1, 1), 5);
    assert_eq!(world.flush(1, 1), 0, "once only");
    assert_eq!(read(&world.slot(1, 0).creditor), 0);
    assert_eq!(
        read(&world.slot(0, 0).creditor),
        owner(0).into(),
        "the creditor is another's and stays"
    );
    assert_eq!(read(&world.slot(1, 0).drains), 1);
    assert_eq!((world.usage(1), world.usage(0)), (6, 14));
    world.assert_owned(&[1, 6, 0, 0]);

    assert_eq!(world.release(1), Err(Refusal::Busy));
    world.free_each(1, 0..6);
    assert_eq!((world.uncharging(1), world.flush(1, 1)), (6, 6));
    assert_eq!(world.usage(0), 8);
    world.release(1).unwrap();
    let counter = world.counter(1);
    for resource in [&counter.memory, &counter.memsw] {
        assert_eq!([&resource.usage, &resource.watermark, &resource.failcnt].map(read), [0; 3]);
    }
    assert_eq!([&counter.id, &counter.near_at, &counter.hit_at].map(read), [0; 3]);
    assert_eq!(world.counter(0).children(), 0);
    world.assert_owned(&[1, 0, 0, 0]);

    // The next cgroup with this counter does not inherit the faults.
    for cpu in 0..2 {
        reset_cgroup_cpu(&world.cpu(0), 1, cpu).unwrap();
    }
    world.add(1, NO_INDEX);
    assert_eq!(world.demand(1, 1), Consumed::Miss);
    assert_eq!((world.faults(1), world.charged(1)), (1, [0, 1]));
}

#[test]
fn a_limit_below_the_usage_is_refused() {
    let world = pair();
    world.fault(0, 1);
    for resource in [Resource::Memory, Resource::Memsw] {
        let limit = |index| {
            let counter = world.counter(index);
            match resource {
                Resource::Memory => read(&counter.memory_limit),
                Resource::Memsw => read(&counter.memsw_limit),
            }
        };
        assert_eq!(world.set_limit(0, resource, 7), Err(Refusal::Busy));
        assert_eq!(limit(0), NO_LIMIT, "the old limit stands");
        assert_eq!(world.set_limit(0, resource, 8), Ok(0));
        assert_eq!((limit(0), limit(1)), (8, NO_LIMIT));
        assert_eq!(world.set_limit(0, resource, NO_LIMIT), Ok(0));
        assert_eq!(world.set_limit(2, resource, 8), Err(Refusal::Missing), "free");
        assert_eq!(world.set_limit(9, resource, 8), Err(Refusal::Missing));
    }
}

#[test]
fn missing_counters_cpus_and_slots_are_refused() {
    let world = pair();
    let cpu = world.cpu(0);
    assert_eq!(flush(&cpu, 2, 0, 0), Err(Refusal::Missing), "free");
    assert_eq!(flush(&cpu, 1, 2, 0), Err(Refusal::Missing), "no such CPU");
    assert_eq!(flush(&cpu, 1, 0, 1), Err(Refusal::Missing), "no such slot");
    assert_eq!(release(&cpu, 2), Err(Refusal::Missing));
    assert_eq!(release(&cpu, 9), Err(Refusal::Missing));
    assert_eq!(reset_cgroup_cpu(&cpu, 9, 0), Err(Refusal::Missing));
    assert_eq!(reset_cgroup_cpu(&cpu, 2, 2), Err(Refusal::Missing));
    assert_eq!(reset_cgroup_cpu(&cpu, 1, 0), Err(Refusal::Taken), "in use");
}

#[test]
fn reset_zeroes_one_cpu_of_a_free_counter() {
    fn words(share: &CgroupCpu<AtomicU64>) -> [&AtomicU64; 5] {
        let CgroupCpu { faults, from_stock, missed, singles, forced } = share;
        [faults, from_stock, missed, singles, forced]
    }
    let world = pair();
    for cpu in 0..2 {
        let share = world.share(cpu, 2);
        for word in words(share) {
            Word::store(word, 7);
        }
    }
    assert_eq!(reset_cgroup_cpu(&world.cpu(0), 2, 1), Ok(0));
    let sum = |cpu| words(world.share(cpu, 2)).map(read);
    assert_eq!((sum(0), sum(1)), ([7; 5], [0; 5]));
}

#[test]
fn answers_survive_the_border() {
    for nr_pages in [0, 1, 32, 1024, 0xff_ffff] {
        assert_eq!(Answer::new(Ok(nr_pages)).result(), Ok(nr_pages));
    }
    let first = [Refusal::Missing, Refusal::Taken, Refusal::Busy, Refusal::Deep];
    for refusal in first.into_iter().chain([Refusal::Setting, Refusal::Order, Refusal::Full]) {
        assert_eq!(Answer::new(Err(refusal)).result(), Err(Ok(refusal)));
    }
    for tag in [8, 17, 255] {
        assert_eq!(Answer(tag << 24 | 3).result(), Err(Err(Unknown(tag))));
    }
}

#[test]
fn arguments_survive_the_border() {
    let args = Register { memsw_limit: NO_LIMIT - 1, ..limited(3, NO_INDEX, 7) };
    assert_eq!(Register::from_args(|n| args.to_args()[n]), args);
    let args = Limits { index: 1, memory: 7, memsw: NO_LIMIT, force: 1 };
    assert_eq!(Limits::from_args(|n| args.to_args()[n]), args);
    let args = Drain { cpu: 3, slot: 2, subtree: NO_INDEX };
    assert_eq!(Drain::from_args(|n| args.to_args()[n]), args);
    let args = Flush { index: 4095, cpu: 3, slot: 2 };
    assert_eq!(Flush::from_args(|n| args.to_args()[n]), args);
    let args = Reset { index: 4095, cpu: 3 };
    assert_eq!(Reset::from_args(|n| args.to_args()[n]), args);
    let args = Index { index: 4095 };
    assert_eq!(Index::from_args(|n| args.to_args()[n]), args);
    for pages in [0..1, 63..65, 0..512, 511..512] {
        let args = window(4095, pages.clone().map(|page| 0x1_2345_6200 + page));
        assert_eq!((args.first_pfn, args.nr_pages()), (0x1_2345_6200, pages.count() as u32));
        assert_eq!(Window::from_args(|n| args.to_args()[n]), args);
    }
}

#[test]
fn unknown_tags_are_errors() {
    let limits = [EventKind::LimitNear, EventKind::LimitHit];
    let cgroups = [EventKind::CgroupMade, EventKind::CgroupRemoved];
    let host = [EventKind::CpuHotplug, EventKind::ReclaimBegan];
    for kind in [limits, cgroups, host].into_iter().flatten() {
        assert_eq!(EventKind::try_from(kind as u32), Ok(kind));
    }
    for resource in [Resource::Memory, Resource::Memsw] {
        assert_eq!(Resource::try_from(resource as u32), Ok(resource));
    }
    for tag in [0, 7, u32::MAX] {
        assert_eq!(EventKind::try_from(tag), Err(Unknown(tag)));
    }
    for tag in [2, u32::MAX] {
        assert_eq!(Resource::try_from(tag), Err(Unknown(tag)));
    }
    assert_eq!(Unknown(9).to_string(), "unknown tag 9");
}

#[test]
fn encodings_round_trip() {
    for index in [0, 1, 4095, NO_INDEX - 1, NO_INDEX] {
        assert_eq!(index_of(owner_of(index)), index);
    }
    assert_eq!((index_of(NOBODY), owner_of(NO_INDEX), owner_of(0)), (NO_INDEX, NOBODY, 1));
    assert_eq!((limit_of(NO_LIMIT), limit_of(0)), (None, Some(0)));
    assert_eq!(key_of(0x0000_0003_8000_0001), 0x8000_0001);
    for slots in (0..).map(|n| 1 << n).take_while(|&slots| slots <= MAX_SLOTS) {
        let reached: BTreeSet<_> = (0..slots).map(|owner| slot_of(owner + 999, slots)).collect();
        assert!(reached.into_iter().eq(0..slots), "neighbours share no slot");
    }
}

#[test]
fn every_number_is_declared_once() {
    fn names<T: Copy>(all: &[T], stat: impl Fn(T) -> Stat) -> BTreeSet<&'static str> {
        let names: BTreeSet<_> = all.iter().map(|&number| stat(number).name).collect();
        assert_eq!(names.len(), all.len(), "names differ");
        assert!(all.iter().all(|&number| stat(number).help.ends_with('.')));
        names
    }
    names(CpuStat::ALL, CpuStat::stat);
    names(PageCounterStat::ALL, PageCounterStat::stat);
    names(CgroupStat::ALL, CgroupStat::stat);
    names(Loss::ALL, Loss::stat);
    // They index the map of losses.
    assert!(Loss::ALL.iter().map(|&loss| loss as u32).eq(0..Loss::COUNT));
}
