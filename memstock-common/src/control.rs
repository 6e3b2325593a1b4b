//! What the user half may ask of the kernel half: the bodies of the control programs.
//!
//! User space never writes a map that the kernel half writes. It runs a control program with
//! `BPF_PROG_TEST_RUN`, arguments in, one [`Answer`] out.

use crate::charge::levels;
use crate::counter::CHILD;
use crate::file::{FileWord, apply_change};
use crate::uncharge::drain_taken;
use crate::{CgroupCpu, Counter, MAX_DEPTH, Machine, NO_INDEX, StockWord, Word};
use crate::{key_of, owner_of};

/// The result of a control program, in the 32 bits that `BPF_PROG_TEST_RUN` returns: `refusal << 24` or a number of
/// pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer(pub u32);

/// Why a control program refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    /// No such counter, CPU or slot.
    Missing = 1,
    /// The counter is in use, or the cgroup is tracked already.
    Taken = 2,
    /// The usage is above the limit asked for, or something is still charged to the cgroup.
    Busy = 3,
    /// More levels of tracked cgroups than [`MAX_DEPTH`].
    Deep = 4,
    /// Limits are being set by somebody else: try again.
    Setting = 5,
    /// The memory+swap limit would be below the memory limit.
    Order = 6,
    /// The map of tracked cgroups is full.
    Full = 7,
}

impl Answer {
    /// Packs a result.
    #[inline(always)]
    pub const fn new(result: Result<u32, Refusal>) -> Self {
        match result {
            Ok(nr_pages) => Self(nr_pages & 0xff_ffff),
            Err(refusal) => Self((refusal as u32) << 24),
        }
    }

    /// Unpacks a result.
    ///
    /// # Errors
    /// The refusal, or its tag if this version does not know it.
    pub fn result(self) -> Result<u32, Result<Refusal, crate::event::Unknown>> {
        match self.0 >> 24 {
            0 => Ok(self.0),
            1 => Err(Ok(Refusal::Missing)),
            2 => Err(Ok(Refusal::Taken)),
            3 => Err(Ok(Refusal::Busy)),
            4 => Err(Ok(Refusal::Deep)),
            5 => Err(Ok(Refusal::Setting)),
            6 => Err(Ok(Refusal::Order)),
            7 => Err(Ok(Refusal::Full)),
            tag => Err(Err(crate::event::Unknown(tag))),
        }
    }
}

/// Declares the arguments of a control program once for both halves.
macro_rules! arguments {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)+ }

        impl $name {
            /// As raw tracepoint arguments, for `BPF_PROG_TEST_RUN`.
            pub fn to_args(self) -> [u64; MAX_ARGS] {
                let mut args = [0; MAX_ARGS];
                for (arg, value) in args.iter_mut().zip([$(u64::from(self.$field)),+]) {
                    *arg = value;
                }
                args
            }

            /// From the program's arguments: `arg(n)` is the n-th one.
            #[inline(always)]
            pub fn from_args(arg: impl Fn(usize) -> u64) -> Self {
                let mut n = 0..;
                $(let $field = arg(n.next().unwrap_or(0)) as $type;)+
                Self { $($field,)+ }
            }
        }
    };
}

/// Arguments that a raw tracepoint program can take (`MAX_BPF_FUNC_ARGS`).
pub const MAX_ARGS: usize = 12;

arguments! {
    /// Arguments of `control_register`.
    Register {
        /// A free counter, chosen by the user half.
        index: u32,
        /// Counter of the nearest tracked ancestor, or [`NO_INDEX`].
        parent: u32,
        /// cgroup v2 id.
        cgroup_id: u64,
        /// Memory limit in pages, or [`NO_LIMIT`](crate::NO_LIMIT).
        memory_limit: u64,
        /// Memory+swap limit in pages, or [`NO_LIMIT`](crate::NO_LIMIT).
        memsw_limit: u64,
    }
}

