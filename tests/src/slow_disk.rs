//! A disk that takes no more than a MiB a second: ext4 on a loop device that the kernel throttles.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

/// Of `blkio`, for all tasks.
const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";
const BYTES_A_SECOND: u64 = 1 << 20;
/// Made of holes, and so large that ext4 need not write to know whether there is room (`ext4_nonda_switch`).
const SIZE: u64 = 16 << 30;

/// Mounted for this thread and what it starts, so that it is gone with them. As fast as it is when this is dropped.
#[derive(Debug)]
pub struct SlowDisk {
    dir: TempDir,
    device: String,
}

impl SlowDisk {
    /// None where the kernel throttles no disk, or this thread may not mount one; then with the reason.
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
        // SAFETY: no file is open in this thread that others would see differently then.
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
