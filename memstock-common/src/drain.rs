//! Draining: returns stocked pages to the shared counters, from any CPU.

use crate::charge::is_in_subtree;
use crate::event::EventKind;
use crate::file::{FileWord, apply_change};
use crate::uncharge::drain_taken;
use crate::world::Step;
use crate::{Event, Machine, NO_INDEX, Stock, StockWord, Word, index_of};

/// The patch's `drain_stock`, for the stock of any CPU and its uncharge batch: returns the pages given back. Also
/// reports the CPU's pending change of page cache.
///
/// Touches only what is cached for the subtree of the counter `subtree` ([`NO_INDEX`]: everything). Wait-free: one swap
/// takes the stock and says whose it was. If the CPU has cached another cgroup between the check and the swap, that
/// cgroup's pages go back to that cgroup, and the stock that was asked for is gone as well.
#[inline(always)]
pub fn drain_stock<M: Machine>(machine: &M, stock: &Stock<M::Word>, subtree: u32) -> u32 {
    let mut drained = 0;
    // Before the stock: a miss moves the batch into the stock, and nothing moves it back.
    if is_due(machine, StockWord(stock.uncharge_batch.load()), subtree) {
        drained += drain_taken(machine, stock, stock.take_uncharge_batch());
    }
    if is_due(machine, StockWord(stock.word.load()), subtree) {
        drained += drain_taken(machine, stock, stock.take());
    }
    let file = FileWord(stock.file.load());
    if file.change() != 0 && is_below(machine, file.owner(), subtree) {
        apply_change(machine, stock.take_file());
    }
    drained
}

/// A CPU is going down or coming up, and this runs on `here`: drains everything that the other CPU has, as the patch
/// does on `CPU_DEAD`, and tells the user half.
///
/// The kernel runs most hotplug steps of a CPU on another one, including every step after its death. Pages that the
/// earlier steps drain are stocked again if needed. Steps on the CPU itself are ignored: some run with interrupts off,
/// when nobody can be woken any more, and a ring buffer that waits for that wakes nobody else either.
#[inline(always)]
pub fn cpu_hotplug<M: Machine>(machine: &M, cpu: u32, here: u32) {
    if cpu == here {
        return;
    }
    // Not a loop: the verifier of Linux 6.1 follows a loop through every slot, at every depth, and gives up at 64
    // slots.
    let mut walk = Walk { machine, cpu, slot: 0, drained: 0 };
    machine.repeat(machine.slots(), &mut walk);
    machine.emit(&Event {
        kind: EventKind::CpuHotplug as u32,
        time_ns: machine.now(),
        nr_pages: walk.drained.into(),
        cpu: cpu.into(),
        ..Event::default()
    });
}

/// The walk over the slots of a CPU.
struct Walk<'a, M> {
    machine: &'a M,
    cpu: u32,
    slot: u32,
    drained: u32,
}

impl<M: Machine> Step for Walk<'_, M> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if let Some(stock) = self.machine.stock_of(self.cpu, self.slot) {
            self.drained += drain_stock(self.machine, stock, NO_INDEX);
        }
        self.slot += 1;
        true
    }
}

#[inline(always)]
fn is_due<M: Machine>(machine: &M, seen: StockWord, subtree: u32) -> bool {
    seen.charged() > 0 && is_below(machine, seen.owner(), subtree)
}

#[inline(always)]
fn is_below<M: Machine>(machine: &M, owner: u32, subtree: u32) -> bool {
    subtree == NO_INDEX || is_in_subtree(machine, index_of(owner), subtree)
}
