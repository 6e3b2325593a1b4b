//! The CPUs of a process, and pinning to one.

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that this process may run on.
///
/// # Errors
/// When the kernel refuses to say.
pub fn allowed() -> Result<Vec<u32>> {
    let allowed = sched_getaffinity(None).context("the CPUs of this process")?;
    let set = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    Ok(set.map(u32::try_from).collect::<Result<_, _>>()?)
}

/// Pins this thread to `cpu`.
///
/// # Errors
/// When there is no such CPU, or it is offline.
pub fn pin(cpu: u32) -> Result<()> {
    pin_to(None, cpu)
}

/// Runs `done` on `cpu`, and restores the thread's affinity.
///
/// # Errors
/// As [`pin`], and those of `done`.
pub fn on<T>(cpu: u32, done: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None).context("the CPUs of this thread")?;
    pin(cpu)?;
    let result = done();
    sched_setaffinity(None, &before).context("moving back")?;
    result
}

/// Pins the only thread of the process `pid` to `cpu`.
///
/// # Errors
/// When there is no such process or CPU, or it is offline.
pub fn pin_process(pid: u32, cpu: u32) -> Result<()> {
    pin_to(Pid::from_raw(pid.cast_signed()), cpu)
}

fn pin_to(pid: Option<Pid>, cpu: u32) -> Result<()> {
    let number = usize::try_from(cpu)?;
    ensure!(number < CpuSet::MAX_CPU, "there is no CPU {cpu}");
    let mut set = CpuSet::new();
    set.set(number);
    sched_setaffinity(pid, &set).with_context(|| format!("moving to CPU {cpu}"))
}
