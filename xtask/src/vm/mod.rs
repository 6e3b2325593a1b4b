//! `cargo xtask vm`: runs the live tests in a guest with another kernel, more CPUs, or other cgroup hierarchies.
//!
//! Owns the verb, and the run of one guest. The guest runs the test binaries of the host, and its results go into the
//! same tally; a complaint in its kernel's log counts as a failure.

mod console;
mod disk;
mod emulator;
mod extent;
mod kernel;
mod klog;
mod matrix;
mod qemu;
mod show;
mod systemd;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use self::console::Console;
use self::emulator::Emulator;
pub use self::extent::{Extent, guests};
use self::kernel::Kernel;
pub use self::matrix::run as matrix;
pub use self::show::{PROGRAMS, show};
use crate::arch::Arch;
use crate::setup::{self, BpfToolchain, apt};
use crate::test::binaries::{self, BENCH, Binary, TEST};
use crate::test::tally::Tally;
use crate::{cache, exec, pins};

/// The binary of the live tests.
const LIVE: &str = "live";

/// The configuration of a guest.
#[derive(Clone, Debug, clap::Args)]
pub struct Guest {
    /// Line of the kernel: 6.1, 6.12, 6.18 or 7.3.
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// Its architecture; one that is not this host's is emulated.
    #[arg(long, value_enum, default_value_t = Arch::HOST)]
    arch: Arch,
    /// Number of CPUs.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Number of possible CPUs, for what costs by the possible CPU [default: no more]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=254))]
    possible: Option<u32>,
    /// Which hierarchy has the memory controller: v2, a v1 hierarchy beside it (hybrid), or none.
    #[arg(long, value_enum, default_value_t = Cgroups::V2)]
    cgroups: Cgroups,
    /// Preemption mode of the kernel [default: as it was built]
    #[arg(long, value_enum)]
    preempt: Option<Preempt>,
    /// Run all CPUs but the first without a tick and without RCU callbacks (`nohz_full=`, `rcu_nocbs=`).
    #[arg(long)]
    nohz_full: bool,
    /// Memory of the guest, in MiB.
    #[arg(long, default_value_t = 3072)]
    memory: u32,
    /// Hardware virtualisation or software emulation; auto uses the former if a guest really boots with it.
    #[arg(long, value_enum, default_value_t = qemu::Accel::Auto)]
    accel: qemu::Accel,
}

/// Which hierarchy has the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cgroups {
    /// Only v2, at /sys/fs/cgroup.
    V2,
    /// v1 memory beside a v2 hierarchy without controllers.
    Hybrid,
    /// Only v2, with the memory controller turned off (`cgroup_disable=memory`).
    None,
}

/// `preempt=` of the kernel's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Preempt {
    /// Nowhere in the kernel.
    None,
    /// At explicit points: as Debian builds Linux 6.1 and 6.12.
    Voluntary,
    /// Where no lock is held, at the next tick: as Debian builds newer ones.
    Lazy,
    /// Wherever no lock is held, at once.
    Full,
}

impl Preempt {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Voluntary => "voluntary",
            Self::Lazy => "lazy",
            Self::Full => "full",
        }
    }

    /// Its option in a kernel configuration.
    fn option(self) -> &'static str {
        match self {
            Self::None => "CONFIG_PREEMPT_NONE",
            Self::Voluntary => "CONFIG_PREEMPT_VOLUNTARY",
            Self::Lazy => "CONFIG_PREEMPT_LAZY",
            Self::Full => "CONFIG_PREEMPT",
        }
    }
}

impl Guest {
    fn of(kernel: &str, cpus: u32, cgroups: Cgroups, preempt: Preempt) -> Self {
        let kernel = kernel.to_owned();
        let (possible, accel, preempt) = (None, qemu::Accel::Auto, Some(preempt));
        let (arch, nohz_full, memory) = (Arch::HOST, false, 3072);
        Self { kernel, arch, cpus, possible, cgroups, preempt, nohz_full, memory, accel }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, arch, cpus, possible, cgroups, preempt, nohz_full, .. } = self;
        let arch = if *arch == Arch::HOST { "" } else { &format!(" {}", arch.debian()) };
        let possible = possible.map(|possible| format!(" of {possible}")).unwrap_or_default();
        let cgroups = match cgroups {
            Cgroups::V2 => "cgroup v2",
            Cgroups::Hybrid => "hybrid cgroups",
            Cgroups::None => "no memory controller",
        };
        write!(f, "Linux {kernel}{arch}, {cpus} CPUs{possible}, {cgroups}")?;
        preempt.map_or(Ok(()), |preempt| write!(f, ", preempt={}", preempt.name()))?;
        if *nohz_full { write!(f, ", nohz_full") } else { Ok(()) }
    }
}

/// What runs inside.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Work {
    /// Run only this module of the live tests, such as `hotplug`; may be given more than once.
    #[arg(long = "test")]
    tests: Vec<String>,
    /// Run this benchmark, and only those tests that are named; may be given more than once.
    #[arg(long = "bench")]
    benches: Vec<String>,
    /// Build without optimisations: ready sooner, but several times slower in the guest.
    #[arg(long)]
    dev: bool,
    /// Record the verifier's counts of this kernel.
    #[arg(long)]
    bless: bool,
    /// Factor by which the tests wait longer than on bare hardware.
    #[arg(long, default_value_t = 10)]
    patience: u32,
    /// Percentage of their repetitions that the tests run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    load: u32,
    /// Arguments of the binaries: part of a test's name, or options of libtest or of a benchmark.
    #[arg(last = true)]
    args: Vec<OsString>,
    /// Run `memstock run` with these arguments instead of tests.
    #[arg(skip)]
    shows: bool,
}

