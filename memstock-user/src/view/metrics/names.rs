//! Workload names and memory pressure of cgroups, for scrapes. The files that hold names may be on a disk that hangs, so
//! a thread reads them; a scrape that has waited long enough uses the previous answers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::timeout;

use crate::host::cgroup::Pressure;
use crate::host::workload::{Resolver, Workload};
use crate::model::{Cgroup, Name, Sample};

/// What was found out, by cgroup v2 id.
#[derive(Debug, Default)]
pub struct Found {
    /// What people call a cgroup.
    pub workloads: HashMap<u64, Workload>,
    /// How long it waited for memory; of each, only the total is up to date.
    pub pressures: HashMap<u64, Pressure>,
}

/// A cgroup to look up.
struct Asked {
    id: u64,
    parent_id: Option<u64>,
    path: Arc<Path>,
}

/// How long a scrape waits for the thread to be free, and then for the names.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of the thread's stack.
const STACK: usize = 256 << 10;

/// Names and pressures, kept from one scrape to the next.
#[derive(Clone)]
pub struct Names {
    hierarchy: Arc<Path>,
    /// Locked by the thread while it reads, so that there is never more than one.
    resolver: Arc<Mutex<Resolver>>,
    last: Arc<std::sync::Mutex<Arc<Found>>>,
}

impl Names {
    pub(super) fn new(hierarchy: &Path) -> Self {
        let (resolver, last) = Default::default();
        Self { hierarchy: hierarchy.into(), resolver, last }
    }

    /// Names and pressure of a sample's cgroups.
    pub(super) async fn of(&self, sample: &Sample) -> Arc<Found> {
        let resolver = timeout(PATIENCE, Arc::clone(&self.resolver).lock_owned()).await;
        if let Ok(resolver) = resolver
            && let Some(done) = self.ask(sample, resolver)
        {
            // If the thread panics or takes too long, the previous answers are used.
            let _ = timeout(PATIENCE, done).await;
        }
        self.last.lock().map_or_else(|_| Arc::default(), |last| Arc::clone(&last))
    }

    /// Looks up names and pressures in a thread; the receiver hears when it is done.
    fn ask(
        &self,
        sample: &Sample,
        mut resolver: OwnedMutexGuard<Resolver>,
    ) -> Option<oneshot::Receiver<()>> {
        let of = |cgroup: &Cgroup| {
            let Name { id, path, .. } = &cgroup.name;
            Some(Asked { id: *id, parent_id: cgroup.parent_id, path: path.clone()? })
        };
        let asked: Vec<_> = sample.cgroups.iter().filter_map(of).collect();
        let (hierarchy, last) = (Arc::clone(&self.hierarchy), Arc::clone(&self.last));
        let (sender, done) = oneshot::channel();
        let look = move || {
            let names = resolver.names(&hierarchy, asked.iter().map(|it| &*it.path));
            let name = |it: &Asked| Some((it.id, names.get(&*it.path)?.clone()));
            let before = last.lock().map_or_else(|_| Arc::default(), |last| Arc::clone(&last));
            let read = |path: &Path| Pressure::of(&hierarchy, path, Pressure::MEMORY);
            let found = Arc::new(Found {
                workloads: asked.iter().filter_map(name).collect(),
                pressures: pressures(&asked, &before.pressures, read),
            });
            for warning in resolver.warnings() {
                log::warn!("{warning}");
            }
            if let Ok(mut last) = last.lock() {
                *last = found;
            }
            // The scrape may have given up waiting.
            let _ = sender.send(());
        };
        let thread = std::thread::Builder::new().name("names".into()).stack_size(STACK);
        match thread.spawn(look) {
            Ok(_) => Some(done),
            Err(error) => {
                log::warn!(
                    "cannot start a thread to look up names, using the previous ones: {error}"
                );
                None
            }
        }
    }
}

/// The pressure of the cgroups, parents first. Each takes three system calls, so those below a cgroup are read
/// only if its total has changed since `before`: when a task waits, it waits in all cgroups above it, too. (A wait that
/// is too short to show in the total of a busy ancestor, which is an average over CPUs, is seen with its next change.)
fn pressures(
    asked: &[Asked],
    before: &HashMap<u64, Pressure>,
    read: impl Fn(&Path) -> Option<Pressure>,
) -> HashMap<u64, Pressure> {
    let mut now = HashMap::with_capacity(asked.len());
    for Asked { id, parent_id, path } in asked {
        let [was, is] = [before, &now].map(|all| Some(all.get(&(*parent_id)?)?.some.total));
        let kept = before.get(id).copied().filter(|_| is.is_some() && is == was);
        if let Some(pressure) = kept.or_else(|| read(path)) {
            now.insert(*id, pressure);
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::host::cgroup::Stall;

    #[test]
    fn nothing_is_read_below_a_cgroup_in_which_nobody_waited() {
        let asked =
            [("/a", 1, None), ("/a/b", 2, Some(1)), ("/a/b/c", 3, Some(2)), ("/d", 4, None)]
                .map(|(path, id, parent_id)| Asked { id, parent_id, path: Path::new(path).into() });
        let look = |before: &HashMap<u64, Pressure>, totals: &[(&str, u64)]| {
            let read = RefCell::new(Vec::new());
            let now = pressures(&asked, before, |path| {
                read.borrow_mut().push(path.display().to_string());
                let (_, total) = totals.iter().find(|(at, _)| Path::new(at) == path)?;
                let some = Stall { total: Duration::from_micros(*total), ..Stall::default() };
                Some(Pressure { some, ..Pressure::default() })
            });
            (now, read.into_inner())
        };
        let totals = [("/a", 7), ("/a/b", 5), ("/a/b/c", 5), ("/d", 0)];
        let (first, read) = look(&HashMap::new(), &totals);
        assert_eq!((first.len(), read.len()), (4, 4), "nothing is known yet");
        let (same, read) = look(&first, &totals);
        assert_eq!((&same, read), (&first, vec!["/a".to_owned(), "/d".into()]));
        // Somebody waited in /a, but not in /a/b.
        let (_, read) = look(&first, &[("/a", 8), ("/a/b", 5), ("/a/b/c", 5), ("/d", 0)]);
        assert_eq!(read, ["/a", "/a/b", "/d"]);
        // The kernel does not account it any longer for /a.
        let (_, read) = look(&first, &totals[1..]);
        assert_eq!(read, ["/a", "/a/b", "/d"]);
    }
}
