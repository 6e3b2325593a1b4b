//! Owns what keeps the daemon alive and awake while memory is short: its memory stays in RAM, and the
//! OOM killer spares it. Must not touch any other process; COMMAND gets back what the daemon had.

use std::fs;
use std::io;

use rustix::fs::{Mode, OFlags, open};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::thread::{CapabilitySet, capabilities};

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";
/// The least that is not "never": a daemon that leaks has to go last, but it has to go.
const SPARED: &str = "-999";

/// What was changed, for those who are not to inherit it.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// What `oom_score_adj` was, as the kernel wrote it; none when it is that still.
    former: Option<Vec<u8>>,
}

/// Protects this process. A daemon that cannot is not worse than others, so failures are only told: the
/// lack of a capability to those who want to know, anything else as a warning.
pub fn protect() -> Protection {
    let has = capabilities(None).map(|has| has.effective).unwrap_or(CapabilitySet::empty());
    lock_memory(has.contains(CapabilitySet::IPC_LOCK));
    Protection { former: lower_oom_score(has.contains(CapabilitySet::SYS_RESOURCE)) }
}

fn lock_memory(is_unlimited: bool) {
    // What the start took and gave back, for BTF most of all, would be brought in again.
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time; it gives free memory of malloc's back to the kernel.
    unsafe {
        libc::malloc_trim(0);
    }
    // All code is brought in now: at a limit there may be no memory to read it with.
    let mut locked = mlockall(MlockAllFlags::CURRENT);
    // Under a limit, memory that is mapped later may not be locked, and mapping it would fail. Without one it is locked
    // once it is used, which of a thread's stack and of malloc's arenas is little.
    if is_unlimited {
        let later = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        locked = locked.and_then(|()| mlockall(later));
    }
    if let Err(error) = locked {
        tell(is_unlimited, &format!("cannot lock memstock's memory (RLIMIT_MEMLOCK): {error}"));
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
    /// Takes it from this process, a child between fork and exec: allocates nothing. (Locked memory is not
    /// inherited.)
    ///
    /// # Errors
    /// The kernel refuses, which it has no reason to: a higher score is everybody's right.
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
