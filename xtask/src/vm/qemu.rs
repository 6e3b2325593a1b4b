//! Runs one guest in QEMU, and ends one that hangs.
//!
//! The first serial line writes the kernel's log to a file; the second brings the output of the tests through a pipe. A
//! trial boot finds out whether hardware virtualisation works.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::emulator::Emulator;
use super::kernel::Kernel;
use super::{Cgroups, Guest};
use crate::arch::Arch;
use crate::exec::say;

/// A guest hangs if it prints nothing on either line for this long. A test that waits in vain fails earlier.
const SILENCE: Duration = Duration::from_secs(1200);
/// The longest that a guest may run.
const TOTAL: Duration = Duration::from_secs(4 * 3600);
/// How often the log is checked.
const TURN: Duration = Duration::from_secs(5);
/// A kernel that is not emulated prints its version within this time.
const PROBE: Duration = Duration::from_secs(5);

/// `--accel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// Whatever works.
    Auto,
    /// Hardware virtualisation.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// What to boot.
pub struct Machine<'a> {
    /// Its configuration.
    pub guest: &'a Guest,
    /// The QEMU that runs it.
    pub emulator: &'a Emulator,
    /// Its kernel.
    pub kernel: &'a Kernel,
    /// Its root file system.
    pub disk: &'a Path,
    /// Where its kernel's log goes.
    pub log: &'a Path,
    /// [`Accel::Kvm`] or [`Accel::Tcg`].
    pub accel: Accel,
}

impl Machine<'_> {
    fn command(&self) -> Result<Command> {
        let Self { guest, emulator, kernel, disk, log, accel } = self;
        let mut cmd = qemu(emulator, *accel, kernel);
        let mut cpus = format!("cpus={}", guest.cpus);
        if let Some(most) = guest.possible {
            // A socket for each CPU, because Linux does not expect a CPU to be missing in a socket that is present.
            let most = most.max(guest.cpus);
            write!(cpus, ",maxcpus={most},sockets={most},cores=1,threads=1")?;
        }
        cmd.args(["-smp", &cpus, "-m", &format!("{}M", guest.memory)]);
        // The disk is thrown away with the guest, so nothing has to reach the host's disk.
        cmd.arg("-drive")
            .arg(format!("file={},if=none,id=root,format=raw,cache=unsafe", disk.display()));
        cmd.args(["-device", "nvme,drive=root,serial=memstock"]);
        cmd.arg("-serial").arg(format!("file:{}", log.display()));
        // A second serial line; the Arm machine has only one of its own.
        cmd.args(match emulator.arch {
            Arch::Amd64 => ["-serial", "stdio"].as_slice(),
            Arch::Arm64 => &["-chardev", "stdio,id=tests", "-device", "pci-serial,chardev=tests"],
        });
        // Emulated CPUs run one at a time: do not check the timer against the clock, and report only long
        // stalls.
        let mut append = format!(
            "console={} panic=-1 root=/dev/nvme0n1 rootfstype=ext4 rw rootwait init=/init \
            mitigations=off no_timer_check rcupdate.rcu_cpu_stall_timeout=120",
            console(emulator.arch)
        );
        if let Some(preempt) = guest.preempt {
            write!(append, " preempt={}", preempt.name())?;
        }
        if guest.cgroups == Cgroups::None {
            append.push_str(" cgroup_disable=memory");
        }
        if guest.nohz_full {
            let last = guest.cpus.checked_sub(1).filter(|last| *last > 0);
            let last = last.context("--nohz-full needs a second CPU")?;
            write!(append, " nohz_full=1-{last} rcu_nocbs=1-{last}")?;
        }
        cmd.arg("-append").arg(append);
        Ok(cmd)
    }
}

/// The kernel's name of the first serial line.
fn console(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "ttyS0",
        Arch::Arm64 => "ttyAMA0",
    }
}

/// QEMU with the options of every machine.
fn qemu(emulator: &Emulator, accel: Accel, kernel: &Kernel) -> Command {
    let mut cmd = emulator.mortal();
    // One thread for all emulated CPUs. With a thread for each, QEMU 7.2 may run old code after another CPU changed
    // it. When the kernel turns a tracepoint on, it puts a breakpoint there for a moment; a CPU that hits it after the
    // kernel has forgotten it crashes. Guests of 6.12 did so twice ("Oops: int3" in exc_page_fault).
    let (accel, cpu) = match (accel, emulator.arch) {
        (Accel::Kvm, _) => ("kvm", "host"),
        (_, Arch::Amd64) => ("tcg,thread=single", "max"),
        // A newer CPU signs pointers, which is expensive to emulate.
        (_, Arch::Arm64) => ("tcg,thread=single", "cortex-a72"),
    };
    cmd.args(["-accel", accel, "-cpu", cpu, "-display", "none", "-no-reboot", "-nodefaults"]);
    if emulator.arch == Arch::Arm64 {
        cmd.args(["-machine", "virt,gic-version=3"]);
    }
    cmd.arg("-kernel").arg(&kernel.image);
    cmd.stdin(Stdio::null());
    cmd
}

