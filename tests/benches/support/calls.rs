//! Runs programs by `BPF_PROG_TEST_RUN` with the arguments that the tracepoints would pass, at a far lower background
//! cost than a page fault. A call costs some hundred ns and hardly varies, so differences of a few ns are visible.
//! Knows nothing of what is compared.
//!
//! The kernel runs a raw tracepoint program once per call, on the CPU of the caller.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _};
use memstock::host::cgroup::{Cgroup, CgroupMount, OwnedCgroup};
use memstock::host::mapping::Mapping;
use memstock::host::pages::{Layout, own_pfn};
use memstock_tests::bench::slices::{Paired, interleave};
use memstock_tests::cgroup::OF_BENCH;
use memstock_tests::workload::cpus::{on, pin};
use rustix::time::{ClockId, clock_gettime};

/// Arguments of a raw tracepoint program.
pub type Args = [u64; 12];

/// One program with its arguments.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The program.
    pub program: &'a RawTracePoint,
    /// The tracepoint's arguments.
    pub args: Arguments,
}

/// The arguments of a tracepoint, apart from the caller's own page and registers.
#[derive(Clone, Copy)]
pub enum Arguments {
    /// A page fault in user mode.
    Fault,
    /// The allocation of a page that the kernel charges.
    Alloc,
    /// The free of a page.
    Free,
    /// No arguments.
    None,
}

/// A calling task, with its own page and its own (fake) registers.
struct Caller {
    page: u64,
    registers: u64,
    user: u64,
    _mapping: Mapping,
}

impl Caller {
    fn new(number: u64, pages: (u64, u64)) -> Result<Self> {
        let mapping = Mapping::new(1)?;
        let pfn = own_pfn(mapping.touch(0))?;
        let (base, size) = pages;
        Ok(Self {
            page: base.wrapping_add(pfn * size),
            // Any value that differs between callers.
            registers: 0xffff_c900_0000_0000 + (number << 14),
            user: u64::from(Layout::read()?.gfp.user),
            _mapping: mapping,
        })
    }

    fn args(&self, arguments: Arguments) -> Args {
        // User mode, write access, page not present (`enum x86_pf_error_code`).
        const USER_WRITE: u64 = 1 << 2 | 1 << 1;
        let mut args = [0; 12];
        match arguments {
            Arguments::Fault => args[..3].copy_from_slice(&[0x1000, self.registers, USER_WRITE]),
            Arguments::Alloc => args[..3].copy_from_slice(&[self.page, 0, self.user]),
            Arguments::Free => args[0] = self.page,
            Arguments::None => {}
        }
        args
    }

    /// Runs a sequence for `length`. Returns ns per sequence.
    fn slice(&self, sequence: &[Call<'_>], length: Duration) -> Result<f64> {
        let calls: Vec<_> =
            sequence.iter().map(|call| (call.program, self.args(call.args))).collect();
        // CPU time, without the time that other tasks take of the CPU.
        let (start, mut done) = (cpu_time(), 0_u64);
        loop {
            for _ in 0..64 {
                for &(program, args) in &calls {
                    program.test_run(RawTracePointRunOptions { args, cpu: None })?;
                }
            }
            done += 64;
            let took = cpu_time() - start;
            if took >= length {
                return Ok(took.as_nanos() as f64 / done as f64);
            }
        }
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Measures sequences in turns against the first one, in ns per sequence, on one CPU while the others of `cpus` run the
/// same sequence.
pub fn compare(
    sequences: &[Vec<Call<'_>>],
    pages: (u64, u64),
    cpus: &[u32],
    rounds: usize,
    slice: Duration,
) -> Result<Vec<Vec<Paired<f64>>>> {
    let current = &AtomicUsize::new(0);
    let (first, others) = cpus.split_first().context("no CPU")?;
    std::thread::scope(|scope| {
        let others: Vec<_> = others
            .iter()
            .map(|&cpu| scope.spawn(move || busy(sequences, pages, cpu, current)))
            .collect();
        let measured = on(*first, || {
            let caller = Caller::new(1, pages)?;
            interleave(rounds, sequences.len(), |variant| {
                let n = variant.unwrap_or(0);
                current.store(n, SeqCst);
                // Until the others have switched, and stocks and caches are warm.
                caller.slice(&sequences[n], slice / 5)?;
                caller.slice(&sequences[n], slice)
            })
        });
        current.store(END, SeqCst);
        for other in others {
            other.join().map_err(|_| anyhow::anyhow!("a busy thread has died"))??;
        }
        measured
    })
}

/// Instead of a sequence's number: tells [`busy`] to end.
pub const END: usize = usize::MAX;

/// Runs the sequence numbered `current` on a CPU, until that is [`END`].
pub fn busy(
    sequences: &[Vec<Call<'_>>],
    pages: (u64, u64),
    cpu: u32,
    current: &AtomicUsize,
) -> Result<()> {
    pin(cpu)?;
    let caller = Caller::new(u64::from(cpu) + 2, pages)?;
    loop {
        match current.load(SeqCst) {
            END => return Ok(()),
            n => caller.slice(&sequences[n], Duration::from_micros(100)).map(drop)?,
        }
    }
}

/// A chain of cgroups with this process in the last. `Drop` moves it back and removes them.
pub struct Home {
    mount: CgroupMount,
    top: Option<OwnedCgroup>,
    before: PathBuf,
    /// The cgroups from the top, which is below the root, to the one the process is in.
    pub chain: Vec<Cgroup>,
}

impl Home {
    /// Makes a chain of cgroups and enters the last.
    pub fn enter(levels: usize) -> Result<Self> {
        let mount = CgroupMount::find()?;
        let text = std::fs::read_to_string("/proc/self/cgroup")?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = mount.dir().join(path.context("no cgroup v2")?);
        let top = mount.create(OF_BENCH)?;
        let mut home = Self { mount, chain: vec![top.cgroup().clone()], top: Some(top), before };
        for level in 2..=levels {
            let above = home.chain.last().context("the top is there")?;
            let path = above.path.join(level.to_string());
            std::fs::create_dir(above.dir.join(level.to_string()))?;
            home.chain.push(home.mount.resolve(path)?);
        }
        let last = home.chain.last().context("the top is there")?;
        std::fs::write(last.dir.join("cgroup.procs"), "0").context("cannot enter the cgroup")?;
        Ok(home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(self.before.join("cgroup.procs"), "0") {
            eprintln!("cannot leave the cgroup: {error}");
        }
        if let Some(Err(error)) = self.top.take().map(OwnedCgroup::remove) {
            eprintln!("{error:#}");
        }
    }
}
