//! The kernel half: thin programs around `memstock-common`, which decides what is charged and drained. The code here
//! reads the kernel's own structures: which cgroup a page belongs to, and whether it is charged.
//!
//! `fault` is attached to the page-fault tracepoints, where they exist, and tail-calls `charge` on a miss. The probes
//! of `page` commit and uncharge pages; `bump_generation` marks what a CPU remembers of tasks as stale; `file` marks
//! page cache; `collapse` charges huge pages that one task put together for another; `migrate` moves owners along with
//! migrated pages. The probes of `cgroup` report cgroups that are made or removed, `reclaim` that reclaim begins;
//! `hotplug` drains CPUs that go offline. The programs of `control` run only when the user half asks
//! (`BPF_PROG_TEST_RUN`). `learn`, `kernel_slots` and the programs of `kernel_stock`, `record` and `charged` are loaded
//! separately from the engine.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "BPF has no core::sync::atomic read-modify-write")]

mod bump_generation;
mod cgroup;
mod charge;
mod charged;
mod collapse;
mod config;
mod control;
mod fault;
mod file;
mod folio;
mod hotplug;
mod kernel_slots;
mod kernel_stock;
mod learn;
mod machine;
mod maps;
mod memory;
mod migrate;
mod outlined;
mod page;
mod payer;
mod reclaim;
mod record;
mod typed;
mod word;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The helpers used require a GPL-compatible licence. MIT is one, and this is how the kernel spells it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
