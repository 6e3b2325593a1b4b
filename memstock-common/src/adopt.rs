//! What user space may ask of the page-owner map: adopting pages that were allocated before anybody
//! looked, and repairing what was missed since. The bodies of the control programs for it.
//!
//! User space learns whose a page is from `/proc`, which is out of date when it is read. So it acts
//! twice: it adopts (or doubts) pages, which marks their entries [`UNCONFIRMED`], looks again, and
//! disowns those that turn out not to be the cgroup's. An allocation or a free between the two takes
//! the mark away, and the entry is left alone: the probe that saw it knows better.

use crate::charge::{add_usage, raise_watermarks, uncharge};
use crate::control::{MAX_ARGS, Refusal, live};
use crate::machine::Step;
use crate::page::{Chunk, Entry, UNCONFIRMED};
use crate::{Machine, NOBODY, owner_of};

/// Pages that one call can be about.
pub const WINDOW_PAGES: u32 = 512;

/// Arguments of `control_adopt`, `control_doubt` and `control_disown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The counter of the cgroup.
    pub index: u32,
    /// Page frame number of the first page, a multiple of [`WINDOW_PAGES`].
    pub first_pfn: u64,
    /// A bit for each page that the call is about, lowest first.
    pub pages: [u64; WINDOW_PAGES as usize / 64],
}

impl Window {
    /// As `BPF_PROG_TEST_RUN` wants them: raw tracepoint arguments.
    pub fn to_args(self) -> [u64; MAX_ARGS] {
        let mut args = [0; MAX_ARGS];
        args[0] = self.index.into();
        args[1] = self.first_pfn;
        args[2..2 + self.pages.len()].copy_from_slice(&self.pages);
        args
    }

    /// As the program finds them: `arg(n)` is the n-th argument.
    #[inline(always)]
    pub fn from_args(arg: impl Fn(usize) -> u64) -> Self {
        let pages = [arg(2), arg(3), arg(4), arg(5), arg(6), arg(7), arg(8), arg(9)];
        Self { index: arg(0) as u32, first_pfn: arg(1), pages }
    }

    /// Adds the page frame `pfn`, which is in the window.
    pub fn add(&mut self, pfn: u64) {
        let bit = pfn % WINDOW_PAGES as u64;
        self.pages[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    /// How many pages it is about.
    #[inline(always)]
    pub fn nr_pages(&self) -> u32 {
        let mut nr_pages = 0;
        let mut n = 0;
        while n < self.pages.len() {
            nr_pages += self.pages[n].count_ones();
            n += 1;
        }
        nr_pages
    }
}

/// Charges pages that nobody owns to a cgroup, whatever its limit; answers with how many there were.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn adopt<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    live(machine, window.index)?;
    // Charged first: a free that finds the entry uncharges at once.
    let nr_pages = window.nr_pages();
    add_usage(machine, window.index, nr_pages as u64);
    let adopted = replace(machine, window, NOBODY, owner_of(window.index) | UNCONFIRMED);
    let left = nr_pages - adopted.unwrap_or(0);
    if left > 0 {
        uncharge(machine, window.index, left as u64);
    }
    raise_watermarks(machine, window.index);
    adopted
}

/// Marks pages that a cgroup owns, before user space looks again whether it really does; answers with
/// how many it marked.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn doubt<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    live(machine, window.index)?;
    let owner = owner_of(window.index);
    replace(machine, window, owner, owner | UNCONFIRMED)
}

/// Takes pages that are still marked from a cgroup and uncharges them; answers with how many there were.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn disown<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    live(machine, window.index)?;
    let disowned = replace(machine, window, owner_of(window.index) | UNCONFIRMED, NOBODY)?;
    uncharge(machine, window.index, disowned as u64);
    Ok(disowned)
}

/// Replaces entries of a window; answers with how many there were.
#[inline(always)]
pub(crate) fn replace<M: Machine>(
    machine: &M,
    window: Window,
    current: u32,
    new: u32,
) -> Result<u32, Refusal> {
    let first = window.first_pfn & !(WINDOW_PAGES as u64 - 1);
    let chunk = machine.chunk(first).ok_or(Refusal::Missing)?;
    let mut walk = Walk {
        chunk,
        pages: window.pages,
        first,
        at: machine.nought(),
        current,
        new,
        replaced: machine.nought(),
    };
    machine.repeat(WINDOW_PAGES, &mut walk);
    Ok(walk.replaced)
}

/// The walk over a window.
struct Walk<'a, E> {
    chunk: &'a Chunk<E>,
    pages: [u64; WINDOW_PAGES as usize / 64],
    first: u64,
    at: u32,
    current: u32,
    new: u32,
    replaced: u32,
}

impl<E: Entry> Step for Walk<'_, E> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        let word = self.pages[(self.at / 64) as usize % self.pages.len()];
        if word >> (self.at % 64) & 1 == 1 {
            let entry = self.chunk.entry(self.first + self.at as u64);
            // A huge page whose task was told of no owner bears the mark, and is nobody's all the same.
            let is_replaced = entry.replace(self.current, self.new)
                || self.current == NOBODY && entry.replace(UNCONFIRMED, self.new);
            if is_replaced {
                self.replaced += 1;
            }
        }
        self.at += 1;
        true
    }
}
