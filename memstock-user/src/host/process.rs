//! Owns what `/proc` says about processes (`stat`, `status`, `cgroup`), and which processes a cgroup has.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::figure;

/// `PF_EXITING` (`include/linux/sched.h`): an exiting task is no longer in any cgroup v1.
const EXITING: u64 = 4;
/// `PF_KTHREAD`.
const KERNELS: u64 = 0x0020_0000;

/// The fields of `/proc/PID/stat` that are used (proc_pid_stat(5)).
pub struct Stat {
    /// Its name, of up to 15 bytes.
    pub comm: String,
    state: char,
    flags: u64,
    /// When it was started, in clock ticks since boot.
    pub started: u64,
    /// Resident pages.
    pub rss: u64,
}

impl Stat {
    /// Reads that of the process or thread with this directory in `/proc`; none if it is gone.
    pub fn read(dir: &Path) -> Option<Self> {
        Self::parse(&fs::read(dir.join("stat")).ok()?)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        // The name may contain anything, including brackets.
        let (name, rest) = text.rsplit_once(") ")?;
        let comm = name.split_once('(')?.1.to_owned();
        // The first of these is field 3.
        let fields: Vec<_> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            comm,
            state: field(3)?.chars().next()?,
            flags: field(9)?.parse().ok()?,
            started: field(22)?.parse().ok()?,
            rss: field(24)?.parse().ok()?,
        })
    }

    /// Whether it is a kernel thread.
    pub fn is_kernels(&self) -> bool {
        self.flags & KERNELS != 0
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The text of `/proc/PID/status`.
pub struct Status(String);

impl Status {
    /// Reads that of the process or thread with this directory in `/proc`; none if it is gone.
    pub fn read(dir: &Path) -> Option<Self> {
        // A name need not be UTF-8, and must not hide a process from a limit.
        let text = fs::read(dir.join("status")).ok()?;
        Some(Self(String::from_utf8_lossy(&text).into_owned()))
    }

    /// The value of the line `name`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The same, in pages; 0 if the line is missing.
    pub fn pages(&self, name: &str) -> u64 {
        figure(&self.0, name)
    }
}

/// The cgroups of a task.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The path of its cgroup v2.
    pub unified: Option<PathBuf>,
    /// The path of its cgroup in the v1 memory hierarchy.
    pub memory: Option<PathBuf>,
}

impl Places {
    /// Reads that of the process or thread with this directory in `/proc`; none if it is gone.
    pub fn read(dir: &Path) -> Option<Self> {
        Some(Self::parse(&fs::read(dir.join("cgroup")).ok()?))
    }

    fn parse(text: &[u8]) -> Self {
        let mut places = Self::default();
        for line in text.split(|&byte| byte == b'\n') {
            // "4:memory,hugetlb:/path" and "0::/path".
            let mut parts = line.splitn(3, |&byte| byte == b':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let path = || Some(Path::new(OsStr::from_bytes(path)).to_owned());
            if controllers.is_empty() {
                places.unified = path();
            } else if controllers.split(|&byte| byte == b',').any(|name| name == b"memory") {
                places.memory = path();
            }
        }
        places
    }
}

/// The number of the hierarchy that has the kernel's memory controller; 0 for cgroup v2, and if no v1 hierarchy has it.
///
/// # Errors
/// `/proc` does not say.
pub fn memory_hierarchy() -> io::Result<u32> {
    Ok(hierarchy_of_memory(&fs::read_to_string("/proc/self/cgroup")?))
}

fn hierarchy_of_memory(text: &str) -> u32 {
    let of_memory = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, _) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == "memory").then(|| number.parse().ok())?
    };
    text.lines().find_map(of_memory).unwrap_or(0)
}

