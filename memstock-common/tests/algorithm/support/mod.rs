//! The world that tests run the algorithm on: [`Memory`], with plain or model-checked atomics, the actions of its
//! tasks, and its cgroup tree.
//!
//! It must not decide anything: decisions are what is being tested.

pub mod checked;
pub mod compare;
mod count;
pub mod folio;
pub mod history;
mod law;
pub mod plain;
pub mod reference;

use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use memstock_common::adopt::{self, Window};
use memstock_common::again;
use memstock_common::control::{self, Refusal};
use memstock_common::fault::{Consumed, consume_or_miss, miss, nearest_tracked};
use memstock_common::owner_cache::Task;
use memstock_common::page;
use memstock_common::{
    CgroupCpu, Entry, NO_INDEX, NO_LIMIT, Resource, Stock, StockWord, World as _, charge, collapse,
    drain, limit, slot_of,
};

pub use memstock_common::plain::{Memory, NewEntry, NewWord, Shape, cgroup_id, key};

/// The kernel maps, and what a test knows of the cgroup tree.
pub struct World<W: NewWord> {
    memory: Memory<W>,
    // The fields below are bookkeeping, which a model checker does not explore.
    /// The cgroup tree: each counter's parent.
    above: Vec<AtomicU32>,
    /// The first page that [`World::demand`] has not used.
    unused: AtomicU64,
}

impl<W: NewWord> Deref for World<W> {
    type Target = Memory<W>;

    fn deref(&self) -> &Memory<W> {
        &self.memory
    }
}

/// The owner number of the cgroup with counter `index`.
pub const fn owner(index: u32) -> u32 {
    index + 1
}

/// Arguments that register counter `index` under `parent` with a limit on memory only.
pub fn limited(index: u32, parent: u32, memory_limit: u64) -> control::Register {
    control::Register {
        index,
        cgroup_id: cgroup_id(index),
        parent,
        memory_limit,
        memsw_limit: NO_LIMIT,
    }
}

/// A stock word of `owner` with `nr_pages`, and a pending page that was charged for its fault.
pub const fn missed(owner: u32, nr_pages: u32) -> StockWord {
    StockWord(StockWord::new(owner, 1, nr_pages).0 | 1 << 31)
}

/// The window of the owner map with these pages, for counter `index`.
pub fn window(index: u32, pages: impl IntoIterator<Item = u64>) -> Window {
    let mut window = Window { index, ..Window::default() };
    for pfn in pages {
        window.first_pfn = pfn - pfn % u64::from(adopt::WINDOW_PAGES);
        window.add(pfn);
    }
    window
}

/// Arguments that set one limit.
pub fn one_limit(index: u32, resource: Resource, nr_pages: u64) -> control::Limits {
    let of = |one| if one == resource { nr_pages } else { control::KEEP_LIMIT };
    control::Limits { index, memory: of(Resource::Memory), memsw: of(Resource::Memsw), force: 0 }
}

impl<W: NewWord> World<W> {
    pub fn new(shape: Shape) -> Self {
        Self {
            memory: Memory::new(shape),
            above: (0..=shape.cgroups).map(|_| AtomicU32::new(NO_INDEX)).collect(),
            unused: AtomicU64::new(0),
        }
    }

    /// A world whose cgroups are one chain: counter 0 is the top, the last one the leaf.
    pub fn chain(shape: Shape) -> Self {
        let world = Self::new(shape);
        for index in 0..shape.cgroups {
            let parent = index.checked_sub(1).unwrap_or(NO_INDEX);
            world.add(index, parent);
        }
        world
    }

    pub fn register(&self, args: control::Register) -> Result<u32, Refusal> {
        let registered = control::register(&self.cpu(0), args);
        if registered.is_ok() {
            self.above[args.index as usize].store(args.parent, SeqCst);
        }
        registered
    }

    /// Registers counter `index` under `parent`, without limits.
    #[track_caller]
    pub fn add(&self, index: u32, parent: u32) {
        assert_eq!(self.register(limited(index, parent, NO_LIMIT)), Ok(0));
    }

    pub fn close(&self, index: u32) -> Result<u32, Refusal> {
        control::close(&self.cpu(0), index)
    }

    /// Flushes a cgroup from every slot of a CPU.
    #[track_caller]
    pub fn flush(&self, index: u32, cpu: u32) -> u32 {
        let flush = |slot| control::flush(&self.cpu(0), index, cpu, slot);
        (0..self.shape.slots).map(|slot| flush(slot).expect("a slot of a dying cgroup")).sum()
    }

    pub fn release(&self, index: u32) -> Result<u32, Refusal> {
        let released = control::release(&self.cpu(0), index);
        if released.is_ok() {
            // Its tasks are gone. The next task with the same name is a new one, outside of the tree.
            self.above[index as usize].store(NO_INDEX, SeqCst);
            self.cpu(0).next_generation();
        }
        released
    }

