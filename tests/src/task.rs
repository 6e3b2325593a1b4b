//! A task that faults on command: `memstock-workload serve` inside a cgroup.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::binaries;
use crate::cgroup::TestCgroup;
use crate::poll::{SOON, poll_until};

/// A `memstock-workload serve` that waits for a command. Killed and reaped on `Drop`.
#[derive(Debug)]
pub struct Task {
    child: Child,
    commands: ChildStdin,
    replies: ChildStdout,
}

impl Task {
    /// Starts one in `cgroup`, on `cpu` if it is given, and waits until it serves.
    ///
    /// Its own start-up faults are over then: from here to `Drop` it faults on command only.
    ///
    /// # Errors
    /// When it cannot be started there.
    pub fn start(cgroup: &TestCgroup, cpu: Option<u32>) -> Result<Self> {
        Self::spawn(Some(cgroup), cpu)
    }

    /// Starts one in the cgroup of the test.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_outside(cpu: Option<u32>) -> Result<Self> {
        Self::spawn(None, cpu)
    }

    fn spawn(cgroup: Option<&TestCgroup>, cpu: Option<u32>) -> Result<Self> {
        let mut command = Command::new(binaries::workload()?);
        command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(cpu) = cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        if let Some(cgroup) = cgroup {
            enter(&mut command, cgroup)?;
        }
        let mut child = command.spawn().context("starting memstock-workload")?;
        let (Some(commands), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("both ends were asked to be pipes");
        };
        let mut task = Self { child, commands, replies };
        task.ask("faults")?;
        Ok(task)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends one command line and waits for the one reply line, `ok …`.
    ///
    /// # Errors
    /// When it replies anything else, or not in time.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.commands
            .write_all(format!("{command}\n").as_bytes())
            .with_context(|| format!("telling the workload to {command}"))?;
        let reply = self.reply().with_context(|| format!("the workload's reply to {command}"))?;
        ensure!(reply.starts_with("ok"), "the workload cannot {command}: {reply}");
        Ok(reply)
    }

    fn reply(&mut self) -> Result<String> {
        let end = Instant::now() + SOON;
        let mut line = Vec::new();
        loop {
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
            let mut fds = [PollFd::new(&self.replies, PollFlags::IN)];
            ensure!(poll(&mut fds, Some(&left))? > 0, "none within {SOON:?}");
            let mut bytes = [0; 128];
            let count = self.replies.read(&mut bytes)?;
            ensure!(count > 0, "it has ended");
            line.extend_from_slice(&bytes[..count]);
            if line.ends_with(b"\n") {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }

    /// Has it map and touch `nr_pages` fresh pages; the faults that the kernel counted for the
    /// touching alone.
    ///
    /// # Errors
    /// When it cannot.
    pub fn touch(&mut self, nr_pages: u64) -> Result<u64> {
        let reply = self.ask(&format!("touch {nr_pages}"))?;
        number(&reply, "minflt=")
    }

    /// Has it map, touch and unmap pages until [`Task::pause`].
    ///
    /// # Errors
    /// When it cannot.
    pub fn churn(&mut self) -> Result<()> {
        self.ask("churn").map(drop)
    }

    /// Ends [`Task::churn`]; returns when it waits again, with the rounds it made.
    ///
    /// # Errors
    /// When it cannot.
    pub fn pause(&mut self) -> Result<u64> {
        let reply = self.ask("stop")?;
        number(&reply, "rounds=")
    }

    /// All faults of its life by `/proc/PID/stat`: asking does not disturb it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn faults(&self) -> Result<u64> {
        faults_of(self.id())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let what = "the end of a workload";
        if let Err(error) = poll_until(SOON, what, || self.child.try_wait().transpose()) {
            eprintln!("{error:#}");
        }
    }
}

/// Minor and major faults of a process by `/proc/PID/stat`, its ended threads included.
///
/// # Errors
/// When it is gone.
pub fn faults_of(pid: u32) -> Result<u64> {
    let fields = stat(pid)?;
    // proc_pid_stat(5) counts from 1 and these start at field 3: minflt is 10, majflt is 12.
    let field = |number: usize| -> Result<u64> {
        let field = fields.get(number - 3).context("a short /proc/PID/stat")?;
        Ok(field.parse()?)
    };
    Ok(field(10)? + field(12)?)
}

/// Whether a process has ended and waits to be reaped. Its figures stand then.
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
    // The name is in brackets and may hold anything, brackets too.
    let (_, rest) = text.rsplit_once(") ").context("/proc/PID/stat without a name")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// Has `command` run inside `cgroup` from before its `exec`.
///
/// # Errors
/// When the cgroup's file cannot be opened.
pub fn enter(command: &mut Command, cgroup: &TestCgroup) -> Result<()> {
    let file = cgroup.dir().join("cgroup.procs");
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
