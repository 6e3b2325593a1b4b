//! Random histories for the model: what happens to tasks, pages and cgroups, in any order.

use memstock_common::NO_LIMIT;
use proptest::prelude::*;

use crate::support::Shape;

pub const CGROUPS: u32 = 6;

/// One step of a history. Steps that are not possible in the current state are skipped.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Faults in a row that allocate nothing.
    Fault {
        cpu: u32,
        group: u32,
        times: u32,
    },
    /// Faults that allocate the first pages without an owner.
    Touch {
        cpu: u32,
        group: u32,
        times: u32,
    },
    /// The same with pages of a file.
    Read {
        cpu: u32,
        group: u32,
        times: u32,
    },
    /// Frees the first pages of a cgroup, one by one.
    Unmap {
        cpu: u32,
        group: u32,
        times: u32,
    },
    /// Allocates a block for a task of a cgroup, or without a charge. If the block has an owner, its free was lost.
    Alloc {
        cpu: u32,
        group: Option<u32>,
        block: Block,
    },
    Free {
        cpu: u32,
        block: Block,
    },
    LoseFree {
        block: Block,
    },
    /// A task, of a cgroup or untracked, adds a block to the page cache; it is evictable if `can_go`.
    Cache {
        cpu: u32,
        task: Option<u32>,
        block: Block,
        can_go: bool,
    },
    /// Migrates a block into the block of the same size around the page `to`, if that is a different one.
    Migrate {
        cpu: u32,
        block: Block,
        to: u64,
    },
    Adopt {
        group: u32,
        window: Pages,
        is_file: bool,
    },
    Doubt {
        group: u32,
        window: Pages,
    },
    Disown {
        group: u32,
        window: Pages,
    },
    Reparent {
        group: u32,
        window: Pages,
    },
    Drain {
        cpu: u32,
        subtree: Option<u32>,
    },
    /// Sets a limit to the usage plus `above` less 4 pages; no limit if `None`.
    SetLimit {
        group: u32,
        memsw: bool,
        above: Option<u64>,
    },
    Register {
        group: u32,
        parent: Option<u32>,
        limit: u64,
    },
    Close {
        group: u32,
    },
    Flush {
        cpu: u32,
        group: u32,
    },
    /// Flushes all CPUs first, as is required.
    Release {
        group: u32,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub pfn: u64,
    pub order: u32,
}

/// Pages among 64 consecutive ones, or a whole window.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    pub first: u64,
    pub bits: Option<u64>,
}

impl Pages {
    pub fn list(self) -> Vec<u64> {
        match self.bits {
            Some(bits) => (0..64).filter(|n| bits >> n & 1 == 1).map(|n| self.first + n).collect(),
            None => (0..512).map(|n| self.first / 512 * 512 + n).collect(),
        }
    }
}

/// Blocks at the beginning and end of a chunk and of the owner map, and outside it if there is only one chunk.
fn blocks() -> impl Strategy<Value = Block> {
    let orders = prop_oneof![8 => 0..=2_u32, 4 => 3..=5_u32, 1 => 6..=10_u32];
    (prop::sample::select(vec![0, 0, 0, 992, 1024]), 0..32_u64, orders)
        .prop_map(|(base, pfn, order)| Block { pfn: (base + pfn) >> order << order, order })
}

fn pages() -> impl Strategy<Value = Pages> {
    let bits = prop_oneof![
        4 => any::<u64>().prop_map(Some),
        4 => (any::<u64>(), any::<u64>()).prop_map(|(a, b)| Some(a & b & 0xffff)),
        1 => Just(None),
    ];
    (prop::sample::select(vec![0_u64, 0, 0, 448, 960]), bits)
        .prop_map(|(first, bits)| Pages { first, bits })
}

fn faults(cpus: u32) -> impl Strategy<Value = Step> {
    let times = || prop_oneof![3 => 1..4_u32, 1 => 1..80_u32];
    let place = (0..cpus, 0..CGROUPS);
    prop_oneof![
        3 => (place.clone(), times())
            .prop_map(|((cpu, group), times)| Step::Fault { cpu, group, times }),
        6 => (place.clone(), times())
            .prop_map(|((cpu, group), times)| Step::Touch { cpu, group, times }),
        4 => (place.clone(), times())
            .prop_map(|((cpu, group), times)| Step::Read { cpu, group, times }),
        6 => (place, times()).prop_map(|((cpu, group), times)| Step::Unmap { cpu, group, times }),
    ]
}

fn on_pages(cpus: u32) -> impl Strategy<Value = Step> {
    let group = 0..CGROUPS;
    prop_oneof![
        7 => (0..cpus, prop::option::weighted(0.9, group.clone()), blocks())
            .prop_map(|(cpu, group, block)| Step::Alloc { cpu, group, block }),
        5 => (0..cpus, blocks()).prop_map(|(cpu, block)| Step::Free { cpu, block }),
        1 => blocks().prop_map(|block| Step::LoseFree { block }),
        3 => (0..cpus, prop::option::of(group.clone()), blocks(), prop::bool::weighted(0.9))
            .prop_map(|(cpu, task, block, can_go)| Step::Cache { cpu, task, block, can_go }),
        2 => (0..cpus, blocks(), blocks())
            .prop_map(|(cpu, block, to)| Step::Migrate { cpu, block, to: to.pfn }),
        2 => (group.clone(), pages(), any::<bool>())
            .prop_map(|(group, window, is_file)| Step::Adopt { group, window, is_file }),
        1 => (group.clone(), pages()).prop_map(|(group, window)| Step::Doubt { group, window }),
        2 => (group.clone(), pages()).prop_map(|(group, window)| Step::Disown { group, window }),
        2 => (group, pages()).prop_map(|(group, window)| Step::Reparent { group, window }),
    ]
}

fn controls(cpus: u32) -> impl Strategy<Value = Step> {
    let group = 0..CGROUPS;
    let maybe = || prop::option::weighted(0.8, 0..CGROUPS);
    prop_oneof![
        2 => (0..cpus, maybe()).prop_map(|(cpu, subtree)| Step::Drain { cpu, subtree }),
        3 => (group.clone(), any::<bool>(), prop::option::weighted(0.9, 0..80_u64))
            .prop_map(|(group, memsw, above)| Step::SetLimit { group, memsw, above }),
        3 => (group.clone(), maybe(), prop_oneof![0..200_u64, Just(NO_LIMIT)])
            .prop_map(|(group, parent, limit)| Step::Register { group, parent, limit }),
        2 => group.clone().prop_map(|group| Step::Close { group }),
        1 => (0..cpus, group.clone()).prop_map(|(cpu, group)| Step::Flush { cpu, group }),
        2 => group.prop_map(|group| Step::Release { group }),
    ]
}

pub fn histories() -> impl Strategy<Value = (Shape, Vec<Option<u32>>, Vec<Step>)> {
    let batches = prop_oneof![1..=8_u32, 1..=64_u32];
    let shapes = (1..=3_u32, prop::sample::select(vec![1_u32, 2, 4]), batches, any::<bool>());
    (shapes, 1..=2_u32).prop_flat_map(|((cpus, slots, batch, memsw), chunks)| {
        let cgroups = CGROUPS;
        let shape = Shape { cpus, slots, batch, memsw, cgroups, chunks, ..Shape::default() };
        let parents = prop::collection::vec(prop::option::of(0..CGROUPS), CGROUPS as usize);
        let step = prop_oneof![12 => faults(cpus), 11 => on_pages(cpus), 6 => controls(cpus)];
        (Just(shape), parents, prop::collection::vec(step, 1..120))
    })
}