    /// The counters of a cgroup and its ancestors, from the top.
    fn path(&self, index: u32) -> Vec<u32> {
        let above = |at: &u32| {
            let above = self.above[*at as usize].load(SeqCst);
            Some(above).filter(|&above| above != NO_INDEX)
        };
        let mut path: Vec<_> = std::iter::successors(Some(index), above).collect();
        path.reverse();
        path
    }

    /// The owner to which the programs on `cpu` charge a task of the cgroup `index`.
    pub fn ask(&self, cpu: u32, index: u32) -> u32 {
        let machine = self.cpu(cpu);
        let generation = machine.generation();
        let task = u64::from(index) + 1;
        self.slot(cpu, 0).owner_cache.owner(
            Task::Current,
            generation,
            || task,
            || self.nearest(cpu, index),
        )
    }

    /// The owner to which memory of the cgroup `index` is charged.
    fn nearest(&self, cpu: u32, index: u32) -> u32 {
        nearest_tracked(&self.cpu(cpu), key(index), |level| {
            self.path(index).get(level as usize - 1).map_or(0, |&at| key(at))
        })
    }

    /// What the fault program does for a task of the cgroup `index`.
    pub fn fault(&self, cpu: u32, index: u32) -> Consumed {
        let owner = self.ask(cpu, index);
        let stock = self.slot(cpu, slot_of(owner, self.shape.slots));
        let consumed = consume_or_miss(stock, owner);
        if consumed == Consumed::Miss {
            miss(&self.cpu(cpu), stock, owner, true);
        }
        consumed
    }

    /// What the allocation program does for a task of the cgroup `task`; `None` if the kernel does not charge the
    /// block.
    pub fn alloc(&self, cpu: u32, task: Option<u32>, pfn: u64, order: u32) {
        self.alloc_as(cpu, task, pfn, order, true);
    }

    /// The same for a compound or a non-compound block.
    pub fn alloc_as(&self, cpu: u32, task: Option<u32>, pfn: u64, order: u32, is_compound: bool) {
        // Of a non-compound block, only the first page has a count. All pages of a compound block share one.
        let counted = if is_compound { 1 << order } else { 1 };
        self.set_count(pfn..pfn.saturating_add(counted), true);
        page::allocated(&self.cpu(cpu), pfn, order, task.is_some(), is_compound, || {
            let owner = self.ask(cpu, task.expect("not asked for what is not charged"));
            (owner, Some(self.slot(cpu, slot_of(owner, self.shape.slots))))
        });
    }

    /// What the second allocation program does.
    pub fn alloc_again(&self, cpu: u32, task: Option<u32>, pfn: u64, order: u32) {
        if task.is_some() && again::is_unseen(&self.cpu(cpu), pfn) {
            self.alloc(cpu, task, pfn, order);
        }
    }

    /// What the second program at a free does.
    pub fn free_again(&self, cpu: u32, pfn: u64, order: u32) {
        again::freed_unseen(&self.cpu(cpu), pfn, order);
    }

    /// A fault that allocates the page `pfn`.
    pub fn touch(&self, cpu: u32, index: u32, pfn: u64) -> Consumed {
        let consumed = self.fault(cpu, index);
        self.alloc(cpu, Some(index), pfn, 0);
        consumed
    }

    /// A fault that allocates a page which was never used before.
    pub fn demand(&self, cpu: u32, index: u32) -> Consumed {
        self.touch(cpu, index, self.unused.fetch_add(1, SeqCst))
    }

    /// What the free program does.
    pub fn free(&self, cpu: u32, pfn: u64, order: u32) {
        self.set_count(pfn..pfn.saturating_add(1 << order), false);
        page::freed(&self.cpu(cpu), pfn, order);
    }

    pub fn touch_each(&self, cpu: u32, index: u32, pages: Range<u64>) {
        for pfn in pages {
            self.touch(cpu, index, pfn);
        }
    }

    pub fn free_each(&self, cpu: u32, pages: Range<u64>) {
        for pfn in pages {
            self.free(cpu, pfn, 0);
        }
    }

    /// Drains all slots of `cpu` that are cached for the subtree; run from CPU 0.
    pub fn drain(&self, cpu: u32, subtree: u32) -> u32 {
        self.stocks[cpu as usize]
            .iter()
            .map(|stock| drain::drain_stock(&self.cpu(0), stock, subtree))
            .sum()
    }

    pub fn uncharge(&self, index: u32, nr_pages: u64) {
        charge::uncharge(&self.cpu(0), index, nr_pages);
    }

    /// Sets one limit.
    pub fn set_limit(&self, index: u32, resource: Resource, nr_pages: u64) -> Result<u32, Refusal> {
        limit::set_limits(&self.cpu(0), one_limit(index, resource, nr_pages))
    }
}
