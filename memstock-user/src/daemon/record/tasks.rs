//! Records processes: which come and go, which hold most, and which size themselves by their limit. Signals nobody.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use memstock_common::record::RecordKind;

use crate::enforce::task::{Task, pids, tasks};
use crate::enforce::victim::badness;
use crate::host::process::{Stat, Status, directory};
use crate::recording::{Holder, Peak};

/// The number of processes recorded at a peak.
const LARGEST: usize = 5;
/// A peak counts as new if the need has grown by one part in so many, from [`SMALLEST`] pages on.
const STEP: u64 = 50;
const SMALLEST: u64 = 256;
/// The pause after a look, in multiples of what the look took.
const PAUSE: u32 = 20;

/// Runtimes that read the limit, and size themselves by it unless they are sets not to.
const RUNTIMES: [&str; 4] = ["java", "node", "nodejs", "dotnet"];

/// Reported once: each child inherits the variable, whatever language it is written in.
const GO: &str = "GOMEMLIMIT is set: if it is a Go program, GOMEMLIMIT must be below the limit";

/// The known processes of a cgroup, by pid.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    living: HashSet<u32>,
    /// Those that died since the last [`forget`](Self::forget).
    dead: HashSet<u32>,
    /// The number of processes so far.
    pub(super) count: u64,
    has_go: bool,
}

impl Tasks {
    /// Notes what happened to a process.
    pub(super) fn note(&mut self, kind: RecordKind, pid: u32) {
        if kind == RecordKind::Died {
            self.living.remove(&pid);
            self.dead.insert(pid);
        } else if self.living.insert(pid) {
            self.count += 1;
        }
    }

    /// Whether a process is one of the cgroup's, or was it before it died just now.
    pub(super) fn has(&self, pid: u32) -> bool {
        self.living.contains(&pid) || self.dead.contains(&pid)
    }

    /// Forgets the dead.
    pub(super) fn forget(&mut self) {
        self.dead.clear();
    }

    /// The processes that exist at the beginning, with their names.
    pub(super) fn begin(&mut self, dir: &Path) -> Vec<(u32, String)> {
        let named = |pid: i32| Some((pid.cast_unsigned(), Stat::read(&directory(pid))?.comm));
        let found: Vec<_> = pids(dir).into_iter().filter_map(named).collect();
        self.living = found.iter().map(|&(pid, _)| pid).collect();
        self.count = found.len() as u64;
        found
    }

    /// What became of the processes that did not die, a sentence each: some run on `here` after COMMAND, and some left
    /// for other cgroups. Those `here` were listed before the last deaths were noted.
    pub(super) fn remaining(&self, here: &[i32], has_command: bool) -> Vec<String> {
        let here: HashSet<_> = here.iter().map(|pid| pid.cast_unsigned()).collect();
        let processes = |count| match count {
            1 => "1 process".to_owned(),
            more => format!("{more} processes"),
        };
        let runs = |pid: &&u32| Task::look(pid.cast_signed()).is_some_and(|task| !task.is_dying);
        let running = if has_command { here.iter().filter(runs).count() } else { 0 };
        let running = (running > 0).then(|| {
            format!("{} ran on when COMMAND ended: later use is not known", processes(running))
        });
        let moved = self.living.difference(&here).count();
        let moved = (moved > 0)
            .then(|| format!("{} left the cgroup: use elsewhere is not known", processes(moved)));
        running.into_iter().chain(moved).collect()
    }

    /// Why a process may size itself by its limit, if that was not reported before.
    pub(super) fn follows_limit(&mut self, pid: u32) -> Option<&'static str> {
        follows_limit(pid).filter(|&why| self.is_new(why))
    }

    /// Whether a process runs none of the runtimes that [`follows_limit`](Self::follows_limit) judges.
    pub(super) fn is_unknown(pid: u32) -> bool {
        let exe = fs::read_link(directory(pid.cast_signed()).join("exe")).unwrap_or_default();
        !exe.file_name().is_some_and(|name| RUNTIMES.iter().any(|runtime| name == *runtime))
    }

    fn is_new(&mut self, why: &str) -> bool {
        why != GO || !std::mem::replace(&mut self.has_go, true)
    }
}

/// Looks for the largest processes at each new peak.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    /// Need at the last peak, in pages.
    last: u64,
    /// No look before this time.
    next: Option<Instant>,
}

impl Peaks {
    /// The largest processes of the cgroup with this directory, if `needed`, in pages, is a new peak.
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

/// The processes that the kernel would kill first at a limit of `total` pages.
fn largest(tasks: Vec<Task>, total: u64) -> Vec<Holder> {
    let judged = tasks.into_iter().filter_map(|task| Some((badness(&task, total)?, task)));
    let mut judged: Vec<_> = judged.collect();
    // The youngest of equals first, as in `victim::choose`.
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

/// Why a process may size itself by the limit that it reads; judged by its program, arguments and environment.
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
    let sets =
        |beginning: &str| arguments.iter().chain(environment).any(|word| word.contains(beginning));
    match program {
        "java" if sets("-Xmx") => None,
        "java" => Some("the JVM sizes its heap by the limit (-Xmx is not set)"),
        "node" | "nodejs" if sets("--max-old-space-size") || sets("--max_old_space_size") => None,
        "node" | "nodejs" => {
            Some("Node.js sizes its heap by the limit (--max-old-space-size is not set)")
        }
        "dotnet" if sets("GCHeapHardLimit") => None,
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
    fn who_runs_on_or_left_is_reported() {
        let (mut tasks, own) = (Tasks::default(), std::process::id());
        for pid in [7_000_007, 7_000_008, own] {
            tasks.note(RecordKind::Born, pid);
        }
        let left = "3 processes left the cgroup: use elsewhere is not known";
        assert_eq!(tasks.remaining(&[], true), [left]);
        tasks.note(RecordKind::Died, 7_000_007);
        let runs = "1 process ran on when COMMAND ended: later use is not known";
        let left = "1 process left the cgroup: use elsewhere is not known";
        assert_eq!(tasks.remaining(&[own.cast_signed()], true), [runs, left]);
        // One that is ending was listed, and has no memory any more.
        assert_eq!(tasks.remaining(&[own.cast_signed(), 7_000_008], true), [runs]);
        assert_eq!(tasks.remaining(&[own.cast_signed()], false), [left], "a service runs on");
    }

    #[test]
    fn processes_of_the_beginning_are_counted() {
        let (dir, own) = (tempfile::tempdir().unwrap(), std::process::id());
        fs::write(dir.path().join("cgroup.procs"), own.to_string()).unwrap();
        let mut tasks = Tasks::default();
        let found: Vec<_> = tasks.begin(dir.path()).into_iter().map(|(pid, _)| pid).collect();
        assert_eq!((found, tasks.count), (vec![own], 1));
        tasks.note(RecordKind::Exec, own);
        assert_eq!(tasks.count, 1, "it is known");
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
