//! Holds: a cgroup frozen at its limit is thawed whatever happens, and another's freeze stays.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memstock::enforce::guard::{Guard, MOST};
use memstock::enforce::hold::{Hold, Writes};
use memstock::host::cgroup::{Cgroup, CgroupMount};
use memstock_tests::poll::{SOON, poll_until};
use memstock_tests::process::memstock;
use memstock_tests::{Engine, Task, TestCgroup, binaries, live};

/// The extended attribute of a held cgroup.
const MARK: &str = "trusted.memstock.held";

struct Held {
    cgroup: TestCgroup,
    guard: Arc<Guard>,
    hold: Option<Hold<'static>>,
    _task: Task,
}

/// One per hold, as each worker has its own.
fn writes() -> Result<&'static Writes> {
    Ok(Box::leak(Box::new(Writes::new()?)))
}

fn held() -> Result<Held> {
    let cgroup = TestCgroup::new()?;
    let task = Task::start(&cgroup, None)?;
    let found: Cgroup = CgroupMount::find()?.resolve(cgroup.path())?;
    let guard = Arc::new(Guard::start(&binaries::memstock()?)?);
    let hold = Hold::freeze(&guard, writes()?, &found)?;
    let held = Held { cgroup, guard, hold, _task: task };
    ensure!(held.is_frozen()? && held.hold.is_some(), "it is not held");
    Ok(held)
}

impl Held {
    fn freeze(&self) -> std::path::PathBuf {
        self.cgroup.dir().join("cgroup.freeze")
    }

    fn is_frozen(&self) -> Result<bool> {
        Ok(fs::read_to_string(self.freeze()).context("cgroup.freeze")?.trim() == "1")
    }

    fn is_marked(&self) -> bool {
        rustix::fs::getxattr(self.cgroup.dir(), MARK, &mut [0_u8; 0][..]).is_ok()
    }

    fn is_let_go(&self, within: Duration) -> Result<()> {
        poll_until(within, "the cgroup to be let go", || {
            self.is_frozen().is_ok_and(|is_frozen| !is_frozen).then_some(())
        })
    }
}

#[test]
fn a_hold_ends_with_who_holds() -> Result<()> {
    live(|| {
        let mut held = held()?;
        let found = CgroupMount::find()?.resolve(held.cgroup.path())?;
        ensure!(
            Hold::freeze(&held.guard, writes()?, &found)?.is_none(),
            "it is held by somebody already"
        );
        held.hold = None;
        ensure!(!held.is_frozen()?, "it is held still");
        Ok(())
    })
}

/// A freeze such as by `docker pause`.
#[test]
fn a_freeze_of_somebody_elses_stays() -> Result<()> {
    live(|| {
        let mut held = held()?;
        fs::write(held.freeze(), "1")?;
        held.hold = None;
        ensure!(held.is_frozen()?, "it was let go");
        // Nor does a daemon that comes or goes take it for what another one left.
        Engine::start(["--observe", "--cgroup", held.cgroup.path()])?.stop()?;
        ensure!(held.is_frozen()?, "it was let go");
        fs::write(held.freeze(), "0")?;
        Ok(())
    })
}

#[test]
fn the_guard_ends_what_lasts_too_long() -> Result<()> {
    live(|| {
        let mut held = held()?;
        held.is_let_go(MOST + SOON)?;
        // Only the holder removes the mark: a late guard could remove that of the next hold, which would then never
        // end.
        ensure!(held.is_marked(), "the guard took the mark");
        // By now a freeze may be another's.
        fs::write(held.freeze(), "1")?;
        held.hold = None;
        ensure!(held.is_frozen()?, "a freeze of somebody else's was undone");
        ensure!(!held.is_marked(), "who holds leaves its mark");
        fs::write(held.freeze(), "0")?;
        Ok(())
    })
}

/// Its worker hung, and another has taken over since.
#[test]
fn a_hold_that_ends_late_leaves_the_next() -> Result<()> {
    live(|| {
        let mut held = held()?;
        held.is_let_go(MOST + SOON)?;
        let found = CgroupMount::find()?.resolve(held.cgroup.path())?;
        let next = Hold::freeze(&held.guard, writes()?, &found)?;
        ensure!(next.is_some(), "it is let go");
        held.hold = None;
        ensure!(held.is_frozen()? && held.is_marked(), "the next hold was ended, too");
        drop(next);
        ensure!(!held.is_frozen()? && !held.is_marked(), "it is held still");
        Ok(())
    })
}

/// If the holder and the guard both die, the next start or `stop` ends the hold.
#[test]
fn what_is_left_is_let_go_by_the_next() -> Result<()> {
    live(|| {
        for stops in [false, true] {
            let mut left = held()?;
            left.guard.kill()?;
            // As if killed before it could end the hold.
            std::mem::forget(left.hold.take());
            ensure!(left.is_frozen()?, "something has thawed it");
            let mut engine = Engine::start(["--observe", "--cgroup", left.cgroup.path()])?;
            if stops {
                // The start ended the hold. After another freeze, only `stop` can end it.
                left.is_let_go(SOON)?;
                engine.kill()?;
                fs::write(left.freeze(), "1")?;
                rustix::fs::setxattr(
                    left.cgroup.dir(),
                    MARK,
                    b"",
                    rustix::fs::XattrFlags::empty(),
                )?;
                let stop = memstock(["stop"])?.finish(SOON)?;
                ensure!(stop.code() == 0, "{stop:?}");
                left.is_let_go(SOON)?;
            } else {
                left.is_let_go(SOON)?;
                engine.stop()?;
            }
        }
        Ok(())
    })
}
