//! What a recorded cgroup does: accesses to followed blocks of page cache, and processes that start and end. Loaded
//! separately, for `memstock record`, and attached only while recording.
//!
//! Kernel prototypes (`include/trace/events/filemap.h`): since Linux 6.12 `mm_filemap_get_pages` and
//! `mm_filemap_map_pages`: `(struct address_space *mapping, pgoff_t index, pgoff_t last_index)`, and
//! `mm_filemap_fault`: `(struct address_space *mapping, pgoff_t index)`; `mm_filemap_add_to_page_cache` and
//! `mm_filemap_delete_from_page_cache`: `(struct folio *folio)`, in its mapping. `include/trace/events/writeback.h`:
//! `writeback_dirty_folio`: `(struct folio *folio, struct address_space *mapping)`. `include/trace/events/sched.h`:
//! `sched_process_fork`: `(struct task_struct *parent, struct task_struct *child)`; `sched_process_exec` and
//! `sched_process_exit`, by the task itself.

use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_pid_tgid, bpf_jiffies64,
};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::record::{
    Accessed, BLOCK_PAGES, Happened, Recent, RecordKind, WINDOW_SHIFT, block_hash, is_followed,
    pages_in, pages_of,
};
use memstock_common::{Loss, Word, World};

use crate::config;
use crate::folio::{self, read, read_int};
use crate::machine::Kernel;
use crate::maps::{FOLLOWED, RECENT, RECORDED};
use crate::outlined;

/// `f_type` of tmpfs in statfs(2), which shared memory uses as well (`include/uapi/linux/magic.h`): no page cache of a
/// file.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// The reader polls: waking it would cost more than the record.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// Pages are read.
#[raw_tracepoint(tracepoint = "mm_filemap_get_pages")]
pub fn record_read(ctx: RawTracePointContext) -> i32 {
    accessed(RecordKind::Read, ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

/// Pages around a fault are mapped in.
#[raw_tracepoint(tracepoint = "mm_filemap_map_pages")]
pub fn record_mapped(ctx: RawTracePointContext) -> i32 {
    accessed(RecordKind::Mapped, ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

/// A page is mapped in.
#[raw_tracepoint(tracepoint = "mm_filemap_fault")]
pub fn record_fault(ctx: RawTracePointContext) -> i32 {
    accessed(RecordKind::Mapped, ctx.arg(0), ctx.arg(1), ctx.arg(1))
}

/// Pages enter the cache. The access that causes it is reported separately.
#[raw_tracepoint(tracepoint = "mm_filemap_add_to_page_cache")]
pub fn record_added(ctx: RawTracePointContext) -> i32 {
    changed(RecordKind::Added, ctx.arg(0))
}

/// Clean pages become dirty.
#[raw_tracepoint(tracepoint = "writeback_dirty_folio")]
pub fn record_dirtied(ctx: RawTracePointContext) -> i32 {
    changed(RecordKind::Dirtied, ctx.arg(0))
}

/// Pages leave the cache, whoever removes them. Most of them were never reported.
#[raw_tracepoint(tracepoint = "mm_filemap_delete_from_page_cache")]
pub fn record_removed(ctx: RawTracePointContext) -> i32 {
    let _ = of_folio(ctx.arg(0), |mapping, hash, block, pages| {
        let word = RECENT.get(Recent::place(hash))?;
        let recent = Recent(word.load());
        if recent.is_of(hash) {
            word.store(recent.forget(pages).0);
            outlined::report_access(RecordKind::Removed as u32, mapping, block, pages.into());
        }
        Some(())
    });
    0
}

/// A process is born. Threads are not reported.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn record_born(ctx: RawTracePointContext) -> i32 {
    if !is_recorded() {
        return 0;
    }
    let (parent, _) = current();
    match read_int(ctx.arg(1), config::task_tgid()) {
        Some(pid) if pid != parent => {
            report(&Happened { pid, parent, ..happened(RecordKind::Born) });
        }
        _ => {}
    }
    0
}

/// A process executes another program.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn record_exec(_ctx: RawTracePointContext) -> i32 {
    if is_recorded() {
        let comm = bpf_get_current_comm().unwrap_or_default();
        report(&Happened { pid: current().0, comm, ..happened(RecordKind::Exec) });
    }
    0
}

/// A process ends: its first thread does.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn record_died(_ctx: RawTracePointContext) -> i32 {
    if is_recorded() {
        let (pid, thread) = current();
        if pid == thread {
            report(&Happened { pid, ..happened(RecordKind::Died) });
        }
    }
    0
}

#[inline(always)]
fn happened(kind: RecordKind) -> Happened {
    Happened { kind: kind as u32, time_ns: Kernel.now(), ..Happened::default() }
}

/// The current process and thread.
#[inline(always)]
fn current() -> (u32, u32) {
    // SAFETY: the helper has no preconditions.
    let both = unsafe { bpf_get_current_pid_tgid() };
    ((both >> 32) as u32, both as u32)
}

/// Whether the current task is in the recorded cgroup or below it.
#[inline(always)]
fn is_recorded() -> bool {
    let (level, id) = config::recorded();
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_ancestor_cgroup_id(level) == id }
}

