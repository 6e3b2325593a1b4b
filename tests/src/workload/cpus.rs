//! Sets of CPUs, and pinning to a CPU.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// `all`, or numbers separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// All that this process may run on.
    All,
    /// These.
    List(Vec<u32>),
}

impl FromStr for Cpus {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Self::All);
        }
        let cpu =
            |word: &str| word.parse().with_context(|| format!("{word:?} is not a CPU number"));
        Ok(Self::List(text.split(',').map(cpu).collect::<Result<_>>()?))
    }
}

impl Cpus {
    /// The numbers.
    ///
    /// # Errors
    /// When the kernel refuses to say what this process may run on.
    pub fn numbers(&self) -> Result<Vec<u32>> {
        match self {
            Self::List(numbers) => Ok(numbers.clone()),
            Self::All => {
                let allowed = sched_getaffinity(None).context("the CPUs of this process")?;
                let set = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
                Ok(set.map(u32::try_from).collect::<Result<_, _>>()?)
            }
        }
    }
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
