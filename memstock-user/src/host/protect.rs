//! Owns what keeps the daemon alive and responsive while memory is short: its memory stays in RAM, and the OOM killer
//! spares it. Must not touch any other process; COMMAND gets the daemon's former score.

use std::fs;
use std::io;

use rustix::fs::{Mode, OFlags, open};
use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use rustix::thread::{CapabilitySet, capabilities};

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";
/// The lowest score short of "never": a daemon that leaks has to be killed last, but it has to be.
const SPARED: &str = "-999";

/// What was changed, so that a child can undo it.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// The former `oom_score_adj`, as the kernel wrote it; none if unchanged.
    former: Option<Vec<u8>>,
}

/// Protects this process. The daemon works without it, so failures are only logged: a missing capability as
/// information, anything else as a warning.
pub fn protect() -> Protection {
    let has = capabilities(None).map(|has| has.effective).unwrap_or(CapabilitySet::empty());
    lock_memory(has.contains(CapabilitySet::IPC_LOCK));
    Protection { former: lower_oom_score(has.contains(CapabilitySet::SYS_RESOURCE)) }
}

fn lock_memory(is_unlimited: bool) {
    if let Err(error) = try_lock_memory(is_unlimited) {
        tell(is_unlimited, &format!("cannot lock memstock's memory (RLIMIT_MEMLOCK): {error}"));
    }
}

fn try_lock_memory(is_unlimited: bool) -> rustix::io::Result<()> {
    // Reads all code into memory: at a limit there may be no memory to read it into. That also fills whatever is mapped
    // and unused.
    mlockall(MlockAllFlags::CURRENT)?;
    munlockall()?;
    give_back();
    // With RLIMIT_MEMLOCK, mapping more memory later could fail if that were locked too. Without it, later memory is
    // locked once used, which is little of a thread's stack and malloc's arenas.
    let present = MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT;
    mlockall(if is_unlimited { present | MlockAllFlags::FUTURE } else { present })
}

/// Has all threads share two of malloc's arenas. By default there are up to eight a CPU, and each keeps what the threads
/// in it once needed.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives back to the kernel what the start has freed, for BTF most of all, and glibc keeps.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn lower_oom_score(may: bool) -> Option<Vec<u8>> {
    let lowered = fs::read(OOM_SCORE_ADJ)
        .and_then(|former| fs::write(OOM_SCORE_ADJ, SPARED).map(|()| former));
    match lowered {
        Ok(former) => Some(former),
        Err(error) => {
            tell(may, &format!("cannot set oom_score_adj to {SPARED} (CAP_SYS_RESOURCE): {error}"));
            None
        }
    }
}

fn tell(is_unexpected: bool, message: &str) {
    let level = if is_unexpected { log::Level::Warn } else { log::Level::Info };
    log::log!(level, "{message}");
}

impl Protection {
    /// Undoes it in this process, a child between fork and exec; allocates nothing. (Locked memory is not inherited.)
    ///
    /// # Errors
    /// The kernel refuses, which is not expected: anybody may raise a score.
    pub fn undo_in_child(&self) -> io::Result<()> {
        let Some(former) = &self.former else { return Ok(()) };
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
        rustix::io::write(&file, former)?;
        Ok(())
    }

    /// For tests: as if `oom_score_adj` had been this.
    #[cfg(test)]
    pub(crate) fn after(former: &str) -> Self {
        Self { former: Some(former.into()) }
    }
}
