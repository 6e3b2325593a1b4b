//! What user space may ask of the page-owner map: adopting pages that were allocated before memstock was attached, and
//! repairing what was missed since. The bodies of the control programs for it.
//!
//! User space learns the owner of a page from `/proc`, which is outdated as soon as it is read. So it acts twice: it
//! adopts (or doubts) pages, which marks their entries [`UNCONFIRMED`], looks again, and disowns those that do not
//! belong to the cgroup. An allocation or a free in between clears the mark, and the entry is left alone: the probe
//! that saw it knows better.

use crate::charge::{add_usage, change_file, raise_watermarks, sub_usage};
use crate::control::{MAX_ARGS, Refusal, live};
use crate::file::FILE;
use crate::page::{Chunk, Entry, UNCONFIRMED, UNCOUNTED, owner_in};
use crate::world::Step;
use crate::{Machine, NO_INDEX, NOBODY, Word, key_of, owner_of};

/// Pages that one call can cover.
pub const WINDOW_PAGES: u32 = 512;

/// Arguments of `control_adopt`, `control_doubt`, `control_disown`, `control_reparent`; and of `control_doubt_free`,
/// `control_disown_free` and `control_file_pages`, which ignore the cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The counter of the cgroup.
    pub index: u32,
    /// Page frame number of the first page, a multiple of [`WINDOW_PAGES`].
    pub first_pfn: u64,
    /// A bit for each page of the call, lowest first.
    pub pages: [u64; WINDOW_PAGES as usize / 64],
    /// 1 when they are reclaimable page cache; only `control_adopt` reads it.
    pub is_file: u32,
}

impl Window {
    /// As raw tracepoint arguments, for `BPF_PROG_TEST_RUN`.
    pub fn to_args(self) -> [u64; MAX_ARGS] {
        let mut args = [0; MAX_ARGS];
        args[0] = self.index.into();
        args[1] = self.first_pfn;
        args[2..2 + self.pages.len()].copy_from_slice(&self.pages);
        args[2 + self.pages.len()] = self.is_file.into();
        args
    }

    /// From the program's arguments: `arg(n)` is the n-th one.
    #[inline(always)]
    pub fn from_args(arg: impl Fn(usize) -> u64) -> Self {
        let pages = [arg(2), arg(3), arg(4), arg(5), arg(6), arg(7), arg(8), arg(9)];
        Self { index: arg(0) as u32, first_pfn: arg(1), pages, is_file: arg(10) as u32 }
    }

    /// Adds the page frame `pfn`, which must be in the window.
    pub fn add(&mut self, pfn: u64) {
        let bit = pfn % WINDOW_PAGES as u64;
        self.pages[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    /// The number of pages selected.
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

/// Charges pages without an owner to a cgroup, regardless of its limit; returns how many there were.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn adopt<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    live(machine, window.index)?;
    // Charge first: a free that finds the entry uncharges at once. Report page cache before it is charged, and take
    // that back only after the rest is uncharged: a charge in between would count it as needed.
    let nr_pages = window.nr_pages();
    let (bit, nr_file) = if window.is_file == 0 { (0, 0) } else { (FILE, nr_pages as i32) };
    change_file(machine, window.index, nr_file);
    add_usage(machine, window.index, nr_pages as u64);
    let adopted = replace(machine, window, NOBODY, owner_of(window.index) | UNCONFIRMED | bit);
    let adopted = adopted.map(|found| found.nr_pages);
    let left = nr_pages - adopted.unwrap_or(0);
    if left > 0 {
        sub_usage(machine, window.index, left as u64);
        change_file(machine, window.index, if bit == 0 { 0 } else { -(left as i32) });
    }
    raise_watermarks(machine, window.index);
    adopted
}

/// Marks pages that a cgroup owns, before user space checks whether they still belong to it; returns how many it
/// marked.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn doubt<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    live(machine, window.index)?;
    let owner = owner_of(window.index);
    replace(machine, window, owner, owner | UNCONFIRMED).map(|found| found.nr_pages)
}

/// Takes pages that are still marked from a cgroup and uncharges them; returns how many there were.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn disown<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    live(machine, window.index)?;
    let Found { nr_pages, nr_file } =
        replace(machine, window, owner_of(window.index) | UNCONFIRMED, NOBODY)?;
    machine.uncharge(window.index, nr_pages);
    change_file(machine, window.index, -(nr_file as i32));
    Ok(nr_pages)
}

