//! Runs work that takes too long for the daemon's loop, and returns its result when it is done. Each piece has a thread
//! of its own, so one that hangs delays no other; each part has at most one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::daemon::parts::Part;
use crate::host::pace::{cpu_time, rest_after};
use crate::journal::Record;

/// Stack size of a thread in bytes; all of it may be locked in memory.
const STACK: usize = 512 << 10;

/// What a thread reports.
pub enum Received<T> {
    /// Something happened.
    Record(Box<Record>),
    /// The result of a part's work.
    Done(Part, Result<T>),
}

/// The messages of the threads.
enum Sent<T> {
    Record(Box<Record>),
    Done { part: Part, outcome: Result<T>, spent: Duration },
}

/// The work in progress.
pub struct Work<T> {
    sender: UnboundedSender<Sent<T>>,
    said: UnboundedReceiver<Sent<T>>,
    under_way: BTreeSet<Part>,
    /// When each part may use a CPU again: it has used its share until then.
    rests: BTreeMap<Part, Instant>,
}

impl<T> Default for Work<T> {
    fn default() -> Self {
        let (sender, said) = unbounded_channel();
        Self { sender, said, under_way: BTreeSet::new(), rests: BTreeMap::new() }
    }
}

impl<T: Send + 'static> Work<T> {
    /// Whether work of this part is in progress.
    pub fn is_under_way(&self, part: Part) -> bool {
        self.under_way.contains(&part)
    }

    /// Whether no work of this part is in progress and it has used less than a hundredth of a CPU: for background work.
    pub fn is_rested(&self, part: Part) -> bool {
        let rests = self.rests.get(&part).is_some_and(|until| Instant::now() < *until);
        !rests && !self.is_under_way(part)
    }

    /// Starts work of a part. `work` is given a function that publishes records meanwhile.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        &mut self,
        part: Part,
        work: impl FnOnce(&mut dyn FnMut(Record)) -> Result<T> + Send + 'static,
    ) -> Result<()> {
        let sender = self.sender.clone();
        let work = move || {
            let mut tell = |record| drop(sender.send(Sent::Record(Box::new(record))));
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut tell)));
            let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it panicked: a defect")));
            let spent = cpu_time().unwrap_or_default();
            // Fails when the daemon ends: nobody receives it.
            let _ = sender.send(Sent::Done { part, outcome, spent });
        };
        let thread = std::thread::Builder::new().name(part.name().into()).stack_size(STACK);
        thread.spawn(work).context("cannot start a thread")?;
        self.under_way.insert(part);
        Ok(())
    }

    /// The next message of a thread.
    pub async fn recv(&mut self) -> Received<T> {
        match self.said.recv().await {
            Some(Sent::Record(record)) => Received::Record(record),
            Some(Sent::Done { part, outcome, spent }) => {
                self.under_way.remove(&part);
                self.rests.insert(part, Instant::now() + rest_after(spent));
                Received::Done(part, outcome)
            }
            // Unreachable: `self` holds a sender.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn each_part_has_one_at_a_time_and_none_waits_for_another() {
        let mut work = Work::default();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let wait = move |_: &mut dyn FnMut(Record)| gone.recv().or(Ok(()));
        work.start(Part::Audit, wait).unwrap();
        let tell = |tell: &mut dyn FnMut(Record)| {
            tell(Record::CpuOnline { cpu: 1 });
            Ok(())
        };
        work.start(Part::Swap, tell).unwrap();
        assert!(work.is_under_way(Part::Audit) && !work.is_rested(Part::Swap));
        assert!(matches!(block_on(work.recv()), Received::Record(_)));
        assert!(matches!(block_on(work.recv()), Received::Done(Part::Swap, Ok(()))));
        assert!(work.is_under_way(Part::Audit));
        drop(go);
        assert!(matches!(block_on(work.recv()), Received::Done(Part::Audit, Ok(()))));
        assert!(!work.is_under_way(Part::Audit));
    }

    #[test]
    fn a_panic_is_an_error() {
        let mut work = Work::<()>::default();
        work.start(Part::Audit, |_| panic!("as it is meant to")).unwrap();
        let Received::Done(Part::Audit, Err(error)) = block_on(work.recv()) else { panic!() };
        assert_eq!(error.to_string(), "it panicked: a defect");
    }

    #[test]
    fn it_has_a_hundredth_of_a_cpu() {
        let mut work = Work::default();
        let busy = |_: &mut dyn FnMut(Record)| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(50) {
                std::hint::spin_loop();
            }
            Ok(())
        };
        work.start(Part::Swap, busy).unwrap();
        assert!(matches!(block_on(work.recv()), Received::Done(Part::Swap, Ok(()))));
        assert!(!work.is_under_way(Part::Swap) && !work.is_rested(Part::Swap));
    }
}
