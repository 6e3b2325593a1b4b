//! The maps: who writes and reads each, how large it is, and what happens when it is full.
//!
//! Maps whose size depends on the host, or on what is tracked, have one entry here. The user half sets their sizes when
//! it loads an engine; for a program that is loaded only to find something out, they stay that small.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf};
use memstock_common::file::FilePage;
use memstock_common::layout::MAX_KERNEL_SLOTS;
use memstock_common::{
    CgroupCpu, Chunk, Counter, EngineInfo, KernelCharges, KernelSlot, Loss, Stock, collapse,
};

use crate::word::{MapEntry, MapWord};

/// The stocks: one entry per slot. Written by the probes on the CPU itself. `control_drain`, `control_flush` and
/// `cpu_hotplug` also write the stock word, the uncharge batch, the page-cache change and the count of drains from any
/// CPU, and `control_flush` the creditor. Read by the user half, which sets the number of slots at load.
#[map]
pub static STOCK: PerCpuArray<Stock<MapWord>> = PerCpuArray::with_max_entries(1, 0);

/// The shared counters, by index. Written by the probes and the control programs; read by the user half, which sets its
/// size at load. Mmapable, which also aligns its values to cache lines. When it is full, a cgroup cannot be registered
/// and the user half says so.
#[map]
pub static COUNTERS: Array<Counter<MapWord>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Low 32 bits of the id of a tracked cgroup -> index of its counter. Written by `control_register` and
/// `control_close`; read when a CPU looks up whom to charge. As large as `COUNTERS`, so it is not full before they are.
#[map]
pub static CGROUPS: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

/// What each cgroup did on each CPU, by counter index. Written by the probes on that CPU and zeroed by `control_reset`
/// while the counter is free; read by the user half. As large as `COUNTERS`.
#[map]
pub static CGROUP_CPU: PerCpuArray<CgroupCpu<MapWord>> = PerCpuArray::with_max_entries(1, 0);

/// The page-owner map, by page frame number divided by the pages of a chunk. Written by `page_alloc` and `page_free`,
/// by the probes of page cache, collapses and migrations, and by the control programs that adopt, repair and reparent;
/// read by the user half, which sets its size at load: 4 bytes for each page of the host. Page frames beyond it are
/// counted in `LOSS`.
#[map]
pub static OWNERS: Array<Chunk<MapEntry>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The huge page that a task is about to put into another's memory, by the task's number modulo the size. Written by
/// `page_alloc` and `collapsed`, read by the latter. The value tells apart two tasks that share an entry.
#[map]
pub static COLLAPSES: Array<MapWord> = Array::with_max_entries(collapse::COLLAPSES, 0);

/// The files of the pages of one window, by page frame number modulo its size. Written by `control_file_pages`; read by
/// the user half, which runs that program and reads the result under a lock of its own, and sets its size at load.
#[map]
pub static FILE_PAGES: Array<FilePage<MapWord>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The last `struct page` that `learn` saw, for the user half, which loads that program alone.
#[map]
pub static LEARNT: Array<MapWord> = Array::with_max_entries(1, 0);

/// What the kernel charged for the tasks of a cgroup, by cgroup id. Written by the programs of `kernel_stock`; read by
/// the user half, which loads these alone and sets its size at load. When it is full, charges of other cgroups are
/// counted in `LOSS`.
#[map]
pub static KERNEL_STOCK: PerCpuHashMap<u64, KernelCharges<MapWord>> =
    PerCpuHashMap::with_max_entries(1, 0);

/// What the kernel's own stocks held on the CPU that was read last: those of pages, then those of bytes. Written by
/// `kernel_slots`, which the user half loads alone; it runs it on one CPU after the other and reads this after each.
#[map]
pub static KERNEL_SLOTS: Array<KernelSlot<MapWord>> =
    Array::with_max_entries(2 * MAX_KERNEL_SLOTS, 0);

/// While a cgroup is recorded, one block in this many is followed. Written by the user half, which loads the programs
/// of `record` alone; they read it.
#[map]
pub static FOLLOWED: Array<MapWord> = Array::with_max_entries(1, 0);

/// What was reported lately of the blocks that are followed ([`Recent`](memstock_common::record::Recent)), by bits of
/// their hash. Written and read by the programs of `record`; the user half sets its size at load.
#[map]
pub static RECENT: Array<MapWord> = Array::with_max_entries(1, 0);

/// What a recorded cgroup does, or an engine charges. Written by the programs of `record` or of `charged`; its size is
/// set at load. When it is full the record is dropped and counted in `LOSS`.
#[map]
pub static RECORDED: RingBuf = RingBuf::with_byte_size(4096, 0);

/// The page-owner map of the programs of `charged`, as `OWNERS` is the engine's. Written by them and, before they are
/// attached, by the user half, which loads them alone, sets its size at load and copies `OWNERS` into it.
#[map]
pub static CHARGED: Array<Chunk<MapEntry>> = Array::with_max_entries(1, 0);

/// One count for each [`Loss`]. Written by every program, read by the user half.
#[map]
pub static LOSS: PerCpuArray<MapWord> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// Events for the user half. Written by the probes that charge and by `cgroup_made`, `cgroup_removed`, `cpu_hotplug`
/// and `reclaim_began`; its size is set at load. When it is full the event is dropped and counted in `LOSS`.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// `charge`, for the tail call of `fault`. Written by the user half, once.
#[map]
pub static TAIL_CALLS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// What the engine was loaded with, for whoever opens the pins. Written by the user half, once, before anything is
/// attached; no program reads it.
#[map]
pub static ENGINE: Array<EngineInfo> = Array::with_max_entries(1, 0);

/// Changes whenever a cgroup becomes tracked or untracked, a task is born or a task is moved, which makes stale what
/// the CPUs remember of cgroups. Written by `control_register`, `control_close` and `bump_generation`, once for each
/// fork and each move; read at each fault, so its cache line is shared but seldom dirty.
pub static GENERATION: MapWord = MapWord::new(0);

/// The end of the lease: until when user space has promised to act on limits, ns since boot. Written by
/// `control_renew_lease`, read where a page is charged by force.
pub static LEASE_UNTIL: MapWord = MapWord::new(0);

/// Nonzero while limits of any cgroup are being set. Written and read by `control_limits`.
pub static SETTING: MapWord = MapWord::new(0);

/// 0, for [`World::opaque_zero`](memstock_common::World::opaque_zero). Never written.
pub static OPAQUE_ZERO: MapWord = MapWord::new(0);

/// When the user half was last told that reclaim began, ns since boot. Written and read by `reclaim_began`.
pub static RECLAIM_SENT_AT: MapWord = MapWord::new(0);
