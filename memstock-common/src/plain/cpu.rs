//! The world as seen by programs on one CPU.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;

use super::{FIRST_KEY, Memory, NewWord};
use crate::page::CHUNK_PAGES;
use crate::world::Step;
use crate::{
    CgroupCpu, Chunk, Counter, Counters, Entry as _, Event, Loss, MAX_DEPTH, Machine, Stock, World,
};

/// One CPU of a world.
pub struct Cpu<'a, W: NewWord> {
    /// The world.
    pub memory: &'a Memory<W>,
    /// Its number.
    pub cpu: u32,
}

impl<W: NewWord> Cpu<'_, W> {
    fn in_table(&self, key: u32) -> Option<&W> {
        self.memory.table.get(key.checked_sub(FIRST_KEY)? as usize)
    }
}

impl<W: NewWord> Counters for Cpu<'_, W> {
    type Word = W;

    fn counter(&self, index: u32) -> Option<&Counter<W>> {
        self.memory.counters.get(index as usize)
    }
    fn memsw(&self) -> bool {
        self.memory.shape.memsw
    }
    fn max_depth(&self) -> u32 {
        MAX_DEPTH
    }
}

impl<W: NewWord> Machine for Cpu<'_, W> {}

impl<W: NewWord> World for Cpu<'_, W> {
    type Entry = W::Entry;

    fn tracked(&self, key: u32) -> Option<u32> {
        self.in_table(key)?.look_up().checked_sub(1).map(|index| index as u32)
    }
    fn track(&self, key: u32, index: u32) -> bool {
        self.in_table(key).is_some_and(|entry| entry.replace(0, u64::from(index) + 1))
    }
    fn untrack(&self, key: u32) {
        if let Some(entry) = self.in_table(key) {
            entry.swap(0);
        }
    }
    fn generation(&self) -> u64 {
        self.memory.generation.load()
    }
    fn next_generation(&self) {
        self.memory.generation.fetch_add(1);
    }
    fn cgroup_cpu(&self, index: u32) -> Option<&CgroupCpu<W>> {
        self.cgroup_cpu_of(index, self.cpu)
    }
    fn stock(&self, slot: u32) -> Option<&Stock<W>> {
        self.stock_of(self.cpu, slot)
    }
    fn stock_of(&self, cpu: u32, slot: u32) -> Option<&Stock<W>> {
        self.memory.stocks.get(cpu as usize)?.get(slot as usize)
    }
    fn cgroup_cpu_of(&self, index: u32, cpu: u32) -> Option<&CgroupCpu<W>> {
        let row = if self.memory.shape.counts_together { 0 } else { cpu };
        self.memory.shares.get(row as usize)?.get(index as usize)
    }
    fn chunk(&self, pfn: u64) -> Option<&Chunk<W::Entry>> {
        let chunk = usize::try_from(pfn / u64::from(CHUNK_PAGES)).ok()?;
        self.memory.chunks.get(chunk).map(|chunk| &**chunk)
    }
    fn opaque_zero(&self) -> u32 {
        0
    }
    fn repeat<S: Step>(&self, times: u32, walk: &mut S) {
        for _ in 0..times {
            if !walk.step() {
                return;
            }
        }
    }
    fn batch(&self) -> u32 {
        self.memory.shape.batch
    }
    fn stock_pages(&self) -> u32 {
        self.memory.shape.stock_pages.unwrap_or(self.batch())
    }
    fn uncharge_batch(&self) -> u32 {
        self.memory.shape.uncharge_batch.unwrap_or(self.batch())
    }
    fn slots(&self) -> u32 {
        self.memory.shape.slots
    }
    fn now(&self) -> u64 {
        self.memory.now.fetch_add(self.memory.shape.look_ns, SeqCst)
    }
    fn lease_until(&self) -> u64 {
        self.memory.shape.lease_until
    }
    fn setting(&self) -> &W {
        &self.memory.setting
    }
    fn emit(&self, event: &Event) {
        self.memory.events.lock().unwrap_or_else(PoisonError::into_inner).push(*event);
    }
    fn task(&self) -> u32 {
        1 + self.cpu * self.memory.shape.tasks_apart
    }
    fn tracks_collapses(&self) -> bool {
        self.memory.shape.tracks_collapses
    }
    fn collapse(&self, place: u32) -> Option<&W> {
        self.memory.collapses.get(place as usize)
    }
    fn is_free(&self, pfn: u64) -> bool {
        self.memory.counts.as_ref().is_none_or(|counts| counts.entry(pfn).load() == 0)
    }
    fn lose(&self, loss: Loss, count: u64) {
        self.memory.losses[loss as usize].fetch_add(count, SeqCst);
    }
}
