//! Owns where the kernel's own memory controller keeps its per-CPU stocks, and their layout. Nothing is guessed: a
//! layout that no known kernel has is refused.

use std::path::Path;

use anyhow::Result;
use memstock_common::layout::{KernelSlots, KernelStocks, MAX_KERNEL_SLOTS};

use super::btf::{Btf, Elements};
use super::layout::{VMLINUX, parse, read};
use crate::exit::Failure;

/// The section of per-CPU variables.
const PER_CPU: &str = ".data..percpu";

/// Reads it from the running kernel's BTF. `hierarchy` is the number of the hierarchy that has the memory controller.
///
/// # Errors
/// [`Failure::Host`]: the kernel has no BTF, or a stock of unknown layout.
pub fn kernel_stocks(hierarchy: u32) -> Result<KernelStocks> {
    let bytes = read(Path::new(VMLINUX))?;
    stocks(&parse(&bytes)?, hierarchy).ok_or_else(|| {
        Failure::Host.error(
            "this kernel has no per-CPU stock of pages (memcg_stock) of a layout that memstock knows: \
             CONFIG_MEMCG, CONFIG_FAIR_GROUP_SCHED and Linux 5.19 to 7.3 have one",
        )
    })
}

fn stocks(btf: &Btf<'_>, hierarchy: u32) -> Option<KernelStocks> {
    let variable = |name| btf.variable_offset(PER_CPU, name);
    let rq = variable("runqueues")?;
    let from_rq = |name| Some(u64::from(variable(name)?).wrapping_sub(rq.into()));
    let slots = |from_rq, name: &str, cached: &[&str], left| {
        let mut cached = cached.iter().filter_map(|cached| btf.elements(name, cached));
        to_slots(from_rq, cached.next()?, btf.elements(name, left)?)
    };
    const PAGES: &str = "memcg_stock_pcp";
    let pages = from_rq("memcg_stock")?;
    // In its own variable since Linux 6.16; with several slots, and another member name, since 7.2.
    let bytes = match from_rq("obj_stock") {
        Some(from_rq) => slots(from_rq, "obj_stock_pcp", &["cached_objcg", "cached"], "nr_bytes")?,
        None => slots(pages, PAGES, &["cached_objcg"], "nr_bytes").unwrap_or(KernelSlots::NONE),
    };
    let offset = |name, member| btf.member_offset(name, member);
    Some(KernelStocks {
        task_cfs_rq: offset("task_struct", "se")? + offset("sched_entity", "cfs_rq")?,
        cfs_rq_rq: offset("cfs_rq", "rq")?,
        rq_cpu: offset("rq", "cpu")?,
        memcg_cgroup: offset("mem_cgroup", "css")? + offset("cgroup_subsys_state", "cgroup")?,
        objcg_memcg: offset("obj_cgroup", "memcg")?,
        hierarchy,
        pages: slots(pages, PAGES, &["cached"], "nr_pages")?,
        bytes,
    })
}

/// Checks that there are as many numbers as pointers.
fn to_slots(from_rq: u64, cached: Elements, left: Elements) -> Option<KernelSlots> {
    let is_known = cached.is_pointer
        && !left.is_pointer
        && cached.count == left.count
        && (1..=MAX_KERNEL_SLOTS).contains(&cached.count)
        && matches!(left.size, 1 | 2 | 4 | 8);
    is_known.then_some(KernelSlots {
        from_rq,
        nr_slots: cached.count,
        cached: cached.offset,
        left: left.offset,
        left_size: left.size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_stocks() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let stocks = kernel_stocks(3).unwrap();
        assert_eq!(stocks.hierarchy, 3);
        let pages = stocks.pages;
        assert!(pages.from_rq.is_multiple_of(8) && pages.cached.is_multiple_of(8), "{stocks:?}");
        // The numbers do not overlap the pointers.
        assert!(
            pages.left + pages.nr_slots * pages.left_size <= pages.cached || pages.nr_slots == 1
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let elements = |count, size, is_pointer| Elements { offset: 8, count, size, is_pointer };
        let (cached, left) = (elements(7, 8, true), elements(7, 1, false));
        assert_eq!(to_slots(16, cached, left).unwrap().nr_slots, 7);
        for (cached, left) in [
            (elements(5, 8, true), left),
            (cached, elements(7, 3, false)),
            (cached, cached),
            (left, left),
            (elements(9, 8, true), elements(9, 1, false)),
            (elements(0, 8, true), elements(0, 1, false)),
        ] {
            assert_eq!(to_slots(16, cached, left), None, "{cached:?} {left:?}");
        }
    }
}
