//! Other tools that count page faults, started and ended around a slice. Their output is not read: only their cost is
//! measured.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// How long a tool may take to attach or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// A tool whose descriptors have not changed for this long has attached everything.
const SETTLED: Duration = Duration::from_millis(300);

/// One of these tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name in a report.
    pub name: &'static str,
    /// What a user gets for the cost.
    pub delivers: &'static str,
    command: &'static [&'static str],
}

/// All known tools.
const PEERS: [Peer; 8] = [
    Peer {
        name: "bpftrace tracepoint:",
        delivers: "faults by cgroup",
        command: &[
            "bpftrace",
            "-e",
            "tracepoint:exceptions:page_fault_user { @[cgroup] = count(); }",
        ],
    },
    Peer {
        name: "bpftrace rawtracepoint:",
        delivers: "faults by cgroup",
        command: &["bpftrace", "-e", "rawtracepoint:page_fault_user { @[cgroup] = count(); }"],
    },
    Peer {
        name: "bcc raw tracepoint",
        delivers: "faults by cgroup",
        command: &["/usr/bin/python3", "-c", BCC_RAW],
    },
    Peer {
        name: "bcc raw tracepoint, per CPU",
        delivers: "faults by cgroup",
        command: &["/usr/bin/python3", "-c", BCC_RAW_PER_CPU],
    },
    Peer {
        name: "bcc tracepoint",
        delivers: "faults by cgroup",
        command: &["/usr/bin/python3", "-c", BCC_TRACEPOINT],
    },
    Peer {
        name: "perf stat -a",
        delivers: "faults of the host",
        command: &["perf", "stat", "-a", "-e", "exceptions:page_fault_user"],
    },
    Peer {
        name: "perf record -a",
        delivers: "each fault",
        command: &[
            "perf",
            "record",
            "-q",
            "-a",
            "-e",
            "exceptions:page_fault_user",
            "-o",
            "/dev/null",
        ],
    },
    Peer {
        name: "perf trace -F all",
        delivers: "each fault, decoded",
        command: &["perf", "trace", "-a", "-F", "all", "--no-syscalls", "-o", "/dev/null"],
    },
];

/// A bcc program that counts by cgroup as bcc's tools do, with this kind of map and probe.
/// Compiling it needs the kernel's headers; `BCC_KERNEL_SOURCE` names others.
macro_rules! bcc {
    ($map:literal, $probe:literal) => {
        concat!(
            "from bcc import BPF\nb = BPF(text=\"\"\"\n",
            $map,
            "(counts, u64, u64, 10240);\n",
            $probe,
            " {\n    u64 id = bpf_get_current_cgroup_id();\n    counts.increment(id);\n    return 0;\n}\n",
            "\"\"\")\nimport signal\nsignal.pause()\n",
        )
    };
}
const BCC_RAW: &str = bcc!("BPF_HASH", "RAW_TRACEPOINT_PROBE(page_fault_user)");
/// With the kind of map that bpftrace's `count()` uses: some distributions' bpftrace cannot attach to raw tracepoints.
const BCC_RAW_PER_CPU: &str = bcc!("BPF_PERCPU_HASH", "RAW_TRACEPOINT_PROBE(page_fault_user)");
const BCC_TRACEPOINT: &str = bcc!("BPF_HASH", "TRACEPOINT_PROBE(exceptions, page_fault_user)");

/// A shell script that mounts tracefs for the program, in its own mount namespace, if the host has not mounted it.
const WITH_TRACEFS: &str = "test -e /sys/kernel/tracing/trace \
    || mount -t tracefs tracefs /sys/kernel/tracing; exec \"$@\"";

/// A running, attached peer. Ended on `Drop`.
pub struct Running {
    child: Child,
    said: File,
}

impl Peer {
    /// The peers that work here, and the reasons why the others do not.
    pub fn find() -> (Vec<Self>, Vec<String>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for peer in PEERS {
            match peer.start().and_then(Running::end) {
                Ok(()) => found.push(peer),
                Err(error) => missing.push(format!("{}: {error:#}", peer.name)),
            }
        }
        (found, missing)
    }

    /// Starts it, and waits until it is attached.
    ///
    /// # Errors
    /// When it is not installed or ends at once. Includes the last line of its output.
    pub fn start(&self) -> Result<Running> {
        let said = rustix::fs::memfd_create("memstock-peer", rustix::fs::MemfdFlags::CLOEXEC);
        let said = File::from(said.context("cannot make a memfd")?);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"]).args(self.command);
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
        // SAFETY: between fork and exec only prctl(2) runs; it is async-signal-safe.
        unsafe {
            // It must not outlive a bench that is killed.
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::INT))?));
        }
        let child = command.spawn().context("cannot start unshare")?;
        let mut running = Running { child, said };
        running.wait_until_attached()?;
        Ok(running)
    }
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_attached(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = (0, Instant::now());
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for it")? {
                bail!("it ended ({status}): {}", self.last_words());
            }
            let attached = attachments(self.pid());
            if attached != last.0 {
                last = (attached, Instant::now());
            }
            if attached > 0 && last.1.elapsed() >= SETTLED {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "it does not attach: {}", self.last_words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last line of its output that is not empty.
    fn last_words(&mut self) -> String {
        let mut text = String::new();
        // Opened anew, to read from the start.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.said));
        if let Ok(mut file) = File::open(path) {
            let _ = file.read_to_string(&mut text);
        }
        let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        last.unwrap_or("it said nothing").to_owned()
    }

    /// Ends it and waits until it has ended, so that it is no longer attached.
    ///
    /// # Errors
    /// When it had ended before, so that the measurement was without it.
    pub fn end(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("cannot wait for it")? {
            bail!("it ended ({status}) while it was measured: {}", self.last_words());
        }
        self.stop();
        Ok(())
    }

    fn stop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let deadline = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The number of a process's descriptors that attach something.
fn attachments(pid: u32) -> usize {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_attachment = |target: &Path| {
        let name = target.to_string_lossy();
        ["bpf_link", "bpf-link", "bpf-raw-tracepoint", "perf_event"].iter().any(|kind| {
            name.strip_prefix("anon_inode:")
                .is_some_and(|inode| inode.trim_matches(['[', ']']) == *kind)
        })
    };
    fds.filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|target| is_attachment(target))
        .count()
}
