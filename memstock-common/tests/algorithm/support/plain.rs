//! Worlds with plain atomics, and shorthands for tests.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use memstock_common::file::FileWord;
use memstock_common::{Entry, NO_INDEX, Word};

use super::{Shape, World};

/// A world that one thread works on.
pub type Plain = World<AtomicU64>;

/// The value of a word.
pub fn read(word: &AtomicU64) -> u64 {
    Word::load(word)
}

/// Counter 0 is the parent of counter 1; two CPUs.
pub fn pair() -> Plain {
    let world = Plain::new(Shape { cpus: 2, batch: 8, memsw: true, ..Shape::default() });
    world.add(0, NO_INDEX);
    world.add(1, 0);
    world
}

/// Counter 0 is the parent of counters 1 and 2.
pub fn family_of(shape: Shape) -> Plain {
    let world = Plain::new(Shape { memsw: true, ..shape });
    world.add(0, NO_INDEX);
    world.add(1, 0);
    world.add(2, 0);
    world
}

/// The same on two CPUs, with two chunks of the owner map.
pub fn family_on_two_cpus(shape: Shape) -> Plain {
    family_of(Shape { cpus: 2, cgroups: 3, chunks: 2, ..shape })
}

/// The owner map's entry for a page.
pub fn entry(world: &Plain, pfn: u64) -> u32 {
    Entry::load(world.entry(pfn))
}

/// The page cache change that a CPU has yet to report.
pub fn untold(world: &Plain, cpu: u32) -> FileWord {
    FileWord(Word::load(&world.slot(cpu, 0).file))
}

/// Page cache reported to each counter of a family.
pub fn files(world: &Plain) -> [i64; 3] {
    [0, 1, 2].map(|index| world.file(index))
}

/// The cgroup reads pages of a file, on CPU 0.
pub fn read_file(world: &Plain, index: u32, pages: Range<u64>) {
    for pfn in pages {
        world.touch(0, index, pfn);
        world.cache(0, pfn, 1);
    }
}
