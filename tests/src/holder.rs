//! A process that holds memory on command: `memstock-workload hold` inside cgroups.

use std::fs::{self, File};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::binaries;
use crate::cgroup::TestCgroup;
use crate::dialogue::WorkloadProcess;
use crate::kernel_cgroup::KernelCgroup;
use crate::lru;
use crate::poll::SOON;
use crate::task::enter_dir;
pub use crate::workload::hold::Unavailable;
use crate::workload::hold::{Mode, Place, fill, remove_segment};

/// Pages per second of the slowest mode (copying on a disk), at least.
const PAGES_PER_SECOND: u64 = 4096;

const MEMORY: &str = "/dev/shm";

/// Builder for a [`Holder`].
#[derive(Debug)]
pub struct HolderBuilder<'a> {
    mode: Mode,
    pages: u32,
    cpu: Option<u32>,
    cgroup: Option<&'a TestCgroup>,
    kernel: Option<&'a KernelCgroup>,
}

impl<'a> HolderBuilder<'a> {
    /// Sets the number of pages; 400 by default.
    pub fn pages(self, pages: u32) -> Self {
        Self { pages, ..self }
    }

    /// Pins it to this CPU.
    pub fn cpu(self, cpu: u32) -> Self {
        Self { cpu: Some(cpu), ..self }
    }

    /// Starts it in this cgroup.
    pub fn cgroup(self, cgroup: &'a TestCgroup) -> Self {
        Self { cgroup: Some(cgroup), ..self }
    }

    /// Also starts it in this cgroup of the kernel's own controller.
    pub fn kernel(self, kernel: &'a KernelCgroup) -> Self {
        Self { kernel: Some(kernel), ..self }
    }

    /// Starts it, and waits until it is ready to get its memory.
    ///
    /// # Errors
    /// When it cannot be started there.
    pub fn start(self) -> Result<Holder> {
        let Self { mode, pages, cpu, cgroup, kernel } = self;
        let dir = folder(mode).context("a folder for its files")?;
        let mut command = Command::new(binaries::workload()?);
        command.args(["hold", &mode.name(), "--pages", &pages.to_string()]);
        if let Some(cpu) = cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        if let Some(dir) = &dir {
            command.arg("--dir").arg(dir.path());
            if mode.wants_file() {
                let path = dir.path().join("cached");
                fill(&File::create_new(&path)?, pages.try_into()?)?;
                command.arg("--file").arg(path);
            }
        }
        // The kernel's first: see `task::enter_both`.
        if let Some(kernel) = kernel {
            enter_dir(&mut command, kernel.dir())?;
        }
        if let Some(cgroup) = cgroup {
            enter_dir(&mut command, cgroup.dir())?;
        }
        if mode == Mode::ExecStorm {
            // Reads the program that it runs into the page cache, as `WorkloadProcess` does for the workload itself.
            Command::new("true").status().context("starting `true`")?;
        }
        let mut dialogue = WorkloadProcess::start(command)?;
        let said = dialogue.hear(SOON).context("the start of the workload")?;
        ensure!(said == "ready", "the workload cannot start: {said}");
        let patience = SOON + Duration::from_secs(u64::from(pages) / PAGES_PER_SECOND);
        let id = dialogue.id();
        Ok(Holder { dialogue, _segments: Segments { mode, id }, _dir: dir, patience })
    }
}

/// Makes a folder for the files of a mode.
fn folder(mode: Mode) -> Result<Option<TempDir>> {
    let dir = match mode.place() {
        Place::Memory => MEMORY,
        // By the Filesystem Hierarchy Standard it survives a reboot, so it is on a disk.
        Place::Disk => "/var/tmp",
        Place::Nowhere if mode.wants_file() => "/var/tmp",
        Place::Nowhere => return Ok(None),
    };
    Ok(Some(tempfile::Builder::new().prefix("memstock-test-").tempdir_in(dir)?))
}

/// A `memstock-workload hold` that waits for a command. `Drop` kills and reaps it, and then removes
/// its files and System V segments.
#[derive(Debug)]
pub struct Holder {
    // Dropped in this order: the process must be dead first.
    dialogue: WorkloadProcess,
    _segments: Segments,
    _dir: Option<TempDir>,
    patience: Duration,
}

impl Holder {
    /// A builder for a holder of this mode. By default it gets 400 pages, in the test's cgroup, on any CPU.
    pub fn of<'a>(mode: Mode) -> HolderBuilder<'a> {
        HolderBuilder { mode, pages: 400, cpu: None, cgroup: None, kernel: None }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.dialogue.id()
    }

    /// Makes it get its memory. Returns the pages that a controller should charge for that (user pages, or kernel pages
    /// for [`Mode::Pipe`]).
    ///
    /// # Errors
    /// When it cannot; [`Unavailable`] if the host lacks something.
    pub fn get(&mut self) -> Result<u64> {
        let reply = self.ask("get")?;
        let pages = reply.strip_prefix("ok pages=").with_context(|| format!("reply {reply}"))?;
        pages.parse().with_context(|| format!("reply {reply}"))
    }

    /// Makes it give back all that it got.
    ///
    /// # Errors
    /// When it cannot.
    pub fn give(&mut self) -> Result<()> {
        self.ask("give").map(drop)
    }

    /// Makes it give back what it holds, and exit.
    ///
    /// # Errors
    /// When it cannot, or fails.
    pub fn exit(mut self) -> Result<()> {
        self.ask("exit")?;
        let status = self.dialogue.wait()?;
        ensure!(status.success(), "the workload: {status}");
        lru::drain()
    }

    /// Kills it with SIGKILL, whatever it holds, and waits until it has ended. Its files exist until `Drop`.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.dialogue.kill()?;
        let status = self.dialogue.wait()?;
        lru::drain()?;
        Ok(status)
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        let reply = self.dialogue.ask(command, self.patience)?;
        if let Some(reason) = reply.strip_prefix("unavailable: ") {
            return Err(Unavailable(reason.to_owned()).into());
        }
        ensure!(reply.starts_with("ok"), "the workload cannot {command}: {reply}");
        // Pages that it gave back must not linger in the LRU batches.
        lru::drain()?;
        Ok(reply)
    }
}

/// The System V segments that a process made, which outlive it. `Drop` removes them.
#[derive(Debug)]
struct Segments {
    mode: Mode,
    id: u32,
}

impl Drop for Segments {
    fn drop(&mut self) {
        if self.mode != Mode::SysvShm {
            return;
        }
        // proc_sysvipc(5): key, shmid, perms, size, cpid, …
        for line in fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default().lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields.get(4).is_some_and(|creator| *creator == self.id.to_string())
                && let Some(Ok(segment)) = fields.get(1).map(|id| id.parse())
                && let Err(error) = remove_segment(segment)
            {
                eprintln!("the System V segment {segment}: {error}");
            }
        }
    }
}
