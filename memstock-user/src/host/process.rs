//! Owns where `/proc` describes a process.

use std::fs;
use std::path::{Path, PathBuf};

/// The fields of `/proc/PID/stat` that are used (proc_pid_stat(5)).
pub struct Stat {
    /// Its name, of up to 15 bytes.
    pub comm: String,
    state: char,
    /// When it was started, in clock ticks since boot.
    pub started: u64,
    /// Resident pages.
    pub rss: u64,
}

impl Stat {
    /// Of a process or thread with this directory in `/proc`; none when it is gone.
    pub fn read(dir: &Path) -> Option<Self> {
        Self::parse(&fs::read(dir.join("stat")).ok()?)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        // The name may hold anything, brackets too.
        let (name, rest) = text.rsplit_once(") ")?;
        let comm = name.split_once('(')?.1.to_owned();
        // The first of these is field 3.
        let fields: Vec<_> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            comm,
            state: field(3)?.chars().next()?,
            started: field(22)?.parse().ok()?,
            rss: field(24)?.parse().ok()?,
        })
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Its directory in `/proc`.
pub fn directory(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// Where in `/proc` a process is described: its own directory, or, once its main thread has ended, which says nothing of
/// memory any more, that of a thread that goes on. None when all have ended.
pub fn living(pid: i32) -> Option<PathBuf> {
    let dir = directory(pid);
    if !Stat::read(&dir)?.has_ended() {
        return Some(dir);
    }
    let threads = fs::read_dir(dir.join("task")).ok()?.flatten().map(|thread| thread.path());
    threads.into_iter().find(|thread| Stat::read(thread).is_some_and(|stat| !stat.has_ended()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_where_a_thread_lives() {
        let pid = std::process::id().cast_signed();
        assert_eq!(living(pid), Some(directory(pid)));
        assert_eq!(living(i32::MAX), None);
    }

    #[test]
    fn names_may_look_like_the_rest() {
        let fields = (4..=24).map(|n| format!(" {n}")).collect::<String>();
        let stat = Stat::parse(format!("7 (a) R (b) S{fields} 25").as_bytes()).unwrap();
        assert_eq!((stat.comm.as_str(), stat.state), ("a) R (b", 'S'));
        assert_eq!((stat.started, stat.rss), (22, 24));
        assert!(Stat::parse(b"7 (a) S 1 2").is_none());
    }
}