/// How to boot: as requested, or what works.
pub fn accel(wish: Accel, emulator: &Emulator, kernel: &Kernel, place: &Path) -> Result<Accel> {
    if wish != Accel::Auto {
        return Ok(wish);
    }
    if emulator.arch != Arch::HOST || !Path::new("/dev/kvm").exists() {
        return Ok(Accel::Tcg);
    }
    let works = boots_with_kvm(emulator, kernel, &place.join("probe"))?;
    say("Guest", if works { "with KVM" } else { "/dev/kvm exists but boots no guest: emulated" });
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}

/// Whether a kernel prints its first line under KVM; it has no root and ends by a panic.
fn boots_with_kvm(emulator: &Emulator, kernel: &Kernel, log: &Path) -> Result<bool> {
    let mut cmd = qemu(emulator, Accel::Kvm, kernel);
    let append = format!("console={} panic=-1", console(emulator.arch));
    cmd.args(["-m", "512M", "-append", &append, "-serial"]);
    cmd.arg(format!("file:{}", log.display())).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running(cmd.spawn().context("cannot start QEMU")?);
    let end = Instant::now() + PROBE;
    while Instant::now() < end && running.0.try_wait()?.is_none() {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).contains("Linux version"))
}

/// Boots the machine, calls `hear` for each line that it prints, and waits for its end.
///
/// # Errors
/// If it does not start, or hangs and is killed.
pub fn run(machine: &Machine<'_>, mut hear: impl FnMut(&str)) -> Result<()> {
    // Empty the log of an earlier guest.
    fs::write(machine.log, "").with_context(|| machine.log.display().to_string())?;
    let mut cmd = machine.command()?;
    let mut child = cmd.stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
    let output = child.stdout.take().context("a child without its output")?;
    let mut running = Running(child);
    let (lines, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while output.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            if lines
                .send(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
                .is_err()
            {
                break;
            }
            bytes.clear();
        }
    });
    let mut watch = Watch::new(Instant::now());
    loop {
        match heard.recv_timeout(TURN) {
            Ok(line) => {
                hear(&line);
                watch.heard(Instant::now());
            }
            Err(RecvTimeoutError::Timeout) => {
                let length = fs::metadata(machine.log).map_or(0, |data| data.len());
                watch.log(length, Instant::now());
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let Some(hang) = watch.hangs(Instant::now()) {
            bail!("the guest hangs: {hang}");
        }
    }
    let status = running.wait()?;
    if !status.success() {
        bail!("QEMU failed ({status})");
    }
    Ok(())
}

/// A machine; killed when dropped.
struct Running(Child);

impl Running {
    fn wait(&mut self) -> Result<ExitStatus> {
        self.0.wait().context("the end of QEMU")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// When the guest printed something last.
struct Watch {
    start: Instant,
    last: Instant,
    log: u64,
}

/// Why a guest counts as hanging.
#[derive(Debug, PartialEq, Eq)]
enum Hang {
    Silence,
    Total,
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => write!(f, "it has printed nothing for {SILENCE:?}"),
            Self::Total => write!(f, "it has run for {TOTAL:?}"),
        }
    }
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self { start: now, last: now, log: 0 }
    }

    fn heard(&mut self, now: Instant) {
        self.last = now;
    }

    fn log(&mut self, length: u64, now: Instant) {
        if length != self.log {
            (self.log, self.last) = (length, now);
        }
    }

    fn hangs(&self, now: Instant) -> Option<Hang> {
        if now - self.last > SILENCE {
            Some(Hang::Silence)
        } else if now - self.start > TOTAL {
            Some(Hang::Total)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_grows_is_a_sign_of_life() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let late = start + SILENCE + TURN;
        assert_eq!(watch.hangs(late), Some(Hang::Silence));
        watch.log(10, late);
        assert_eq!(watch.hangs(late), None);
        watch.log(10, late + SILENCE + TURN);
        assert_eq!(watch.hangs(late + SILENCE + TURN), Some(Hang::Silence));
        watch.heard(start + TOTAL + TURN);
        assert_eq!(watch.hangs(start + TOTAL + TURN), Some(Hang::Total));
    }
}
