//! Owns what is recorded of processes: who comes and goes, who holds most, and who sizes itself by its limit. Signals
//! nobody.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use memstock_common::record::RecordKind;

use crate::enforce::task::{Task, pids, tasks};
use crate::enforce::victim::badness;
use crate::host::process::{Stat, Status, directory};
use crate::recording::{Holder, Peak};

/// How many of the largest are recorded.
const LARGEST: usize = 5;
/// They are looked for when what is needed has grown by one part in so many, from this many pages on.
const STEP: u64 = 50;
const SMALLEST: u64 = 256;
/// A look is followed by a pause of so many times what it took.
const PAUSE: u32 = 20;

/// Said once: each child inherits the variable, whatever it is written in.
const GO: &str = "GOMEMLIMIT is set: if it is a Go program, GOMEMLIMIT must be below the limit";

/// The processes of a cgroup, as far as they are known, by pid.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    living: HashSet<u32>,
    /// How many there were in all.
    pub(super) count: u64,
    has_go: bool,
}

impl Tasks {
    /// Something happened to one.
    pub(super) fn note(&mut self, kind: RecordKind, pid: u32) {
        if kind == RecordKind::Died {
            self.living.remove(&pid);
        } else if self.living.insert(pid) {
            self.count += 1;
        }
    }

    /// Those that are there when it begins, with their names.
    pub(super) fn begin(&mut self, dir: &Path) -> Vec<(u32, String)> {
        let named = |pid: i32| Some((pid.cast_unsigned(), Stat::read(&directory(pid))?.comm));
        let found: Vec<_> = pids(dir).into_iter().filter_map(named).collect();
        self.living = found.iter().map(|&(pid, _)| pid).collect();
        self.count = found.len() as u64;
        found
    }

    /// Why a process may size itself by its limit, if there is something new to be said of it.
    pub(super) fn follows_limit(&mut self, pid: u32) -> Option<&'static str> {
        follows_limit(pid).filter(|&why| self.is_new(why))
    }

    fn is_new(&mut self, why: &str) -> bool {
        why != GO || !std::mem::replace(&mut self.has_go, true)
    }
}

/// Looks for the largest at each new peak.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    /// What was needed at the last one, in pages.
    last: u64,
    /// Not before: the last look took its time.
    next: Option<Instant>,
}

impl Peaks {
    /// The largest of the cgroup with this directory, if what is needed, in pages, is a new peak.
    pub(super) fn step(&mut self, at: Duration, dir: &Path, needed: u64) -> Option<Peak> {
        let begun = Instant::now();
        let is_new = needed >= SMALLEST && needed > self.last + self.last / STEP;
        if !is_new || self.next.is_some_and(|next| begun < next) {
            return None;
        }
        self.last = needed;
        let peak = Peak { at, needed, tasks: largest(tasks(dir), needed) };
        self.next = Some(begun + begun.elapsed() * PAUSE);
        Some(peak)
    }
}

/// Those whom the kernel would kill first at a limit of `total` pages.
fn largest(tasks: Vec<Task>, total: u64) -> Vec<Holder> {
    let judged = tasks.into_iter().filter_map(|task| Some((badness(&task, total)?, task)));
    let mut judged: Vec<_> = judged.collect();
    // Among equals the youngest, as where one is chosen.
    judged.sort_by_key(|(badness, task)| std::cmp::Reverse((*badness, task.started)));
    judged.truncate(LARGEST);
    let holder = |(badness, task): (i64, Task)| Holder {
        pid: task.pid.cast_unsigned(),
        anon: Status::read(&directory(task.pid)).map_or(0, |status| status.pages("RssAnon")),
        comm: task.comm,
        badness: badness.max(0).cast_unsigned(),
    };
    judged.into_iter().map(holder).collect()
}

/// Why a process may size itself by its limit, which it reads itself; by its program and what that was told.
fn follows_limit(pid: u32) -> Option<&'static str> {
    let dir = directory(pid.cast_signed());
    let words = |name: &str| {
        let bytes = fs::read(dir.join(name)).unwrap_or_default();
        let words =
            bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        words.collect::<Vec<_>>()
    };
    let exe = fs::read_link(dir.join("exe")).ok()?;
    let program = exe.file_name()?.to_string_lossy().into_owned();
    reason(&program, &words("cmdline"), &words("environ"))
}

fn reason(program: &str, arguments: &[String], environment: &[String]) -> Option<&'static str> {
    let told =
        |beginning: &str| arguments.iter().chain(environment).any(|word| word.contains(beginning));
    match program {
        "java" if told("-Xmx") => None,
        "java" => Some("the JVM sizes its heap by the limit (-Xmx is not set)"),
        "node" | "nodejs" if told("--max-old-space-size") || told("--max_old_space_size") => None,
        "node" | "nodejs" => {
            Some("Node.js sizes its heap by the limit (--max-old-space-size is not set)")
        }
        "dotnet" if told("GCHeapHardLimit") => None,
        "dotnet" => Some(".NET sizes its heap by the limit (GCHeapHardLimit is not set)"),
        _ if environment.iter().any(|word| word.starts_with("GOMEMLIMIT=")) => Some(GO),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn runtimes_that_follow_their_limit_are_known() {
        let none = words(&[]);
        assert!(reason("java", &words(&["java", "-jar", "a.jar"]), &none).is_some());
        assert!(reason("java", &words(&["java", "-Xmx1g"]), &none).is_none());
        assert!(reason("java", &none, &words(&["JAVA_TOOL_OPTIONS=-Xms1g -Xmx1g"])).is_none());
        assert!(reason("node", &none, &none).is_some());
        assert!(
            reason("node", &none, &words(&["NODE_OPTIONS=--max-old-space-size=512"])).is_none()
        );
        assert!(reason("dotnet", &none, &none).is_some());
        assert!(reason("server", &none, &words(&["GOMEMLIMIT=1GiB"])).is_some());
        assert!(reason("cat", &words(&["cat", "GOMEMLIMIT=1"]), &none).is_none());
    }

    #[test]
    fn the_largest_come_first_and_some_never() {
        let task = |pid, rss, adj| Task {
            pid,
            started: pid.unsigned_abs().into(),
            comm: String::new(),
            rss,
            swap: 0,
            page_tables: 0,
            adj,
            is_dying: false,
        };
        let all = (2..10).map(|n| task(n, n.unsigned_abs().into(), 0)).chain([task(1, 99, 0)]);
        let found = largest(all.chain([task(20, 999, -1000)]).collect(), 1000);
        let pids: Vec<_> = found.iter().map(|holder| holder.pid).collect();
        assert_eq!(pids, [9, 8, 7, 6, 5]);
        assert_eq!(found[0].badness, 9);
    }

    #[test]
    fn processes_are_counted_once() {
        let mut tasks = Tasks::default();
        for (kind, pid) in [
            (RecordKind::Exec, 7),
            (RecordKind::Born, 8),
            (RecordKind::Exec, 8),
            (RecordKind::Died, 8),
            (RecordKind::Born, 8),
        ] {
            tasks.note(kind, pid);
        }
        assert_eq!(tasks.count, 3);
    }

    #[test]
    fn what_children_inherit_is_said_once() {
        let mut tasks = Tasks::default();
        assert_eq!([GO, "JVM", GO, "JVM"].map(|why| tasks.is_new(why)), [true, true, false, true]);
    }

    #[test]
    fn we_follow_no_limit() {
        assert_eq!(follows_limit(std::process::id()), None);
        assert_eq!(follows_limit(u32::MAX >> 1), None);
    }
}
