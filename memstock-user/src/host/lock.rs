//! Owns the lock that keeps a second engine from starting, and finds its holder. Must not signal anybody: `stop` does
//! that.
//!
//! The lock is a `flock` on a file, so the kernel releases it when its holder dies, however it dies. The file's text is
//! only the holder's claim; it counts if that process's `fdinfo` shows that it has this very file locked. Only root may
//! read the file: whoever can read a file can lock it, and keep every engine from starting.
//!
//! The file also notes cgroups that engines made and that still have to be removed; holders pass the notes on until the
//! cgroups are gone.

use crate::exit::{Classify as _, Failure};
use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the lock file lives: writable by root only, and cleared at boot on most hosts.
pub const RUN_DIR: &str = "/run";
/// The lock file's name in [`RUN_DIR`].
pub const LOCK_FILE: &str = "memstock.lock";

/// How long the file may be locked without its holder's pid in it, or by a process that only looks for the holder.
const GRACE: Duration = Duration::from_millis(200);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// Held by the one engine of this host; dropping it releases the lock, and removes the file unless a cgroup is noted in
/// it.
#[derive(Debug)]
pub struct EngineLock {
    file: File,
    path: PathBuf,
    noted: Vec<u64>,
    making: Option<PathBuf>,
}

impl EngineLock {
    /// Takes the lock, or reports who has it.
    ///
    /// # Errors
    ///
    /// [`Failure::Running`] when another process has it; otherwise when the file cannot be used.
    pub fn acquire() -> Result<Self> {
        Self::acquire_in(Path::new(RUN_DIR))
    }

    fn acquire_in(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK_FILE);
        let deadline = Instant::now() + GRACE;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false) // it is not ours yet
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            // An older version may have left it readable, and so lockable by others.
            file.set_permissions(Permissions::from_mode(0o600))
                .with_context(|| format!("cannot change {}", path.display()))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => match holder_in(dir) {
                    // Another process only looked for the holder, or the holder has just gone.
                    Ok(None) if Instant::now() < deadline => {
                        sleep(PAUSE);
                        continue;
                    }
                    // The holder may be unknown (in another PID namespace), but it certainly runs.
                    who => return Err(already_running(who.ok().flatten())),
                },
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // The former holder removes the file before it releases the lock: the file that we locked may have been
            // removed, and another process may be locking its successor.
            if is_at(&file, &path)? {
                let (noted, making) = notes(&file, &path)?;
                let lock = Self { file, path, noted, making };
                lock.write()?;
                return Ok(lock);
            }
        }
    }

    /// Notes that a cgroup is about to be made for this engine. (If its path is not UTF-8, it is noted only once it is
    /// made.)
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn note_making(&mut self, path: &Path) -> Result<()> {
        self.making = Some(path.to_path_buf());
        self.write()
    }

    /// The cgroup that a former holder was about to make when it died.
    pub fn making(&self) -> Option<&Path> {
        self.making.as_deref()
    }

    /// Whether anything is noted.
    pub fn has_notes(&self) -> bool {
        !self.noted.is_empty() || self.making.is_some()
    }

    /// Notes a cgroup that was made for this engine, for whoever cleans up if we cannot.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn note_cgroup(&mut self, id: u64) -> Result<()> {
        self.noted.push(id);
        self.making = None;
        self.write()
    }

    /// The ids of cgroups noted since boot, by us or by former holders that died.
    pub fn noted(&self) -> &[u64] {
        &self.noted
    }

    /// Drops the notes of cgroups that are gone, or were not made.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn forget(&mut self, is_gone: impl Fn(u64) -> bool) -> Result<()> {
        self.noted.retain(|&id| !is_gone(id));
        self.making = None;
        self.write()
    }

    fn write(&self) -> Result<()> {
        // Ids are reused after a reboot, and not every /run is cleared by one.
        let boot = if self.has_notes() { boot_id()? } else { String::new() };
        let mut text = format!("{}\n", std::process::id());
        for id in &self.noted {
            text += &format!("{id} {boot}\n");
        }
        if let Some(path) = self.making.as_ref().and_then(|path| path.to_str()) {
            text += &format!("{boot} {path}\n");
        }
        // Truncated afterwards: if we are killed in between, the notes remain, followed by the rest of an older one
        // without a valid boot id.
        self.file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| self.file.set_len(text.len() as u64))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for EngineLock {
    fn drop(&mut self) {
        // Still locked, so the file of this name is ours, unless somebody removed it by hand and a new engine started;
        // then it is theirs.
        if !self.has_notes() && is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
        // Unlocked explicitly: after closing alone, a child between fork and exec would still hold it.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Whether there is a lock file: of a running engine, or left by one that died or could not clean up.
pub fn is_left() -> bool {
    Path::new(RUN_DIR).join(LOCK_FILE).exists()
}

/// The pid of the running engine, `None` when none runs.
///
/// # Errors
///
/// When the lock file cannot be read, or is locked by an unknown process.
pub fn holder() -> Result<Option<u32>> {
    holder_in(Path::new(RUN_DIR))
}

fn holder_in(dir: &Path) -> Result<Option<u32>> {
    let path = dir.join(LOCK_FILE);
    let deadline = Instant::now() + GRACE;
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
        // The pid in the file does not hold it. Tried last, because this takes the lock for an instant, which `acquire`
        // has to tolerate.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(None),
            // Locked a moment ago: the pid is not written yet, or that of a dead holder is still there.
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

/// Whether the process `pid` has `file` open and locked, according to the kernel.
///
/// Does not use `/proc/locks`: that list is read in pieces, and misses entries while others come and go.
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

/// Reads the lines after the pid: the notes of holders since boot. `ID BOOT` is a cgroup, `BOOT PATH` one that was
/// about to be made.
fn notes(mut file: &File, path: &Path) -> Result<(Vec<u64>, Option<PathBuf>)> {
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    let (boot, mut noted, mut making) = (boot_id()?, Vec::new(), None);
    for (first, second) in text.lines().skip(1).filter_map(|note| note.split_once(' ')) {
        match first.parse() {
            Ok(id) if second == boot => noted.push(id),
            Err(_) if first == boot => making = Some(second.into()),
            _ => {}
        }
    }
    Ok((noted, making))
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
