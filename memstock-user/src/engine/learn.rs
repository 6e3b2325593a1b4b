//! What has to be found out about the running kernel before the programs can identify pages.
//!
//! A raw tracepoint passes a `struct page *`. Where these lie in one array (`CONFIG_SPARSEMEM_VMEMMAP`), the page frame
//! number is the index in it. The kernel does not export where the array begins, so we compute it from pages of our
//! own, whose frame numbers our pagemap has.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::maps::Array;
use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader};
use rustix::fs::{major, minor, stat};
use rustix::thread::gettid;

use super::object::OBJECT;
use crate::exit::Failure;
use crate::host::mapping::Mapping;
use crate::host::pages::{Layout, end_pfn, own_pfn};

/// Own pages that must all agree on where the array begins.
const WITNESSES: usize = 64;
/// Attempts for each page: between its fault and our read of the report, this thread may have allocated another page.
const TRIES: usize = 8;

/// What the programs need to know about the kernel's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Offsets in the kernel's structures.
    pub layout: Layout,
    /// Address of the `struct page` of page frame 0, whether that exists or not.
    pub base: u64,
    /// One past the highest page frame number.
    pub end_pfn: u64,
}

/// How the program finds this thread, and the allocations that are charged.
pub(super) struct Asker {
    layout: Layout,
    thread: u32,
    pid_ns_dev: u32,
    pid_ns_ino: u64,
}

impl Asker {
    /// For the calling thread.
    ///
    /// # Errors
    /// The kernel has no BTF, or no PID namespaces.
    pub(super) fn new() -> Result<Self> {
        const PID_NS: &str = "/proc/self/ns/pid";
        let pid_ns = stat(PID_NS).with_context(|| format!("cannot stat {PID_NS}"))?;
        Ok(Self {
            layout: Layout::read()?,
            thread: gettid().as_raw_nonzero().get().cast_unsigned(),
            // In the kernel's internal encoding, MKDEV in include/linux/kdev_t.h, which differs from the one that
            // stat(2) returns.
            pid_ns_dev: major(pid_ns.st_dev) << 20 | minor(pid_ns.st_dev),
            pid_ns_ino: pid_ns.st_ino,
        })
    }
}

/// Finds out all of it.
///
/// # Errors
/// The kernel has no BTF, hides page frame numbers, or its `struct page`s are not in one array.
pub fn learn() -> Result<Pages> {
    learn_by(&mut EbpfLoader::new(), &Asker::new()?)
}

/// The same, by the thread that made `asker`, and with the caller's loader: each new one reads all types of the kernel.
///
/// # Errors
/// As [`learn`].
pub(super) fn learn_by<'a>(loader: &mut EbpfLoader<'a>, asker: &'a Asker) -> Result<Pages> {
    let mut ebpf = loader
        .override_global("GFP_FLAGS", &asker.layout.gfp, true)
        .override_global("LEARN_FROM", &asker.thread, true)
        .override_global("PID_NS_DEV", &asker.pid_ns_dev, true)
        .override_global("PID_NS_INO", &asker.pid_ns_ino, true)
        .load(OBJECT)
        .context("cannot load the BPF object")?;
    let base = base(&mut ebpf, asker.layout)?;
    Ok(Pages { layout: asker.layout, base, end_pfn: end_pfn()? })
}

fn base(ebpf: &mut Ebpf, layout: Layout) -> Result<u64> {
    attach(ebpf)?;
    let learnt = ebpf.map("LEARNT").context("no map LEARNT in the object")?;
    let learnt: Array<_, u64> = Array::try_from(learnt)?;
    let own = Mapping::new(WITNESSES * TRIES).context("cannot map memory")?;
    let mut pages = 0..;
    let mut witness = || -> Result<u64> {
        let page = own.touch(pages.next().unwrap_or(0));
        let reported = learnt.get(&0, 0).context("cannot read map LEARNT")?;
        Ok(reported.wrapping_sub(own_pfn(page)?.wrapping_mul(layout.page_struct_size)))
    };
    let first = (0..WITNESSES).map(|_| witness()).collect::<Result<Vec<_>>>()?;
    let base = most_frequent(&first);
    for mut claim in first {
        let mut tries = 1;
        while claim != base && tries < TRIES {
            claim = witness()?;
            tries += 1;
        }
        if claim != base {
            return Err(Failure::Host.error(
                "the kernel's struct pages are not in one array: memstock needs \
                 CONFIG_SPARSEMEM_VMEMMAP",
            ));
        }
    }
    Ok(base)
}

fn most_frequent(values: &[u64]) -> u64 {
    let distinct: BTreeSet<_> = values.iter().copied().collect();
    let count = |value| values.iter().filter(|&&other| other == value).count();
    distinct.into_iter().max_by_key(|&value| count(value)).unwrap_or_default()
}

fn attach(ebpf: &mut Ebpf) -> Result<()> {
    let program: &mut RawTracePoint =
        ebpf.program_mut("learn").context("no program learn in the object")?.try_into()?;
    program.load().context("the kernel refuses the program learn")?;
    program.attach("mm_page_alloc").context("cannot attach to the tracepoint mm_page_alloc")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_the_same_each_time() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let (first, again) = (learn().unwrap(), learn().unwrap());
        assert_eq!(first, again);
        // The kernel's half of the address space.
        assert!(first.base.cast_signed() < 0, "{:#x}", first.base);
    }

    #[test]
    fn one_that_lies_is_outvoted() {
        assert_eq!(most_frequent(&[7, 9, 7, 8, 7]), 7);
    }
}
