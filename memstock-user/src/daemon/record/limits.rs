//! Notes the limits under which recorded tasks run, memstock's and the kernel's, and how often these were hit: a task
//! that was held back may need more than was seen. Sets nothing.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use memstock_common::{Counter, NO_LIMIT, index_of};

use super::readers::Readers;
use crate::engine::Engine;
use crate::engine::kernel_cgroup::v1_memory;
use crate::engine::needed::lineage;
use crate::host::cgroup::{CgroupMount, display};
use crate::host::process::{Places, directory};
use crate::host::{number, page_size};
use crate::journal::read::Reader;
use crate::journal::record::Record;
use crate::model::size::human;

/// A host has many memory cgroups; those of the first tasks count.
const MOST_CGROUPS: usize = 32;

/// The files of the kernel's that count hits, the name of the count if there are several, and the limit's file; none for
/// tasks that were killed. `.local`: without those of the cgroups below. Linux 6.18 does not count v1's hits of memory
/// and swap together, but only who is killed there.
const COUNTS: [(&str, Option<&str>, Option<&str>); 6] = [
    ("memory.events.local", Some("max"), Some("memory.max")),
    ("memory.events.local", Some("high"), Some("memory.high")),
    ("memory.events.local", Some("oom_kill"), None),
    ("memory.failcnt", None, Some("memory.limit_in_bytes")),
    ("memory.memsw.failcnt", None, Some("memory.memsw.limit_in_bytes")),
    ("memory.oom_control", Some("oom_kill"), None),
];

/// The limits that have been seen.
#[derive(Debug)]
pub(super) struct Limits {
    /// memstock's.
    own: Vec<Own>,
    /// The kernel's, by the directory of the memory cgroup, as [`COUNTS`].
    kernel: BTreeMap<PathBuf, [Option<Hits>; COUNTS.len()]>,
    /// Where memory cgroups are: on v1, and on v2.
    tops: [Option<PathBuf>; 2],
    /// Who reads them.
    pub(super) readers: Readers,
}

/// How often a limit was hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hits {
    /// The count when it was read last.
    last: u64,
    /// By how much it has risen.
    times: u64,
    /// The limit in bytes when it was hit last.
    limit: Option<u64>,
}

impl Hits {
    fn since(last: u64) -> Self {
        Self { last, ..Self::default() }
    }

    fn rise(&mut self, count: u64, limit: impl FnOnce() -> Option<u64>) {
        let times = count.saturating_sub(self.last);
        if times > 0 {
            (self.times, self.limit) = (self.times + times, limit());
        }
        self.last = count;
    }
}

/// The limits of a tracked cgroup, of memory and of memory and swap.
#[derive(Debug)]
struct Own {
    index: u32,
    id: u64,
    path: PathBuf,
    hits: [Hits; 2],
}

impl Own {
    fn look(&mut self, counter: &Counter<u64>) {
        // It may be the counter of another cgroup by now.
        if counter.id != self.id {
            return;
        }
        let memory = (counter.memory.failcnt, counter.memory_limit);
        let memsw = (counter.memsw.failcnt, counter.memsw_limit);
        for (hits, (count, limit)) in self.hits.iter_mut().zip([memory, memsw]) {
            let limit = (limit != NO_LIMIT).then(|| limit.saturating_mul(page_size()));
            hits.rise(count, || limit);
        }
    }
}

impl Limits {
    /// Those of the cgroup with this counter and directory, and of all above it.
    pub(super) fn begin(engine: &Engine, mount: &CgroupMount, index: u32, dir: &Path) -> Self {
        let parent = |at| Some(index_of(engine.counter(at).ok()?.parent as u32));
        let own = lineage(parent, index).filter_map(|index| {
            let counter = engine.counter(index).ok()?;
            let hits = [counter.memory.failcnt, counter.memsw.failcnt].map(Hits::since);
            let path = mount.path_of(counter.id)?;
            Some(Own { index, id: counter.id, path, hits })
        });
        let mut limits = Self {
            own: own.collect(),
            kernel: BTreeMap::new(),
            tops: [v1_memory().unwrap_or_default(), Some(mount.dir().to_owned())],
            readers: Readers::watch(),
        };
        limits.add(dir, mount.dir());
        limits
    }

    /// Adds the kernel's of a task: on v1 it can be in any memory cgroup, on v2 further down.
    pub(super) fn add_task(&mut self, pid: u32) {
        self.readers.add_task(pid);
        let Places { memory, unified } =
            Places::read(&directory(pid.cast_signed())).unwrap_or_default();
        for (top, path) in self.tops.clone().into_iter().zip([memory, unified]) {
            if let Some(top) = top
                && let Some(path) = path.as_deref().and_then(below_root)
            {
                self.add(&top.join(path), &top);
            }
        }
    }

    /// Adds a cgroup of the kernel's and those above it, but not the root, which has no limit.
    fn add(&mut self, dir: &Path, top: &Path) {
        for dir in dir.ancestors().take_while(|dir| *dir != top && dir.starts_with(top)) {
            if self.kernel.len() == MOST_CGROUPS || self.kernel.contains_key(dir) {
                continue;
            }
            let counts = counts(dir);
            if counts.iter().any(Option::is_some) {
                self.kernel.insert(dir.to_owned(), counts.map(|count| count.map(Hits::since)));
                self.readers.add_cgroup(dir);
            }
        }
    }

    /// Looks whether they were hit: a cgroup may be gone at the end.
    pub(super) fn look(&mut self, engine: &Engine) {
        for own in &mut self.own {
            if let Ok(counter) = engine.counter(own.index) {
                own.look(&counter);
            }
        }
        self.look_at_kernel();
    }