/// The path of our own cgroup v2.
///
/// # Errors
/// `/proc` does not say.
pub fn own_cgroup() -> io::Result<PathBuf> {
    let places = Places::parse(&fs::read("/proc/self/cgroup")?);
    places.unified.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Its directory in `/proc`.
pub fn directory(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// The directory in `/proc` that describes the memory of a process: its own or, once its main thread has ended, that of
/// a thread that still runs. None when all have ended.
pub fn living(pid: i32) -> Option<PathBuf> {
    let dir = directory(pid);
    if !Stat::read(&dir)?.has_ended() {
        return Some(dir);
    }
    let threads = fs::read_dir(dir.join("task")).ok()?.flatten().map(|thread| thread.path());
    threads.into_iter().find(|thread| Stat::read(thread).is_some_and(|stat| !stat.has_ended()))
}

/// Whether it is exiting, or gone.
pub fn is_ending(pid: i32) -> bool {
    Stat::read(&directory(pid)).is_none_or(|stat| stat.flags & EXITING != 0)
}

/// The processes of the cgroup with the directory `dir`. A threaded one has none: they belong to the domain.
///
/// # Errors
/// The cgroup is gone, or it is threaded.
pub fn processes(dir: &Path) -> io::Result<Vec<i32>> {
    Ok(numbers(&fs::read_to_string(dir.join("cgroup.procs"))?).collect())
}

/// The processes with a thread in the cgroup with the directory `dir`.
///
/// # Errors
/// The cgroup is gone.
pub fn processes_with_threads(dir: &Path) -> io::Result<Vec<i32>> {
    match processes(dir) {
        // `cgroup_procs_start` in `kernel/cgroup/cgroup.c`.
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            let threads = fs::read_to_string(dir.join("cgroup.threads"))?;
            Ok(numbers(&threads).filter_map(process_of).collect())
        }
        read => read,
    }
}

/// One number per line; 0 is a process of another pid namespace.
fn numbers(text: &str) -> impl Iterator<Item = i32> {
    text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid != 0)
}

/// The process of a thread.
fn process_of(thread: i32) -> Option<i32> {
    Status::read(&directory(thread))?.field("Tgid")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::page_size;

    #[test]
    fn a_process_is_where_a_thread_lives() {
        let pid = std::process::id().cast_signed();
        assert_eq!(living(pid), Some(directory(pid)));
        assert_eq!(living(i32::MAX), None);
        assert!(!is_ending(pid) && is_ending(i32::MAX));
    }

    #[test]
    fn names_may_look_like_the_rest() {
        let fields = (4..=24).map(|n| format!(" {n}")).collect::<String>();
        let stat = Stat::parse(format!("7 (a) R (b) S{fields} 25").as_bytes()).unwrap();
        assert_eq!((stat.comm.as_str(), stat.state), ("a) R (b", 'S'));
        assert_eq!((stat.flags, stat.started, stat.rss), (9, 22, 24));
        assert!(Stat::parse(b"7 (a) S 1 2").is_none());
    }

    /// A process with such a name must not be spared at a limit.
    #[test]
    fn a_name_need_not_be_utf8() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(OsStr::from_bytes(b"\xff"));
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let status = Status::read(&directory(child.id().cast_signed()));
        child.kill().and_then(|()| child.wait()).unwrap();
        let status = status.expect("it is there");
        assert!(status.field("Name").is_some() && status.pages("VmSize") > 0);
    }

    #[test]
    fn lines_of_status_are_read() {
        let status = Status("VmSwap:\t   8 kB\nShdPnd:\t0000000000000100\n".into());
        assert_eq!(status.pages("VmSwap") * page_size(), 8192);
        assert_eq!(status.field("ShdPnd"), Some("0000000000000100"));
        assert_eq!((status.field("Vm"), status.pages("VmPTE")), (None, 0));
    }

    #[test]
    fn a_task_is_in_two_places() {
        let text = b"13:name=x:/x\n4:hugetlb,memory:/a/b:c\n1:cpu:/y\n0::/a \xff\n";
        let path = |bytes| Some(Path::new(OsStr::from_bytes(bytes)).to_owned());
        assert_eq!(
            Places::parse(text),
            Places { unified: path(b"/a \xff"), memory: path(b"/a/b:c") }
        );
        assert_eq!(Places::parse(b"0::/a\n"), Places { unified: path(b"/a"), memory: None });
        assert_eq!(Places::parse(b""), Places::default());
    }

    #[test]
    fn the_memory_controller_has_a_hierarchy() {
        let text = "13:name=memory:/x\n4:hugetlb,memory:/a/b:c\n0::/a\n";
        assert_eq!(hierarchy_of_memory(text), 4);
        assert_eq!(hierarchy_of_memory("0::/memory\n"), 0);
    }

    #[test]
    fn processes_are_numbers() {
        assert_eq!(numbers("12\n0\nx\n7\n").collect::<Vec<_>>(), [12, 7]);
        let pid = std::process::id().cast_signed();
        assert_eq!(process_of(pid), Some(pid));
        let thread = std::thread::spawn(|| process_of(rustix::thread::gettid().as_raw_pid()));
        assert_eq!(thread.join().unwrap(), Some(pid));
    }
}
