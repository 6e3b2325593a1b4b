//! A process that has some memory and then wants more (`memstock-workload grow`), and a FUSE file system for it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::binaries;
use crate::cgroup::TestCgroup;
use crate::dialogue::WorkloadProcess;
use crate::poll::SOON;
use crate::task::enter_dir;
use crate::workload::grow::Order;

/// A `memstock-workload grow` that has its first memory. Killed and reaped on `Drop`.
#[derive(Debug)]
pub struct Grower(WorkloadProcess);

impl Grower {
    /// Starts it in `cgroup`.
    ///
    /// # Errors
    /// When it cannot get its first memory.
    pub fn start(cgroup: &TestCgroup, order: &Order) -> Result<Self> {
        let mut command = Command::new(binaries::workload()?);
        let Order { first, more, leaderless, lazyfree, mounts_of, reads, waits_for, maps, adj } =
            order;
        command.args(["grow", "--first", &first.to_string(), "--more", &more.to_string()]);
        for (flag, wanted) in [("--leaderless", leaderless), ("--lazyfree", lazyfree)] {
            command.args(wanted.then_some(flag));
        }
        for (flag, path) in [("--reads", reads), ("--waits-for", waits_for), ("--maps", maps)] {
            if let Some(path) = path {
                command.arg(flag).arg(path);
            }
        }
        if let Some(pid) = mounts_of {
            command.args(["--mounts-of", &pid.to_string()]);
        }
        if let Some(adj) = adj {
            command.args(["--adj", &adj.to_string()]);
        }
        enter_dir(&mut command, cgroup.dir())?;
        let mut dialogue = WorkloadProcess::start(command)?;
        let said = dialogue.hear(SOON).context("a process with its first memory")?;
        ensure!(said == "ready", "it said {said}");
        Ok(Self(dialogue))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to allocate more. Returns whether it succeeded; false also if it was killed.
    pub fn grow(&mut self) -> bool {
        self.0.ask("grow", SOON).is_ok_and(|said| said == "ok")
    }

    /// Asks it to allocate more, and does not wait.
    ///
    /// # Errors
    /// When it has ended.
    pub fn begin_to_grow(&mut self) -> Result<()> {
        self.0.tell("grow")
    }

    /// Whether it is still running.
    pub fn lives(&mut self) -> bool {
        self.0.status().is_ok_and(|status| status.is_none())
    }

    /// Waits until it is killed by SIGKILL.
    ///
    /// # Errors
    /// When it is not in time, or ends by itself.
    pub fn was_killed(&mut self) -> Result<()> {
        let status = self.0.wait().context("the end of a process that wants more")?;
        ensure!(status.signal() == Some(9), "it was not killed: {status}");
        Ok(())
    }
}

/// A FUSE file system. `Drop` kills its server, which unmounts it.
#[derive(Debug)]
pub struct FuseServer {
    server: WorkloadProcess,
    dir: TempDir,
}

impl FuseServer {
    /// Starts its server, in `cgroup` or outside the tests' cgroups. A `silent` one never answers a read. `None` if
    /// there is no FUSE.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(cgroup: Option<&TestCgroup>, silent: bool) -> Result<Option<Self>> {
        if !Path::new("/dev/fuse").exists() {
            return Ok(None);
        }
        let dir = tempfile::Builder::new().prefix("memstock-test-").tempdir()?;
        let mut command = Command::new(binaries::workload()?);
        command.arg("fuse").arg(dir.path()).args(silent.then_some("--silent"));
        if let Some(cgroup) = cgroup {
            enter_dir(&mut command, cgroup.dir())?;
        }
        let mut server = WorkloadProcess::start(command)?;
        let said = server.hear(SOON).context("a file system in user space")?;
        ensure!(said == "ready", "it said {said}");
        Ok(Some(Self { server, dir }))
    }

    /// Its server's process id.
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// The path of its file in the server's mount namespace.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("file")
    }

    /// Whether its server is still running.
    pub fn lives(&mut self) -> bool {
        self.server.status().is_ok_and(|status| status.is_none())
    }
}

/// Pages of private memory that a process has; `None` when it has no memory any more.
pub fn resident_pages(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024 / crate::PAGE)
}
