//! A thread that proves the law of conservation now and then: finds drift while nobody runs `memstock audit`.
//!
//! The check reads the whole page-owner map, 4 bytes a page of the host, up to ten times; so it has its own thread,
//! and rests a hundred times as long as it computed. While things move nothing is proved: what the last exact check
//! found stays the answer.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

use crate::audit::Books;
use crate::cgroup::{CgroupMount, display};
use crate::engine::Engine;
use crate::engine::pins::Pins;

/// Between two checks, at the least.
const PAUSE: Duration = Duration::from_secs(10);
/// How many times as long as a check computed the pause after it is, at the least: bounds the cost to 1 % of
/// a CPU.
const REST: u32 = 100;

/// What the checks found so far.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Those during which nothing moved.
    pub exact: u64,
    /// Those that prove nothing.
    pub moving: u64,
    /// What the last exact one found.
    pub last: Option<Proof>,
}

/// What an exact check found, in pages.
#[derive(Clone, Debug)]
pub struct Proof {
    /// When.
    pub at: Instant,
    /// Of the cgroup in which most does not add up: usage less owned and unused pages.
    pub drift: i64,
    /// That cgroup; empty when all adds up.
    pub cgroup: String,
    /// Pages of no counter in use.
    pub ownerless: u64,
}

/// The running thread. Ends when it is dropped.
pub struct Check {
    found: Arc<Mutex<Checked>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Check {
    /// Starts it for a pinned engine.
    ///
    /// # Errors
    /// The pins cannot be opened, or no thread be started.
    pub fn start(pins: &Pins) -> Result<Self> {
        let (engine, mount) = (Engine::open(pins)?, CgroupMount::find()?);
        let found = Arc::new(Mutex::new(Checked::default()));
        let (stop, stopped) = channel();
        let shared = Arc::clone(&found);
        let work = move || {
            if let Err(error) = go_on(&engine, &mount, &shared, &stopped) {
                log::warn!("drift is not looked for any more: {error:#}");
            }
        };
        let thread = std::thread::Builder::new().name("check".into()).spawn(work);
        let thread = Some(thread.context("cannot start a thread")?);
        Ok(Self { found, stop: Some(stop), thread })
    }

    /// What was found so far.
    pub fn found(&self) -> Checked {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn go_on(
    engine: &Engine,
    mount: &CgroupMount,
    found: &Mutex<Checked>,
    stopped: &Receiver<()>,
) -> Result<()> {
    let goes_on = || stopped.try_recv() != Err(TryRecvError::Disconnected);
    loop {
        let start = cpu_time();
        let books = Books::read_while(engine, goes_on)?;
        let proof = books.is_exact.then(|| prove(engine, mount, &books)).transpose()?;
        {
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match proof {
                Some(proof) => {
                    found.exact += 1;
                    found.last = Some(proof);
                }
                None => found.moving += 1,
            }
        }
        let took = cpu_time().saturating_sub(start);
        match stopped.recv_timeout(PAUSE.max(took * REST)) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return Ok(()),
        }
    }
}

/// What this thread has used.
fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.cast_unsigned(), used.tv_nsec as u32)
}

fn prove(engine: &Engine, mount: &CgroupMount, books: &Books) -> Result<Proof> {
    let (at, ownerless) = (Instant::now(), books.ownerless);
    let Some((index, drift)) = books.worst(engine.info().memsw == 1) else {
        return Ok(Proof { at, drift: 0, cgroup: String::new(), ownerless });
    };
    let id = engine.counter(index)?.id;
    let cgroup = mount.path_of(id).map_or_else(|| format!("id {id}"), |path| display(&path));
    Ok(Proof { at, drift, cgroup, ownerless })
}
