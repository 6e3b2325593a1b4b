//! The thread that reads the events and acts on limits at once; everything else it hands on. Nothing that
//! takes time may come between a limit that was met and what is done about it.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{MapData, RingBuf};
use memstock_common::event::EventKind;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::undo::Undo;
use super::{Enforcer, Policy};
use crate::cgroup::CgroupMount;
use crate::engine::pins::Pins;
use crate::engine::{Engine, events};
use crate::event::{Decoded, decode};
use crate::journal::Record;

/// What the thread hands on.
#[derive(Debug)]
pub enum News {
    /// An event of the kernel half's.
    Event(Decoded),
    /// Something was done at a limit.
    Record(Box<Record>),
    /// An event of the kernel half's that cannot be read.
    Unreadable(anyhow::Error),
    /// A limit could not be enforced.
    Failed(anyhow::Error),
}

/// The running thread. Ends when it is dropped.
pub struct Duty {
    /// What it hands on.
    pub news: UnboundedReceiver<News>,
    /// Set with each round.
    moved: Arc<AtomicBool>,
    /// None when it is to end.
    orders: Option<Sender<Order>>,
    /// Says that there is an order, or none to come.
    wake: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// From now on, with this.
struct Order {
    policy: Policy,
    undo: Option<Undo>,
}

impl Order {
    fn new(policy: Policy) -> Result<Self> {
        let undo = if policy.observe { None } else { Some(Undo::start()?) };
        Ok(Self { policy, undo })
    }
}

impl Duty {
    /// Starts it for a pinned engine.
    ///
    /// # Errors
    /// The pins cannot be opened, or no thread or process be started.
    pub fn start(pins: &Pins, policy: Policy) -> Result<Self> {
        let (sender, news) = unbounded_channel();
        let engine = Engine::open(pins)?;
        let mount = CgroupMount::find()?;
        let events = events(pins)?;
        let Order { policy, undo } = Order::new(policy)?;
        let (orders, ordered) = channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an eventfd")?;
        let woken = wake.try_clone().context("cannot share an eventfd")?;
        let moved = Arc::new(AtomicBool::new(true));
        let moves = Arc::clone(&moved);
        let work = move || {
            let say = |record| drop(sender.send(News::Record(Box::new(record))));
            let enforcer = Enforcer::new(engine, mount, policy, undo, say);
            if let Err(error) = serve(enforcer, events, &ordered, &woken, &moves, &sender) {
                let _ = sender.send(News::Failed(error));
            }
        };
        let thread = std::thread::Builder::new().name("enforce".into()).spawn(work);
        let thread = Some(thread.context("cannot start a thread")?);
        Ok(Self { news, moved, orders: Some(orders), wake, thread })
    }

    /// Whether the thread has done anything since this was asked last; it does several times a second, unless
    /// one limit keeps it busy or it has ended.
    pub fn has_moved(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }

    /// Has it go on with another policy.
    ///
    /// # Errors
    /// No process can be started, or the thread has ended.
    pub fn order(&self, policy: Policy) -> Result<()> {
        let order = Order::new(policy)?;
        let orders = self.orders.as_ref().context("it is to end")?;
        orders.send(order).ok().context("the thread that enforces limits has ended")?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.orders = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Time between two assurances to the kernel half that somebody is here: a part of
/// [`ATTENDANCE_NS`](memstock_common::limit::ATTENDANCE_NS).
const ATTENDS: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

fn serve(
    mut enforcer: Enforcer<impl FnMut(Record)>,
    mut events: RingBuf<MapData>,
    orders: &Receiver<Order>,
    woken: &OwnedFd,
    moved: &AtomicBool,
    sender: &UnboundedSender<News>,
) -> Result<()> {
    be_prompt();
    loop {
        moved.store(true, Ordering::Relaxed);
        while let Some(record) = events.next() {
            moved.store(true, Ordering::Relaxed);
            let decoded = decode(&record);
            drop(record);
            let decoded = match decoded {
                Ok(decoded) => decoded,
                Err(error) => {
                    let _ = sender.send(News::Unreadable(error));
                    continue;
                }
            };
            let _ = sender.send(News::Event(decoded));
            if decoded.kind == EventKind::LimitHit
                && let Err(error) = enforcer.limit_hit(&decoded.event)
            {
                let _ = sender.send(News::Failed(error.context("a limit is not enforced")));
            }
        }
        let mut fds = [
            PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN),
            PollFd::new(woken, PollFlags::IN),
        ];
        if !enforcer.policy.observe {
            enforcer.engine.control().attend()?;
        }
        match poll(&mut fds, Some(&ATTENDS)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(anyhow!(error).context("cannot wait for events")),
        }
        if fds[1].revents().is_empty() {
            continue;
        }
        rustix::io::read(woken, &mut [0; 8])?;
        loop {
            match orders.try_recv() {
                Ok(Order { policy, undo }) => enforcer.obey(policy, undo),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// Has this thread run before everything that is not real-time: the tasks at a limit keep all CPUs busy,
/// and charge by force until it has run.
fn be_prompt() {
    let param = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `param` lives until the call returns, which changes this thread's scheduling only.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const param) } != 0 {
        let error = std::io::Error::last_os_error();
        log::warn!("limits are enforced late on a busy host: no real-time priority: {error}");
    }
}
