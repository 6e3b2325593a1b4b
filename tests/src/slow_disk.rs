//! A disk that takes 1 MiB per second: ext4 on a loop device that the kernel throttles.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

/// The blkio throttle of all tasks.
const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";
const BYTES_A_SECOND: u64 = 1 << 20;
/// Size of the sparse image, so large that ext4 is sure of free space without writing (`ext4_nonda_switch`).
const SIZE: u64 = 16 << 30;

/// Mounted only for this thread and what it starts, so it goes with them. `Drop` removes the throttle.
#[derive(Debug)]
pub struct SlowDisk {
    dir: TempDir,
    device: String,
}

impl SlowDisk {
    /// Mounts it. The inner error is the reason why this host cannot throttle or mount a disk.
    ///
    /// # Errors
    /// When it cannot be made for another reason.
    pub fn mount() -> Result<Result<Self, String>> {
        if !Path::new(THROTTLE).exists() {
            return Ok(Err("there is no blkio controller of cgroup v1".into()));
        }
        let dir = tempfile::tempdir()?;
        let (image, point) = (dir.path().join("image"), dir.path().join("disk"));
        File::create(&image)?.set_len(SIZE)?;
        fs::create_dir(&point)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        // SAFETY: the thread gets its own mount namespace; it has no open file that this affects.
        if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNS) } {
            return Ok(Err(format!("mount namespaces: {error}")));
        }
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        if let Err(error) = run(Command::new("mount").args(["-o", "loop"]).args([&image, &point])) {
            return Ok(Err(format!("{error:#}")));
        }
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
        let point = point.display().to_string();
        let ours = |line: &&str| line.split(' ').nth(4) == Some(&point);
        let line = mounts.lines().find(ours).context("the disk is not mounted")?;
        let device = line.split(' ').nth(2).context("a device")?.to_owned();
        let disk = Self { dir, device };
        disk.throttle(BYTES_A_SECOND)?;
        Ok(Ok(disk))
    }

    /// A path on it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("disk").join(name)
    }

    fn throttle(&self, bytes_a_second: u64) -> Result<()> {
        fs::write(THROTTLE, format!("{} {bytes_a_second}", self.device)).context(THROTTLE)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let point = self.dir.path().join("disk");
        let fast = self.throttle(0);
        if let Err(error) = fast.and_then(|()| run(Command::new("umount").arg("--lazy").arg(point)))
        {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