/// Reports what a task of the cgroup has done to a folio.
#[inline(always)]
fn changed(kind: RecordKind, folio: u64) -> i32 {
    if !is_recorded() {
        return 0;
    }
    let _ = of_folio(folio, |mapping, hash, block, pages| {
        let word = RECENT.get(Recent::place(hash))?;
        // Remember it, so that its removal is reported.
        if !Recent(word.load()).is_of(hash) {
            word.store(Recent::of(hash).0);
        }
        outlined::report_access(kind as u32, mapping, block, pages.into());
        Some(())
    });
    0
}

/// Reports an access to the pages of a range. Most of them were reported just now: those need neither a call nor a
/// check of whose task it is.
#[inline(always)]
fn accessed(kind: RecordKind, mapping: u64, first: u64, last: u64) -> i32 {
    // Jiffies, not the time: reading that takes as long as all the rest. SAFETY: the helper has no preconditions.
    let window = (unsafe { bpf_jiffies64() } >> WINDOW_SHIFT) as u16;
    each_block(mapping, first, last, |hash, block, pages| {
        let word = RECENT.get(Recent::place(hash))?;
        let (new, recent) = Recent(word.load()).add(hash, window, pages);
        if new != 0 && is_recorded() {
            // Two CPUs that race report twice.
            word.store(recent.0);
            outlined::report_access(kind as u32, mapping, block, new.into());
        }
        Some(())
    });
    0
}

/// Calls `visit` for each followed block of a folio.
#[inline(always)]
fn of_folio(folio: u64, visit: impl Fn(u64, u32, u64, u16) -> Option<()>) -> Option<()> {
    let layout = config::folio()?;
    let mapping = read(folio, layout.mapping.load())?;
    let first = read(folio, layout.index.load())?;
    let nr_pages: u64 = folio::nr_pages(folio)?.into();
    let last = first.wrapping_add(nr_pages).wrapping_sub(1);
    each_block(mapping, first, last, |hash, block, pages| visit(mapping, hash, block, pages));
    Some(())
}

/// Calls `visit` for each followed block of a range. Blocks beyond the bound are reported by the call that reaches them:
/// one call gets some dozen folios at most (`PAGEVEC_SIZE`).
#[inline(always)]
fn each_block(mapping: u64, first: u64, last: u64, visit: impl Fn(u32, u64, u16) -> Option<()>) {
    let Some(one_in) = FOLLOWED.get(0) else { return };
    let one_in = one_in.load() as u32;
    let begin = first / BLOCK_PAGES;
    let end = last / BLOCK_PAGES;
    // A constant that the verifier knows and the compiler does not, so that this stays a loop.
    for n in 0..config::max_blocks() {
        let block = begin.wrapping_add(n.into());
        if block > end {
            return;
        }
        let hash = block_hash(mapping, block);
        if is_followed(hash, one_in) && visit(hash, block, pages_in(block, first, last)).is_none() {
            return;
        }
    }
}

/// Reports an access to these pages of a block.
#[inline(always)]
pub fn report_access(kind: u32, mapping: u64, block: u64, pages: u32) -> Option<()> {
    let layout = config::folio()?;
    let inode = read(mapping, layout.mapping_host.load())?;
    let super_block = read(inode, layout.inode_sb.load())?;
    if read(super_block, layout.sb_magic.load())? == TMPFS_MAGIC {
        return None;
    }
    // A read may reach beyond the end of the file; a page that is being appended is there before the file has grown.
    let size = read(inode, layout.inode_size.load())?;
    let is_asked = kind == RecordKind::Read as u32 || kind == RecordKind::Mapped as u32;
    let there = u32::from(pages_of(block, size, config::page_shift()));
    let pages = if is_asked { pages & there } else { pages };
    if pages == 0 {
        return None;
    }
    let device = read_int(super_block, layout.sb_dev.load())?;
    let generation = read_int(inode, layout.inode_generation.load())?;
    report(&Accessed {
        kind,
        pages,
        time_ns: Kernel.now(),
        file: mapping,
        block,
        inode: read(inode, layout.inode_ino.load())?,
        device: u64::from(generation) << 32 | u64::from(device),
    });
    Some(())
}

#[inline(always)]
pub fn report<T: 'static>(record: &T) {
    if RECORDED.output::<T>(record, BPF_RB_NO_WAKEUP).is_err() {
        Kernel.lose(Loss::EventsLost, 1);
    }
}
