//! The enforcer thread: reads the event ring, assigns full cgroups to workers (`dispatch`), renews the lease that
//! throttling needs, and forwards all events. It waits for nothing but events.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{MapData, RingBuf};
use memstock_common::event::EventKind;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::Policy;
use super::dispatch::Dispatch;
use super::guard::{Guard, this_program};
use super::hold::thaw_left;
use super::job::{Message, Shared, set_realtime};
use super::reclaim::Cache;
use crate::engine::pins::Pins;
use crate::engine::{Engine, events};
use crate::host::cgroup::CgroupMount;
use crate::journal::event::decode;

/// The running thread. Ends when it is dropped.
pub struct Enforcer {
    /// The events and records that it forwards.
    pub messages: UnboundedReceiver<Message>,
    /// Set in each round of its loop.
    moved: Arc<AtomicBool>,
    /// `None` tells the thread to end.
    changes: Option<Sender<PolicyChange>>,
    /// Signals that there is a policy change, or that none will come.
    wake: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// A policy to switch to.
struct PolicyChange {
    policy: Policy,
    guard: Option<Guard>,
}

impl PolicyChange {
    fn new(policy: Policy) -> Result<Self> {
        let guard = if policy.observe { None } else { Some(Guard::start(&this_program()?)?) };
        Ok(Self { policy, guard })
    }
}

impl Enforcer {
    /// Starts the thread for a pinned engine. First thaws tasks that a dead daemon still holds.
    ///
    /// # Errors
    /// The pins cannot be opened, or no thread or process can be started.
    pub fn start(pins: &Pins, policy: Policy) -> Result<Self> {
        let (sender, messages) = unbounded_channel();
        let engine = Engine::open_with_control(pins)?;
        let mount = CgroupMount::find()?;
        let events = events(pins)?;
        thaw_left(&mount);
        let PolicyChange { policy, guard } = PolicyChange::new(policy)?;
        let (changes, ordered) = channel();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).context("cannot make an eventfd")?;
        let woken = wake.try_clone().context("cannot share an eventfd")?;
        let wakes = wake.try_clone().context("cannot share an eventfd")?;
        let moved = Arc::new(AtomicBool::new(true));
        let moves = Arc::clone(&moved);
        let cache = Cache::default();
        // Maps the owner map now rather than when the first limit is hit.
        cache.host_pages(&engine)?;
        let shared = Shared { engine, mount, cache, messages: sender, wake: wakes };
        let work =
            move || serve(&Arc::new(shared), policy, guard, events, &ordered, &woken, &moves);
        let thread = std::thread::Builder::new().name("enforce".into()).spawn(work);
        let thread = Some(thread.context("cannot start a thread")?);
        Ok(Self { messages, moved, changes: Some(changes), wake, thread })
    }

    /// Whether the thread has made progress since the last call; a live one does so several times a second.
    pub fn has_moved(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }

    /// Switches to another policy.
    ///
    /// # Errors
    /// No process can be started, or the thread has ended.
    pub fn order(&self, policy: Policy) -> Result<()> {
        let order = PolicyChange::new(policy)?;
        let changes = self.changes.as_ref().context("the enforcer is being stopped")?;
        changes.send(order).ok().context("the thread that enforces limits has ended")?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        self.changes = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Interval between two renewals of the lease: a fraction of [`LEASE_NS`](memstock_common::limit::LEASE_NS).
const ATTENDS: Duration = Duration::from_millis(250);
/// How long workers have to finish.
const ENDS: Duration = Duration::from_secs(2);

fn serve(
    shared: &Arc<Shared>,
    policy: Policy,
    guard: Option<Guard>,
    mut events: RingBuf<MapData>,
    changes: &Receiver<PolicyChange>,
    woken: &OwnedFd,
    moved: &AtomicBool,
) {
    set_realtime();
    let mut dispatch = Dispatch::new(Arc::clone(shared), policy, guard);
    let mut renewed = None;
    loop {
        moved.store(true, Ordering::Relaxed);
        renew_lease(shared, &dispatch, &mut renewed);
        while let Some(record) = events.next() {
            let decoded = decode(&record);
            drop(record);
            match decoded {
                Ok(decoded) => {
                    if decoded.kind == EventKind::LimitHit
                        && let Err(error) = dispatch.hit(&decoded.event)
                    {
                        shared.fail(error.context("a limit is not enforced"));
                    }
                    let _ = shared.messages.send(Message::Event(decoded));
                }
                Err(error) => drop(shared.messages.send(Message::Unreadable(error))),
            }
            // Events may keep coming without a pause.
            renew_lease(shared, &dispatch, &mut renewed);
            dispatch.turn();
            moved.store(true, Ordering::Relaxed);
        }
        dispatch.turn();
        let mut fds = [
            PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN),
            PollFd::new(woken, PollFlags::IN),
        ];
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(ATTENDS.subsec_nanos()) };
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                shared.fail(anyhow!(error).context("cannot wait for events"));
                sleep(ATTENDS);
            }
        }
        // There may be nothing to read.
        let _ = rustix::io::read(woken, &mut [0; 8]);
        loop {
            match changes.try_recv() {
                Ok(PolicyChange { policy, guard }) => dispatch.set_policy(policy, guard),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    dispatch.end();
                    let until = Instant::now() + ENDS;
                    while !dispatch.is_idle() && Instant::now() < until {
                        sleep(Duration::from_millis(5));
                    }
                    return;
                }
            }
        }
    }
}

/// Renews the lease: tells the kernel half that limits are being enforced.
fn renew_lease(shared: &Shared, dispatch: &Dispatch, renewed: &mut Option<Instant>) {
    if !dispatch.enforces() || renewed.is_some_and(|at| at.elapsed() < ATTENDS / 2) {
        return;
    }
    *renewed = Some(Instant::now());
    if let Err(error) = shared.engine.control().renew_lease() {
        shared.fail(error);
    }
}