/// Gives pages of a dying cgroup to its parent, as the kernel does (`memcg_reparent_objcgs`); returns how many there
/// were. The ancestors' usage includes them already, so only the dying cgroup is uncharged. Marks stay on the page: an
/// adopted page keeps its mark, and a second look at a page that has changed owner leaves it alone. Without a parent
/// they are nobody's: the kernel gives them to a cgroup that is not tracked.
///
/// # Errors
/// [`Refusal::Missing`]; [`Refusal::Busy`] if it is tracked.
#[inline(always)]
pub fn reparent<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    let counter = live(machine, window.index)?;
    if machine.tracked(key_of(counter.id.load())) == Some(window.index) {
        return Err(Refusal::Busy);
    }
    let (from, above) = (owner_of(window.index), counter.parent());
    let Found { nr_pages, nr_file } = each(machine, window, |entry, _| {
        let seen = entry.load();
        let marks = seen ^ owner_in(seen);
        let to = if above == NO_INDEX { NOBODY } else { owner_of(above) | marks };
        if owner_in(seen) == from && entry.replace(seen, to) {
            Found { nr_pages: 1, nr_file: u32::from(marks & FILE != 0) }
        } else {
            Found::default()
        }
    })?;
    counter.uncharge_memory(nr_pages as u64);
    if machine.memsw() {
        counter.memsw.uncharge(nr_pages as u64);
    }
    counter.forget_huge(machine.memsw());
    counter.change_file(-(nr_file as i32));
    Ok(nr_pages)
}

/// The pages found in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Pages.
    pub nr_pages: u32,
    /// Those that were page cache before.
    pub nr_file: u32,
}

/// Replaces the entries of a window that are `current`, page cache or not; entries that keep an owner keep [`FILE`] and
/// [`UNCOUNTED`].
#[inline(always)]
pub(crate) fn replace<M: Machine>(
    machine: &M,
    window: Window,
    current: u32,
    new: u32,
) -> Result<Found, Refusal> {
    each(machine, window, |entry, _| {
        let seen = entry.load();
        let bits = seen & (FILE | UNCOUNTED);
        // A huge page that was allocated for nobody yet (`collapse`) has the mark and no owner.
        let is_current = seen & !bits == current || current == NOBODY && seen == UNCONFIRMED;
        let new = if new == NOBODY { NOBODY } else { new | bits };
        if is_current && entry.replace(seen, new) {
            Found { nr_pages: 1, nr_file: u32::from(bits & FILE != 0) }
        } else {
            Found::default()
        }
    })
}

/// Calls `act` with the entry and page frame number of each page of a window, and adds up the results.
///
/// # Errors
/// [`Refusal::Missing`] if they are outside the page-owner map.
#[inline(always)]
pub fn each<M: Machine>(
    machine: &M,
    window: Window,
    act: impl Fn(&M::Entry, u64) -> Found,
) -> Result<Found, Refusal> {
    let first = window.first_pfn & !(WINDOW_PAGES as u64 - 1);
    let chunk = machine.chunk(first).ok_or(Refusal::Missing)?;
    let at = machine.opaque_zero();
    let found = Found { nr_pages: machine.opaque_zero(), nr_file: machine.opaque_zero() };
    let mut walk = Walk { chunk, pages: window.pages, first, at, act, found };
    machine.repeat(WINDOW_PAGES, &mut walk);
    Ok(walk.found)
}

/// The walk over a window.
struct Walk<'a, E, A> {
    chunk: &'a Chunk<E>,
    pages: [u64; WINDOW_PAGES as usize / 64],
    first: u64,
    at: u32,
    act: A,
    found: Found,
}

impl<E: Entry, A: Fn(&E, u64) -> Found> Step for Walk<'_, E, A> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        let word = self.pages[(self.at / 64) as usize % self.pages.len()];
        if word >> (self.at % 64) & 1 == 1 {
            let pfn = self.first + self.at as u64;
            let found = (self.act)(self.chunk.entry(pfn), pfn);
            self.found.nr_pages += found.nr_pages;
            self.found.nr_file += found.nr_file;
        }
        self.at += 1;
        true
    }
}