/// Runs one guest, and always prints the closing line last.
pub fn run(guest: &Guest, work: &Work) -> Result<()> {
    let mut tally = Tally::default();
    if let Err(error) = alone(&mut tally, guest, work) {
        tally.broken("set-up", &error);
    }
    print!("{tally}");
    if tally.failed() > 0 {
        std::process::exit(1);
    }
    Ok(())
}

fn alone(tally: &mut Tally, guest: &Guest, work: &Work) -> Result<()> {
    let bpf = setup::ensure_for(guest.arch)?;
    prepare()?;
    build(&bpf, work)?;
    boot(tally, &bpf, guest, work)
}

/// Builds what the tests start: for release only these packages, not the whole workspace.
fn build(bpf: &BpfToolchain, work: &Work) -> Result<()> {
    if work.dev {
        return crate::build::workspace(bpf, false);
    }
    let mut cmd = exec::cargo(&["build", "--release", "-p", "memstock", "-p", "memstock-tests"]);
    exec::stream(bpf.apply(&mut cmd)?)
}

/// Installs missing packages, which `cargo xtask setup` does not.
fn prepare() -> Result<()> {
    if apt::usable() {
        apt::install("what the live tests use", pins::DEBIAN_LIVE)?;
    }
    Ok(())
}

fn boot(tally: &mut Tally, bpf: &BpfToolchain, guest: &Guest, work: &Work) -> Result<()> {
    let (emulator, kernel) =
        (Emulator::ensure(guest.arch)?, Kernel::get(&guest.kernel, guest.arch)?);
    let guest = &Guest { preempt: Some(kernel.preempt(guest.preempt)?), ..guest.clone() };
    let tests = test_binaries(bpf, work)?;
    let place = tempfile::Builder::new()
        .prefix("memstock-vm-")
        .tempdir_in(exec::target_dir())
        .context("no place for the guest's disk")?;
    exec::say("Guest", format_args!("{guest}: {}", kernel.release));
    let disk = disk::make(place.path(), bpf, &kernel, &tests, guest, work)?;
    let name = guest.to_string().replace(", ", "-").replace([' ', '='], "_");
    let log = cache::log(&format!("vm-{name}"))?;
    let accel = qemu::accel(guest.accel, &emulator, &kernel, place.path())?;
    let mut console = Console::default();
    let mut place = Some(place);
    let ended = qemu::run(
        &qemu::Machine {
            guest,
            emulator: &emulator,
            kernel: &kernel,
            disk: &disk,
            log: &log,
            accel,
        },
        |line| {
            // QEMU has the disk open, so its file can be removed: nothing is left however we end from now on.
            drop(place.take());
            console.line(line, tally);
        },
    );
    let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    for complaint in klog::complaints(&String::from_utf8_lossy(&text)) {
        tally.note(&format!("kernel log: {complaint}; see {}", log.display()));
    }
    ended.with_context(|| format!("the kernel's log is {}", log.display()))?;
    let said = console.end(tally);
    tally.skips(&said.skips);
    if !said.verdict {
        bail!("the guest ended without a verdict: see {}", log.display());
    }
    if let Some(budget) = said.budget {
        let path = exec::root().join("tests/verifier-budget.json");
        let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let both = merged(&old, &budget).context("the verifier's counts")?;
        fs::write(&path, both).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Merges two JSON objects; `new` wins. Another guest may have written to the file meanwhile.
fn merged(old: &str, new: &str) -> Result<String> {
    type Object = std::collections::BTreeMap<String, serde_json::Value>;
    let mut both: Object = serde_json::from_str(old)?;
    both.extend(serde_json::from_str::<Object>(new)?);
    Ok(serde_json::to_string_pretty(&both)? + "\n")
}

/// The binaries to run.
fn test_binaries(bpf: &BpfToolchain, work: &Work) -> Result<Vec<PathBuf>> {
    if work.shows {
        return Ok(Vec::new());
    }
    let is_wanted = |binary: &Binary| match &*binary.kind {
        TEST => !work.tests.is_empty() || work.benches.is_empty(),
        BENCH => work.benches.contains(&binary.name),
        _ => false,
    };
    let all = if work.dev {
        // The same build as the host's tests.
        binaries::build(bpf, &binaries::ALL)?
    } else {
        let names = work.benches.iter().flat_map(|name| ["--bench", name]);
        let args = ["--release", "-p", "memstock-tests", "--test", LIVE].into_iter().chain(names);
        binaries::build(bpf, &args.collect::<Vec<_>>())?
    };
    let wanted = all.into_iter().filter(|binary| binary.is_of("tests") && is_wanted(binary));
    Ok(wanted.map(|binary| binary.path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_two_guests_are_kept() {
        let both = merged(r#"{"a": 1, "b": 1}"#, r#"{"b": 2, "c": 3}"#).unwrap();
        let expected = "{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}\n";
        assert_eq!(both, expected);
    }

    #[test]
    fn a_guest_is_told_apart() {
        let mut guest = Guest::of("6.12", 8, Cgroups::V2, Preempt::Full);
        assert_eq!(guest.to_string(), "Linux 6.12, 8 CPUs, cgroup v2, preempt=full");
        (guest.possible, guest.nohz_full) = (Some(64), true);
        assert_eq!(
            guest.to_string(),
            "Linux 6.12, 8 CPUs of 64, cgroup v2, preempt=full, nohz_full"
        );
        let other = [Arch::Amd64, Arch::Arm64].into_iter().find(|arch| *arch != Arch::HOST);
        guest.arch = other.unwrap();
        assert!(guest.to_string().starts_with(&format!("Linux 6.12 {}, ", guest.arch.debian())));
    }
}
