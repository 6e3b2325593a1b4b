//! Takes a CPU offline, and brings it back whatever happens to the test.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::poll::{SOON, poll_until};

/// A CPU that is offline until this is dropped.
#[derive(Debug)]
pub struct CpuOffline {
    file: PathBuf,
}

fn online_file(cpu: u32) -> PathBuf {
    format!("/sys/devices/system/cpu/cpu{cpu}/online").into()
}

/// Whether the CPU can be taken offline here. The boot CPU usually cannot.
pub fn can_go_offline(cpu: u32) -> bool {
    online_file(cpu).exists()
}

impl CpuOffline {
    /// Takes a CPU offline and waits until it is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(cpu: u32) -> Result<Self> {
        let guard = Self { file: online_file(cpu) };
        guard.set("0")?;
        Ok(guard)
    }

    /// Brings it back online and waits until it is.
    ///
    /// # Errors
    /// When the kernel does not start it.
    pub fn back(self) -> Result<()> {
        self.set("1")
    }

    fn set(&self, state: &str) -> Result<()> {
        let file = self.file.display();
        if self.is(state) {
            return Ok(());
        }
        fs::write(&self.file, state).with_context(|| format!("writing {state} to {file}"))?;
        poll_until(SOON, &format!("{state} in {file}"), || self.is(state).then_some(()))
    }

    fn is(&self, state: &str) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|text| text.trim() == state)
    }
}

impl Drop for CpuOffline {
    fn drop(&mut self) {
        if let Err(error) = self.set("1") {
            eprintln!("a CPU stays offline: {error:#}");
        }
    }
}
