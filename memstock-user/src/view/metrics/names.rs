//! Workload names and memory pressure of cgroups, for scrapes. The files that hold names may be on a disk that hangs, so
//! a thread reads them; a scrape that has waited long enough uses the previous answers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::timeout;

use crate::host::cgroup::MemoryPressure;
use crate::host::workload::{Resolver, Workload};
use crate::model::Sample;

/// What was found out, by cgroup v2 id.
#[derive(Debug, Default)]
pub struct Found {
    /// What people call a cgroup.
    pub workloads: HashMap<u64, Workload>,
    /// How long it waited for memory.
    pub pressures: HashMap<u64, MemoryPressure>,
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
        let of = |name: &crate::model::Name| Some((name.id, name.path.clone()?));
        let paths: Vec<(u64, Arc<Path>)> =
            sample.cgroups.iter().filter_map(|cgroup| of(&cgroup.name)).collect();
        let (hierarchy, last) = (Arc::clone(&self.hierarchy), Arc::clone(&self.last));
        let (sender, done) = oneshot::channel();
        let look = move || {
            let names = resolver.names(&hierarchy, paths.iter().map(|(_, path)| &**path));
            let name = |(id, path): &(u64, Arc<Path>)| Some((*id, names.get(&**path)?.clone()));
            let pressure =
                |(id, path): &(u64, Arc<Path>)| Some((*id, MemoryPressure::of(&hierarchy, path)?));
            let found = Arc::new(Found {
                workloads: paths.iter().filter_map(name).collect(),
                pressures: paths.iter().filter_map(pressure).collect(),
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
