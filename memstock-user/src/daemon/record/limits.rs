//! Notes the limits under which recorded tasks run, memstock's and the kernel's, and whether these held them back:
//! then they may need more than was seen. Sets nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use memstock_common::{Counter, NO_LIMIT, PageCounter, index_of};

use super::readers::Readers;
use crate::engine::Engine;
use crate::engine::kernel_cgroup::v1_memory;
use crate::engine::needed::lineage;
use crate::host::cgroup::{CgroupMount, display};
use crate::host::process::directory;
use crate::host::{number, page_size};
use crate::model::size::human;

/// The limits that have been seen, each with how often it had been hit before.
#[derive(Debug)]
pub(super) struct Limits {
    /// memstock's: memory, and memory+swap, by the counter's index.
    own: BTreeMap<u32, [u64; 2]>,
    /// The kernel's, by the directory of the memory cgroup.
    kernel: BTreeMap<PathBuf, u64>,
    /// The v1 memory hierarchy, where there is one.
    v1: Option<PathBuf>,
    /// The cgroup itself, which includes those below it.
    dir: PathBuf,
    /// Who reads them.
    pub(super) readers: Readers,
}

impl Limits {
    /// Those of the cgroup with this counter and directory, and of all above it.
    pub(super) fn begin(engine: &Engine, mount: &CgroupMount, index: u32, dir: &Path) -> Self {
        let parent = |at| Some(index_of(engine.counter(at).ok()?.parent as u32));
        let own =
            lineage(parent, index).filter_map(|at| Some((at, hits(&engine.counter(at).ok()?))));
        let v1 = v1_memory().unwrap_or_default();
        let mut limits = Self {
            own: own.collect(),
            kernel: BTreeMap::new(),
            v1,
            dir: dir.to_owned(),
            readers: Readers::watch(),
        };
        limits.add(dir, mount.dir());
        limits
    }

    /// Adds the kernel's of a task: on v1 it can be in any memory cgroup.
    pub(super) fn add_task(&mut self, pid: u32) {
        self.readers.add_task(pid);
        let Some(top) = self.v1.clone() else { return };
        let file = directory(pid.cast_signed()).join("cgroup");
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(path) = memory_cgroup(&text) {
            self.add(&top.join(path), &top);
        }
    }

    /// Adds a cgroup of the kernel's and those above it, but not the root, which has no limit.
    fn add(&mut self, dir: &Path, top: &Path) {
        for dir in dir.ancestors().take_while(|dir| *dir != top && dir.starts_with(top)) {
            if !self.kernel.contains_key(dir)
                && let Some(hits) = self.kernel_hits(dir)
            {
                self.kernel.insert(dir.to_owned(), hits);
                self.readers.add_cgroup(dir);
            }
        }
    }

    /// How often the limit of a memory cgroup of the kernel's was hit.
    fn kernel_hits(&self, dir: &Path) -> Option<u64> {
        let read = |name| fs::read_to_string(dir.join(name)).ok();
        if let Some(failcnt) = read("memory.failcnt") {
            return failcnt.trim().parse().ok();
        }
        // Those of others below a cgroup further up are not its own.
        let is_above = self.dir != dir && self.dir.starts_with(dir);
        let events = read(if is_above { "memory.events.local" } else { "memory.events" })?;
        number(&events, "max")
    }

    /// The limits that were hit since they were seen first, a sentence each.
    ///
    /// # Errors
    /// The engine cannot be read.
    pub(super) fn told(&self, engine: &Engine, mount: &CgroupMount) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for (&index, before) in &self.own {
            let counter = engine.counter(index)?;
            let limits = [
                ("limit", counter.memory_limit, &counter.memory),
                ("limit of memory and swap", counter.memsw_limit, &counter.memsw),
            ];
            for ((name, limit, pages), before) in limits.into_iter().zip(before) {
                let times = pages.failcnt.saturating_sub(*before);
                if times > 0 && is_enforced(limit, pages) {
                    let path = mount.path_of(counter.id).unwrap_or_default();
                    let limit = human(limit.saturating_mul(page_size()));
                    all.push(told(&format!("memstock's {name}"), &limit, &path, times));
                }
            }
        }
        for (dir, before) in &self.kernel {
            let times = self.kernel_hits(dir).unwrap_or(0).saturating_sub(*before);
            if times > 0 {
                let limits = ["memory.limit_in_bytes", "memory.max"];
                let limit = limits.iter().find_map(|name| fs::read_to_string(dir.join(name)).ok());
                let limit = limit.and_then(|limit| limit.trim().parse().ok()).map(human);
                let limit = limit.unwrap_or_else(|| "max by now".into());
                all.push(told("the kernel's limit", &limit, dir, times));
            }
        }
        Ok(all)
    }
}

fn hits(counter: &Counter<u64>) -> [u64; 2] {
    [counter.memory.failcnt, counter.memsw.failcnt]
}

/// A limit that is only observed is exceeded, and holds nobody back.
fn is_enforced(limit: u64, pages: &PageCounter<u64>) -> bool {
    limit != NO_LIMIT && pages.watermark <= limit.saturating_add(limit / 50)
}

fn told(whose: &str, limit: &str, path: &Path, times: u64) -> String {
    let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
    format!("{whose} of {limit} for {} was hit {times}: more may be needed", display(path))
}

/// The path of the v1 memory cgroup, relative to the root of its hierarchy, in a `/proc/PID/cgroup`.
fn memory_cgroup(text: &str) -> Option<&str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let (_, path) =
        lines.find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"))?;
    path.strip_prefix('/').filter(|path| !path.starts_with("../"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v1_memory_cgroup_is_found() {
        let text = "9:cpu,memory:/a/b\n8:memory2:/x\n0::/c\n";
        assert_eq!(memory_cgroup(text), Some("a/b"));
        assert_eq!(memory_cgroup("1:memory:/../x\n"), None);
        assert_eq!(memory_cgroup("0::/c\n"), None);
    }

    #[test]
    fn what_is_only_observed_holds_nobody_back() {
        let pages = |watermark| PageCounter { watermark, ..PageCounter::default() };
        let enforced = [(100, 102), (100, 103), (NO_LIMIT, 5)];
        assert_eq!(
            enforced.map(|(limit, watermark)| is_enforced(limit, &pages(watermark))),
            [true, false, false]
        );
    }

    #[test]
    fn hits_on_v2_are_those_below_and_not_those_beside() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("a/b");
        fs::create_dir_all(&dir).unwrap();
        for (dir, local, all) in [(&dir, 1, 3), (&top.path().join("a"), 5, 9)] {
            fs::write(dir.join("memory.events"), format!("low 0\nmax {all}\n")).unwrap();
            fs::write(dir.join("memory.events.local"), format!("low 0\nmax {local}\n")).unwrap();
        }
        let mut limits = Limits {
            own: BTreeMap::new(),
            kernel: BTreeMap::new(),
            v1: None,
            dir: dir.clone(),
            readers: Readers::watch(),
        };
        limits.add(&dir, top.path());
        assert_eq!(limits.kernel.into_values().collect::<Vec<_>>(), [5, 3]);
    }
}