arguments! {
    /// Arguments of `control_close`, `control_release` and `control_rearm`.
    Index {
        /// The counter.
        index: u32,
    }
}

arguments! {
    /// Arguments of `control_reset`.
    Reset {
        /// A free counter.
        index: u32,
        /// The CPU whose statistics are zeroed.
        cpu: u32,
    }
}

arguments! {
    /// Arguments of `control_flush`.
    Flush {
        /// The counter of a closed cgroup.
        index: u32,
        /// The CPU.
        cpu: u32,
        /// The slot in which the cgroup may be cached.
        slot: u32,
    }
}

arguments! {
    /// Arguments of `control_limits`. Limits are in pages, or [`NO_LIMIT`](crate::NO_LIMIT), or [`KEEP_LIMIT`].
    Limits {
        /// The counter.
        index: u32,
        /// Of memory.
        memory: u64,
        /// Of memory and swap together.
        memsw: u64,
        /// 1 to set them even below the usage.
        force: u32,
    }
}

/// A limit that stays as it is.
pub const KEEP_LIMIT: u64 = u64::MAX - 1;

arguments! {
    /// Arguments of `control_swapped`.
    Swapped {
        /// The counter.
        index: u32,
        /// Pages in swap.
        nr_pages: u64,
    }
}

arguments! {
    /// Arguments of `control_drain`.
    Drain {
        /// The CPU.
        cpu: u32,
        /// The slot.
        slot: u32,
        /// Drain only if it is cached for this counter or a descendant; [`NO_INDEX`] for any.
        subtree: u32,
    }
}

/// Makes a cgroup tracked.
///
/// # Errors
/// [`Refusal::Taken`], [`Refusal::Missing`] (no such counter or parent), [`Refusal::Deep`], [`Refusal::Full`].
#[inline(always)]
pub fn register<M: Machine>(machine: &M, args: Register) -> Result<u32, Refusal> {
    let counter = machine.counter(args.index).ok_or(Refusal::Missing)?;
    if args.parent != NO_INDEX {
        let parent = machine.counter(args.parent).ok_or(Refusal::Missing)?;
        // A closed parent counts as gone: after its release this child would have no valid parent.
        if machine.tracked(key_of(parent.id.load())) != Some(args.parent) {
            return Err(Refusal::Missing);
        }
        if levels(machine, args.parent) >= MAX_DEPTH {
            return Err(Refusal::Deep);
        }
    }
    if !counter.id.replace(0, args.cgroup_id) {
        return Err(Refusal::Taken);
    }
    // Nobody finds the counter before it is tracked, so the order of the rest does not matter.
    counter.memory_limit.store(args.memory_limit);
    counter.memsw_limit.store(args.memsw_limit);
    counter.parent.store(owner_of(args.parent).into());
    let key = key_of(args.cgroup_id);
    if !machine.track(key, args.index) {
        counter.id.store(0);
        return Err(if machine.tracked(key).is_some() { Refusal::Taken } else { Refusal::Full });
    }
    if let Some(parent) = machine.counter(args.parent) {
        parent.parent.fetch_add(CHILD);
    }
    machine.next_generation();
    Ok(0)
}

/// Ends the charging of a cgroup: from now on no look-up finds it, and its tasks are charged to the nearest tracked
/// ancestor.
///
/// What is charged stays charged: the counter is *dying* until its last page is freed or given to the parent
/// ([`reparent`](crate::adopt::reparent)), like the memory cgroup of a removed cgroup in the kernel. The user half
/// waits for a grace period, after which no probe that found the cgroup is still running, and then tries [`flush`] on
/// each CPU and [`release`] until it succeeds. Once its usage is 0 it runs `flush` on each CPU once more before that:
/// see `release`.
///
/// # Errors
/// [`Refusal::Missing`] if there is no such cgroup, or it is already dying.
#[inline(always)]
pub fn close<M: Machine>(machine: &M, index: u32) -> Result<u32, Refusal> {
    let counter = live(machine, index)?;
    let key = key_of(counter.id.load());
    if machine.tracked(key) != Some(index) {
        return Err(Refusal::Missing);
    }
    machine.untrack(key);
    machine.next_generation();
    Ok(0)
}

