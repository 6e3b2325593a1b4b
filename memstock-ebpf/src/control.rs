//! The control programs: arguments in through `BPF_PROG_TEST_RUN`, one answer out. Their arguments and bodies are in
//! `memstock_common::control`.
//!
//! They are raw tracepoint programs because those can be test-run with arguments; they are never attached to the
//! tracepoint named. The `raw_tracepoint` macro drops a program's result, which a tracepoint does not need; here it is
//! the answer, so the programs are declared by hand.

use core::ffi::c_void;

use aya_ebpf::programs::RawTracePointContext;
use memstock_common::adopt::{self, Found, WINDOW_PAGES, Window};
use memstock_common::control::{
    self, Answer, Drain, Flush, Index, Limits, Refusal, Register, Reset, Swapped,
};
use memstock_common::drain::drain_stock;
use memstock_common::file::FILE;
use memstock_common::limit;
use memstock_common::lost;
use memstock_common::swap::set_swapped;
use memstock_common::{Entry, Word, World};

use crate::machine::Kernel;
use crate::maps::{FILE_PAGES, LEASE_UNTIL};
use crate::{config, folio};

/// Declares a program whose result is the answer.
macro_rules! control {
    ($(#[$doc:meta])* $name:ident, |$arg:ident| $body:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "raw_tp/page_fault_user")]
        pub fn $name(ctx: *mut c_void) -> u32 {
            let ctx = RawTracePointContext::new(ctx);
            let $arg = |n: usize| -> u64 { ctx.arg(n) };
            Answer::new($body).0
        }
    };
}

control! {
    /// Makes a cgroup tracked: [`Register`].
    control_register, |arg| control::register(&Kernel, Register::from_args(arg))
}

control! {
    /// Zeroes the statistics of a free counter on one CPU: [`Reset`].
    control_reset, |arg| {
        let Reset { index, cpu } = Reset::from_args(arg);
        control::reset_cgroup_cpu(&Kernel, index, cpu)
    }
}

control! {
    /// Ends the charging of a cgroup: [`Index`].
    control_close, |arg| control::close(&Kernel, Index::from_args(arg).index)
}

control! {
    /// Takes back what one CPU has stocked for a dying cgroup: [`Flush`].
    control_flush, |arg| {
        let Flush { index, cpu, slot } = Flush::from_args(arg);
        control::flush(&Kernel, index, cpu, slot)
    }
}

control! {
    /// Frees the counter of a dying cgroup: [`Index`].
    control_release, |arg| control::release(&Kernel, Index::from_args(arg).index)
}

control! {
    /// Sets how many pages of a cgroup's tasks are in swap: [`Swapped`].
    control_swapped, |arg| {
        let Swapped { index, nr_pages } = Swapped::from_args(arg);
        set_swapped(&Kernel, index, nr_pages)
    }
}

control! {
    /// Renews the lease: user space acts on limits for a while from now.
    control_renew_lease, |_arg| {
        LEASE_UNTIL.store(limit::renew_lease(&Kernel));
        Ok(0)
    }
}

control! {
    /// Makes the next limit hit send its event at once: [`Index`].
    control_rearm, |arg| limit::rearm(&Kernel, Index::from_args(arg).index)
}

control! {
    /// Sets limits: [`Limits`].
    control_limits, |arg| limit::set_limits(&Kernel, Limits::from_args(arg))
}

control! {
    /// Drains one slot of one CPU: [`Drain`]. Returns the pages given back.
    control_drain, |arg| {
        let Drain { cpu, slot, subtree } = Drain::from_args(arg);
        match Kernel.stock_of(cpu, slot) {
            Some(stock) => Ok(drain_stock(&Kernel, stock, subtree)),
            None => Err(Refusal::Missing),
        }
    }
}

control! {
    /// Charges pages without an owner to a cgroup: [`Window`].
    control_adopt, |arg| adopt::adopt(&Kernel, Window::from_args(arg))
}

control! {
    /// Gives pages of a dying cgroup to its parent, which may be dying as well: [`Window`].
    control_reparent, |arg| adopt::reparent(&Kernel, Window::from_args(arg))
}

control! {
    /// Marks pages that have an owner although they are free: [`Window`].
    control_doubt_free, |arg| lost::doubt_free(&Kernel, Window::from_args(arg))
}

control! {
    /// Uncharges pages that are still marked and free: [`Window`].
    control_disown_free, |arg| lost::disown_free(&Kernel, Window::from_args(arg))
}

control! {
    /// Stores the file of each page in `FILE_PAGES`: [`Window`]. Returns how many pages are page cache.
    control_file_pages, |arg| {
        let window = Window::from_args(arg);
        let found = adopt::each(&Kernel, window, |entry, pfn| {
            let Some(slot) = FILE_PAGES.get((pfn % u64::from(WINDOW_PAGES)) as u32) else {
                return Found::default();
            };
            let page = if entry.load() & FILE == 0 { None } else { folio::file_page(config::page_of(pfn)) };
            let page = page.unwrap_or_default();
            slot.index.store(page.index);
            slot.dev.store(page.dev);
            slot.inode.store(page.inode);
            Found { nr_pages: u32::from(page.inode != 0), nr_file: 0 }
        });
        found.map(|found| found.nr_pages)
    }
}

control! {
    /// Marks pages of a cgroup, to be checked again: [`Window`].
    control_doubt, |arg| adopt::doubt(&Kernel, Window::from_args(arg))
}

control! {
    /// Uncharges pages of a cgroup that are still marked: [`Window`].
    control_disown, |arg| adopt::disown(&Kernel, Window::from_args(arg))
}
