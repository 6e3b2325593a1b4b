//! A task that faults on command: `memstock-workload serve` inside a cgroup.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, setpriority_process};

use crate::binaries;
use crate::cgroup::TestCgroup;
use crate::dialogue::WorkloadProcess;
use crate::kernel_cgroup::KernelCgroup;
use crate::poll::SOON;
use crate::workload::cpus::pin_process;

/// A `memstock-workload serve` that waits for a command. Killed and reaped on `Drop`.
#[derive(Debug)]
pub struct Task(WorkloadProcess);

impl Task {
    /// Starts a task in `cgroup`, on `cpu` if given, and waits until it serves.
    ///
    /// Its start-up faults are then over: from here to `Drop` it faults only on command.
    ///
    /// # Errors
    /// When it cannot be started there.
    pub fn start(cgroup: &TestCgroup, cpu: Option<u32>) -> Result<Self> {
        Self::spawn(cpu, |command| enter(command, cgroup))
    }

    /// Starts a task in `cgroup` and, for the kernel's own accounting, in `kernel`.
    ///
    /// # Errors
    /// When it cannot be started there.
    pub fn start_in_both(
        cgroup: &TestCgroup,
        kernel: &KernelCgroup,
        cpu: Option<u32>,
    ) -> Result<Self> {
        Self::spawn(cpu, |command| enter_both(command, cgroup, kernel))
    }

    /// Starts a task in the cgroup of the test process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_outside(cpu: Option<u32>) -> Result<Self> {
        Self::spawn(cpu, |_| Ok(()))
    }

    fn spawn(cpu: Option<u32>, enter: impl FnOnce(&mut Command) -> Result<()>) -> Result<Self> {
        let mut command = Command::new(binaries::workload()?);
        command.arg("serve");
        if let Some(cpu) = cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        enter(&mut command)?;
        let mut task = Self(WorkloadProcess::start(command)?);
        task.ask("faults")?;
        Ok(task)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Pins it to `cpu`. The kernel lets it run elsewhere when that CPU goes offline.
    ///
    /// # Errors
    /// When it is gone, or the CPU is offline.
    pub fn keep_on(&self, cpu: u32) -> Result<()> {
        pin_process(self.id(), cpu)
    }

    /// Gives it the highest priority (nice -20), so that it runs as soon as it has something to do.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn prefer(&self) -> Result<()> {
        let pid = Pid::from_raw(self.id().cast_signed());
        setpriority_process(pid, -20).context("the priority of a task")
    }

    /// Sends one command line and waits for the one reply line, `ok …`.
    ///
    /// # Errors
    /// When it replies anything else, or not in time.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        let reply = self.0.ask(command, SOON)?;
        ensure!(reply.starts_with("ok"), "the workload cannot {command}: {reply}");
        Ok(reply)
    }

    /// Makes it touch `nr_pages` fresh pages. Returns the faults that the kernel counted for the touching alone.
    ///
    /// # Errors
    /// When it cannot.
    pub fn touch(&mut self, nr_pages: u64) -> Result<u64> {
        let reply = self.ask(&format!("touch {nr_pages}"))?;
        number(&reply, "minflt=")
    }

    /// Makes it map, touch and unmap pages until [`Task::pause`].
    ///
    /// # Errors
    /// When it cannot.
    pub fn churn(&mut self) -> Result<()> {
        self.ask("churn").map(drop)
    }

    /// Ends [`Task::churn`], waits until it has stopped, and returns the rounds it made.
    ///
    /// # Errors
    /// When it cannot.
    pub fn pause(&mut self) -> Result<u64> {
        let reply = self.ask("stop")?;
        number(&reply, "rounds=")
    }

    /// All its faults so far, from `/proc/PID/stat`, without disturbing it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn faults(&self) -> Result<u64> {
        faults_of(self.id())
    }
}

/// Minor and major faults of a process from `/proc/PID/stat`, its ended threads included.
///
/// # Errors
/// When it is gone.
pub fn faults_of(pid: u32) -> Result<u64> {
    let fields = stat(pid)?;
    // proc_pid_stat(5) counts from 1, and `fields` start at field 3: minflt is 10, majflt is 12.
    let field = |number: usize| -> Result<u64> {
        let field = fields.get(number - 3).context("a short /proc/PID/stat")?;
        Ok(field.parse()?)
    };
    Ok(field(10)? + field(12)?)
}

/// Whether a process has ended and waits to be reaped. Its figures are then final.
///
/// # Errors
/// When it is gone.
pub fn is_zombie(pid: u32) -> Result<bool> {
    Ok(stat(pid)?.first().is_some_and(|state| state == "Z"))
}

/// The fields of `/proc/PID/stat` after the name, from field 3.
fn stat(pid: u32) -> Result<Vec<String>> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).context(file)?;
    // The name is in parentheses and may contain anything, even parentheses.
    let (_, rest) = text.rsplit_once(") ").context("/proc/PID/stat without a name")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// Makes `command` enter `cgroup` before its `exec`.
///
/// # Errors
/// When the cgroup's file cannot be opened.
pub fn enter(command: &mut Command, cgroup: &TestCgroup) -> Result<()> {
    enter_dir(command, cgroup.dir())
}

/// Makes `command` enter `cgroup` and `kernel` before its `exec`.
///
/// It enters the kernel's first: what the task is charged between the two moves is then missing in ours, and it is
/// only kernel memory for the move.
///
/// # Errors
/// When a cgroup's file cannot be opened.
pub fn enter_both(command: &mut Command, cgroup: &TestCgroup, kernel: &KernelCgroup) -> Result<()> {
    enter_dir(command, kernel.dir())?;
    enter_dir(command, cgroup.dir())
}

/// [`enter`] for a cgroup of any hierarchy, by its folder. The cgroups of several calls are entered in order.
///
/// # Errors
/// When the cgroup's file cannot be opened.
pub fn enter_dir(command: &mut Command, dir: &Path) -> Result<()> {
    let file = dir.join("cgroup.procs");
    let procs: File = OpenOptions::new()
        .write(true)
        .open(&file)
        .with_context(|| format!("opening {}", file.display()))?;
    // SAFETY: between fork and exec only write(2) runs, on memory that is there already; it is
    // async-signal-safe. "0" is the writing process itself (cgroups(7)).
    unsafe {
        command.pre_exec(move || match libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) {
            1 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    Ok(())
}

fn number(reply: &str, key: &str) -> Result<u64> {
    let value = reply.split_whitespace().find_map(|word| word.strip_prefix(key));
    Ok(value.with_context(|| format!("no {key} in the reply {reply}"))?.parse()?)
}