    fn look_at_kernel(&mut self) {
        for (dir, all) in &mut self.kernel {
            for ((hits, count), (.., file)) in all.iter_mut().zip(counts(dir)).zip(COUNTS) {
                if let (Some(hits), Some(count)) = (hits, count) {
                    let limit = || fs::read_to_string(dir.join(file?)).ok()?.trim().parse().ok();
                    hits.rise(count, limit);
                }
            }
        }
    }

    /// Those that held a task back since `begun_ns`, a sentence each: not those of memstock's that were only observed.
    pub(super) fn hit(&self, begun_ns: u64) -> Vec<String> {
        self.sentences(&observed(begun_ns))
    }

    fn sentences(&self, observed: &HashSet<u64>) -> Vec<String> {
        let own = self.own.iter().filter(|own| !observed.contains(&own.id)).flat_map(|own| {
            let names = ["memstock's limit", "memstock's limit of memory and swap"];
            names
                .into_iter()
                .zip(&own.hits)
                .map(|(name, hits)| (Some(name.to_owned()), &own.path, hits))
        });
        let kernel = self.kernel.iter().flat_map(|(dir, all)| {
            COUNTS.iter().zip(all).filter_map(move |((.., limit), hits)| {
                Some((limit.map(|limit| format!("the kernel's {limit}")), dir, hits.as_ref()?))
            })
        });
        let hit = own.chain(kernel).filter(|(.., hits)| hits.times > 0);
        hit.map(|(limit, path, &Hits { times, limit: bytes, .. })| {
            let path = display(path);
            match limit {
                Some(name) => {
                    let of = bytes.map(|bytes| format!(" of {}", human(bytes))).unwrap_or_default();
                    let times =
                        if times == 1 { "once".to_owned() } else { format!("{times} times") };
                    format!("{name}{of} for {path} was hit {times}: more may be needed")
                }
                None => {
                    let tasks = if times == 1 { "task" } else { "tasks" };
                    format!(
                        "the kernel killed {times} {tasks} of {path} for memory: more may be needed"
                    )
                }
            }
        })
        .collect()
    }
}

/// The ids of cgroups whose limit would have been enforced: a daemon with `--observe` says so in its events.
fn observed(begun_ns: u64) -> HashSet<u64> {
    let mut ids = HashSet::new();
    let read = Reader::new().read(|read| {
        if let Record::WouldEnforce { ancestor, .. } = &read.entry.record
            && read.entry.time_ns >= begun_ns
        {
            ids.insert(ancestor.id);
        }
        Ok(())
    });
    if let Err(error) = read {
        log::debug!("the events are unreadable: {error:#}");
    }
    ids
}

/// How often the limits of a memory cgroup of the kernel's were hit, as [`COUNTS`].
fn counts(dir: &Path) -> [Option<u64>; COUNTS.len()] {
    COUNTS.map(|(file, name, _)| {
        let text = fs::read_to_string(dir.join(file)).ok()?;
        name.map_or_else(|| text.trim().parse().ok(), |name| number(&text, name))
    })
}

/// The path of a cgroup relative to the root of its hierarchy; none if it is outside of our cgroup namespace.
fn below_root(path: &Path) -> Option<&Path> {
    path.strip_prefix("/").ok().filter(|path| !path.starts_with(".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_other_namespaces_are_left_out() {
        let below = |path: &'static str| below_root(Path::new(path));
        assert_eq!(below("/a/b"), Some(Path::new("a/b")));
        assert_eq!(below("/../x"), None);
    }

    fn counter(id: u64, usage: u64, failcnt: u64) -> Counter<u64> {
        let mut counter =
            Counter { id, memory_limit: 1000, memsw_limit: NO_LIMIT, ..Counter::default() };
        (counter.memory.usage, counter.memory.failcnt) = (usage, failcnt);
        counter
    }

    fn limits(own: Own) -> Limits {
        let readers = Readers::watch();
        Limits { own: vec![own], kernel: BTreeMap::new(), tops: [None, None], readers }
    }

    fn own() -> Own {
        let (path, hits) = ("/a".into(), [Hits::since(5), Hits::default()]);
        Own { index: 0, id: 7, path, hits }
    }

    #[test]
    fn hits_of_the_same_cgroup_count_while_it_is_held_back() {
        let mut held = own();
        held.look(&counter(7, 1000, 6));
        held.look(&counter(8, 0, 900));
        let limit = human(1000 * page_size());
        let said = format!("memstock's limit of {limit} for /a was hit once: more may be needed");
        let limits = limits(held);
        assert_eq!(limits.sentences(&HashSet::from([8])), [said]);
        assert_eq!(limits.sentences(&HashSet::from([7])), [""; 0], "only observed");
    }

    #[test]
    fn what_is_known_of_a_removed_cgroup_stays() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("a/b");
        fs::create_dir_all(&dir).unwrap();
        let events = |max: u64| {
            fs::write(
                dir.join("memory.events.local"),
                format!("low 0\nhigh 2\nmax {max}\noom_kill {}\n", max / 5),
            )
            .unwrap();
            fs::write(dir.join("memory.max"), "4096\n").unwrap();
        };
        events(3);
        let mut limits = limits(own());
        limits.add(&dir, top.path());
        events(5);
        limits.look_at_kernel();
        fs::remove_dir_all(&dir).unwrap();
        limits.look_at_kernel();
        let said = format!(
            "the kernel's memory.max of 4.0KiB for {} was hit 2 times: more may be needed",
            display(&dir)
        );
        let killed =
            format!("the kernel killed 1 task of {} for memory: more may be needed", display(&dir));
        assert_eq!(limits.sentences(&HashSet::new()), [said, killed]);
    }
}
