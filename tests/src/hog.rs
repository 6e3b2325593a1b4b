//! A process that takes more memory than it may have: `memstock-workload hog` inside cgroups.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};

use crate::cgroup::TestCgroup;
use crate::dialogue::WorkloadProcess;
use crate::kernel_cgroup::KernelCgroup;
use crate::poll::SOON;
use crate::task::enter_dir;
use crate::{PAGE, binaries};

/// Builder for a [`Hog`].
#[derive(Debug, Default)]
pub struct HogBuilder<'a> {
    pages: u64,
    file: Option<&'a Path>,
    cpu: Option<u32>,
    kernel: Option<&'a KernelCgroup>,
    catch_term: bool,
}

impl<'a> HogBuilder<'a> {
    /// Sets the number of pages that it takes.
    pub fn pages(nr_pages: u64) -> Self {
        Self { pages: nr_pages, ..Self::default() }
    }

    /// Makes it write the pages to this file, instead of private memory.
    pub fn file(self, file: &'a Path) -> Self {
        Self { file: Some(file), ..self }
    }

    /// Pins it to this CPU.
    pub fn cpu(self, cpu: u32) -> Self {
        Self { cpu: Some(cpu), ..self }
    }

    /// Also starts it in this cgroup of the kernel's own controller.
    pub fn kernel(self, kernel: Option<&'a KernelCgroup>) -> Self {
        Self { kernel, ..self }
    }

    /// Makes it ignore SIGTERM.
    pub fn catching_term(self) -> Self {
        Self { catch_term: true, ..self }
    }

    /// Starts it in `cgroup`.
    ///
    /// # Errors
    /// When it cannot be started there.
    pub fn start(self, cgroup: &TestCgroup) -> Result<Hog> {
        let mut command = Command::new(binaries::workload()?);
        command.args(["hog", "--pages", &self.pages.to_string()]);
        if let Some(file) = self.file {
            command.arg("--file").arg(file);
        }
        if let Some(cpu) = self.cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        if self.catch_term {
            command.arg("--catch-term");
        }
        if let Some(kernel) = self.kernel {
            enter_dir(&mut command, kernel.dir())?;
        }
        enter_dir(&mut command, cgroup.dir())?;
        Ok(Hog(WorkloadProcess::start(command)?))
    }
}

/// A running hog. Killed and reaped on `Drop`.
#[derive(Debug)]
pub struct Hog(WorkloadProcess);

impl Hog {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has all the memory that it wanted.
    ///
    /// # Errors
    /// When it has not in time.
    pub fn has_all(&mut self) -> Result<()> {
        let said = self.0.hear(3 * SOON).context("a hog with all that it wanted")?;
        ensure!(said == "done", "a hog said {said}");
        Ok(())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.0.status()
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
        let status = self.0.wait().context("the end of a hog")?;
        ensure!(status.signal() == Some(9), "a hog was not killed: {status}");
        Ok(())
    }
}

/// `nr_pages` in bytes, as an argument of `--limit`.
pub fn size(nr_pages: u64) -> String {
    (nr_pages * PAGE).to_string()
}
