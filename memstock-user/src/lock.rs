//! Owns the lock that keeps a second engine from starting, and the answer to "who runs?". Must not
//! signal anybody: `stop` does that.
//!
//! The lock is a `flock` on a file, so the kernel gives it up when its holder dies, however it dies. The
//! file's text is only what the holder says about itself; it is believed when the kernel says, in that
//! process's `fdinfo`, that it has this very file locked.

use crate::exit::{Classify as _, Failure};
use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the lock file lives: writable by root only, and cleared at boot on most hosts.
pub const RUN_DIR: &str = "/run";
/// The lock file's name in [`RUN_DIR`].
pub const LOCK_FILE: &str = "memstock.lock";

/// How long the file may be locked without its holder's pid in it, or by somebody who only asks.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Held by the one engine of this host; dropping it gives the lock up and removes the file.
#[derive(Debug)]
pub struct EngineLock {
    file: File,
    path: PathBuf,
    noted_before: Option<u64>,
}

impl EngineLock {
    /// Takes the lock, or says who has it.
    ///
    /// # Errors
    ///
    /// [`Failure::Running`] when another process has it; otherwise when the file cannot be used.
    pub fn acquire() -> Result<Self> {
        Self::acquire_in(Path::new(RUN_DIR))
    }

    fn acquire_in(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK_FILE);
        let deadline = Instant::now() + SETTLE;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false) // it is not ours yet
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => match holder_in(dir) {
                    // It was somebody who only asked, or the holder is just gone.
                    Ok(None) if Instant::now() < deadline => {
                        sleep(PAUSE);
                        continue;
                    }
                    // Who it is may be unknown, in another PID namespace; that it runs is sure.
                    who => return Err(already_running(who.ok().flatten())),
                },
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // The former holder removes the file before it gives the lock up: what was locked may
            // have no name any more, and somebody else may be locking its successor.
            if is_at(&file, &path)? {
                let noted_before = noted_cgroup(&file, &path)?;
                let lock = Self { file, path, noted_before };
                lock.write_pid()?;
                return Ok(lock);
            }
        }
    }

    /// Notes the cgroup that was made for this engine, for whoever clears up if we cannot.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn note_cgroup(&self, id: u64) -> Result<()> {
        // Ids are given out anew after a boot, and not every /run is cleared by one.
        let note = format!("{id} {}\n", boot_id()?);
        (&self.file)
            .write_all(note.as_bytes())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// The id of the cgroup that a former holder made and, having died since the boot, did not remove.
    pub fn noted_before(&self) -> Option<u64> {
        self.noted_before
    }

    fn write_pid(&self) -> Result<()> {
        // Truncated first: a dead holder's longer number must not show through.
        self.file
            .set_len(0)
            .and_then(|()| (&self.file).rewind())
            .and_then(|()| (&self.file).write_all(format!("{}\n", std::process::id()).as_bytes()))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for EngineLock {
    fn drop(&mut self) {
        // Still locked, so nobody can have it under this name but us, unless somebody removed
        // it by hand and a new engine came; then it is theirs.
        if is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
        // Said outright: closing alone would leave it with a child that is between fork and exec.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// The pid of the running engine, `None` when none runs.
///
/// # Errors
///
/// When the lock file cannot be read, or is locked by a process that does not say which it is.
pub fn holder() -> Result<Option<u32>> {
    holder_in(Path::new(RUN_DIR))
}

fn holder_in(dir: &Path) -> Result<Option<u32>> {
    let path = dir.join(LOCK_FILE);
    let deadline = Instant::now() + SETTLE;
    loop {
        let mut file =
            match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file.with_context(|| format!("cannot open {}", path.display()))?,
            };
        let mut text = String::new();
        file.read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if let Ok(pid) = text.lines().next().unwrap_or_default().parse()
            && holds(pid, &file)
        {
            return Ok(Some(pid));
        }
        // Nobody who says so holds it. Asked last, as it takes the lock for an instant, which
        // `acquire` has to tolerate.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(None),
            // Locked a moment ago: the pid is not written yet, or a dead holder's is still there.
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => {
                bail!("{0} is locked by an unknown process: see \"fuser {0}\"", path.display())
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// Whether the process `pid` has `file` open and locked, by the kernel's word.
///
/// Not from `/proc/locks`: that list is read in pieces, and misses entries while others come and go.
fn holds(pid: u32, file: &File) -> bool {
    let (Ok(wanted), Ok(fds)) = (file.metadata(), fs::read_dir(format!("/proc/{pid}/fd"))) else {
        return false;
    };
    fds.flatten().any(|fd| {
        fs::metadata(fd.path())
            .is_ok_and(|open| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino()))
            && fs::read_to_string(Path::new(&format!("/proc/{pid}/fdinfo")).join(fd.file_name()))
                .is_ok_and(|info| has_exclusive_lock(&info))
    })
}

/// Reads `lock:\t1: FLOCK  ADVISORY  WRITE 1234 00:19:5678 0 EOF` in the text of a `fdinfo` file.
fn has_exclusive_lock(fdinfo: &str) -> bool {
    fdinfo.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next() == Some("lock:")
            && words.nth(1) == Some("FLOCK")
            && words.nth(1) == Some("WRITE")
    })
}

/// The second line of the file, after the pid: what the holder noted during this boot.
fn noted_cgroup(mut file: &File, path: &Path) -> Result<Option<u64>> {
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    let Some((id, boot)) = text.lines().nth(1).and_then(|note| note.split_once(' ')) else {
        return Ok(None);
    };
    Ok(id.parse().ok().filter(|_| boot_id().is_ok_and(|now| now == boot)))
}

fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    Ok(id.trim().to_owned())
}

fn already_running(pid: Option<u32>) -> anyhow::Error {
    let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    Failure::Running
        .error(format!("an engine is already running{who}: stop it with \"memstock stop\""))
}

fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().with_context(|| format!("cannot stat {}", path.display()))?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        error => error
            .map(|_| false)
            .classify(Failure::Other, || format!("cannot stat {}", path.display())),
    }
}

#[cfg(test)]
mod tests;