/// Gives back to a dying cgroup what one CPU has stocked, or is about to uncharge, for it; reports the CPU's pending
/// change of its page cache; and drops its uncredited faults, so that they cannot go to the next cgroup with this
/// counter. Returns the pages given back.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn flush<M: Machine>(machine: &M, index: u32, cpu: u32, slot: u32) -> Result<u32, Refusal> {
    live(machine, index)?;
    let stock = machine.stock_of(cpu, slot).ok_or(Refusal::Missing)?;
    let mut nr_pages = 0;
    for word in [&stock.word, &stock.uncharge_batch] {
        let seen = StockWord(word.load());
        // If a free wins a race, the next attempt finds what it left.
        if seen.owner() == owner_of(index) && word.replace(seen.0, StockWord::EMPTY.0) {
            nr_pages += drain_taken(machine, stock, seen);
        }
    }
    let seen = FileWord(stock.file.load());
    if seen.owner() == owner_of(index) && stock.file.replace(seen.0, FileWord::EMPTY.0) {
        apply_change(machine, seen);
    }
    stock.creditor.replace(owner_of(index).into(), 0);
    Ok(nr_pages)
}

/// Frees the counter of a dying cgroup that has nothing charged any more.
///
/// Unlike charges, the page-cache changes that the CPUs have yet to report can cancel out; reported to the next cgroup
/// with this counter, they would be wrong for ever in the ancestors of both. So each CPU must be flushed once more
/// after the usage was 0: every addition was reported by then, and a removal not yet reported, since a free uncharges
/// first, leaves `file` above 0.
///
/// # Errors
/// [`Refusal::Missing`]; [`Refusal::Busy`] while it is tracked, something is charged, or it has a child.
#[inline(always)]
pub fn release<M: Machine>(machine: &M, index: u32) -> Result<u32, Refusal> {
    let counter = live(machine, index)?;
    let is_charged = counter.memory.usage.load() != 0
        || counter.memsw.usage.load() != 0
        || counter.file.load() != 0;
    if is_charged
        || counter.children() != 0
        || machine.tracked(key_of(counter.id.load())) == Some(index)
    {
        return Err(Refusal::Busy);
    }
    if let Some(parent) = machine.counter(counter.parent()) {
        parent.parent.fetch_sub(CHILD);
    }
    for page_counter in [&counter.memory, &counter.memsw] {
        page_counter.watermark.store(0);
        page_counter.failcnt.store(0);
    }
    counter.needed_watermark.store(0);
    counter.huge.store(0);
    counter.near_at.store(0);
    counter.hit_at.store(0);
    counter.id.store(0);
    Ok(0)
}

/// Zeroes the statistics of a free counter on one CPU.
///
/// # Errors
/// [`Refusal::Missing`]; [`Refusal::Taken`] if the counter is in use.
#[inline(always)]
pub fn reset_cgroup_cpu<M: Machine>(machine: &M, index: u32, cpu: u32) -> Result<u32, Refusal> {
    let counter = machine.counter(index).ok_or(Refusal::Missing)?;
    if counter.id.load() != 0 {
        return Err(Refusal::Taken);
    }
    let CgroupCpu { faults, from_stock, missed, singles, forced } =
        machine.cgroup_cpu_of(index, cpu).ok_or(Refusal::Missing)?;
    for word in [faults, from_stock, missed, singles, forced] {
        word.store(0);
    }
    Ok(0)
}

#[inline(always)]
pub(crate) fn live<M: Machine>(machine: &M, index: u32) -> Result<&Counter<M::Word>, Refusal> {
    let counter = machine.counter(index).ok_or(Refusal::Missing)?;
    if counter.id.load() == 0 { Err(Refusal::Missing) } else { Ok(counter) }
}
