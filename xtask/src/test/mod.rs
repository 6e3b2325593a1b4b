//! `cargo xtask test`: runs all tests, and prints one closing line.
//!
//! A group that does not build, or dies, counts as one failure, and so does each thing that the live tests leave behind
//! on the machine. Where the kernel refuses BPF, each live test and bench reports itself as skipped.

pub mod binaries;
mod host;
pub mod tally;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use memstock_tests::scale::{LOAD, MINUTES};
use memstock_tests::skip::SKIPS;

use self::binaries::{BENCH, Binary};
use self::tally::Tally;
use crate::setup::{self, BpfToolchain, apt, prometheus, runc};
use crate::{bench, build, exec, pins, vm};

/// Name, folders of the packages, arguments of the test binaries.
type Group = (&'static str, &'static [&'static str], &'static [&'static str]);

const COMMON: Group = ("algorithm", &["memstock-common"], &[]);
const USER: Group = ("user half and xtask", &["memstock-user", "xtask"], &[]);
/// One at a time, because they change the state of the whole machine.
const LIVE: Group = ("live", &[TESTS], &[ONE_AT_A_TIME]);
const TESTS: &str = "tests";
const ONE_AT_A_TIME: &str = "--test-threads=1";
/// A test that only another test runs, in a terminal.
const IN_A_TERMINAL: &str = "panics_in_a_terminal";

/// Percentage of its repetitions that a live test runs, unless [`LOAD`] is set; `cargo xtask soak` runs all.
const REPEATED: &str = "5";

struct Run<'a> {
    bpf: BpfToolchain,
    binaries: Vec<Binary>,
    filter: Option<&'a str>,
    bless: bool,
    /// Whether to run tests that take long.
    long: bool,
    args: &'a [OsString],
    /// In a soak, which runs all repetitions: for how many minutes one daemon works.
    soak: Option<u32>,
    prometheus: Option<PathBuf>,
    runc: Option<PathBuf>,
    skips: tempfile::NamedTempFile,
}

/// Runs the tests, and always prints the closing line last.
pub fn run(
    filter: Option<&str>,
    bless: bool,
    long: bool,
    vm: Option<vm::Extent>,
    args: &[OsString],
) -> Result<()> {
    // A test that is named runs even if it takes long.
    let long = long || filter.is_some();
    closing(|tally| everything(tally, Run::new(filter, bless, long, args)?, vm));
    Ok(())
}

/// `cargo xtask soak`: live tests only, with all their repetitions.
pub fn soak(filter: Option<&str>, minutes: u32) -> Result<()> {
    closing(|tally| {
        let mut run = Run::new(filter, false, true, &[])?;
        run.soak = Some(minutes);
        run.build(&["-p", "memstock-tests", "--tests"])?;
        run.on_this_host(tally)?;
        tally.skips(&fs::read_to_string(run.skips.path()).context("the list of skipped tests")?);
        Ok(())
    });
    Ok(())
}

fn closing(tests: impl FnOnce(&mut Tally) -> Result<()>) {
    let mut tally = Tally::default();
    if let Err(error) = tests(&mut tally) {
        tally.broken("set-up", &error);
    }
    print!("{tally}");
    if tally.failed() > 0 {
        std::process::exit(1);
    }
}

fn everything(tally: &mut Tally, mut run: Run<'_>, vm: Option<vm::Extent>) -> Result<()> {
    if let Err(error) = run.build(&binaries::ALL) {
        tally.broken("build", &error);
    }
    run.group(tally, COMMON);
    run.group(tally, USER);
    let refusal = memstock_tests::refusal();
    match refusal {
        None => run.on_this_host(tally)?,
        Some(reason) if vm.is_some_and(vm::Extent::is_all) => {
            exec::say("BPF", format_args!("{reason}; so live tests run in guests only"));
            run.benches(tally);
        }
        // Skipped tests leave nothing behind, so there is nothing to check.
        Some(reason) => {
            exec::say(
                "BPF",
                format_args!(
                    "{reason}; so live tests are skipped (`--vm one` runs them in a guest)"
                ),
            );
            run.live(tally);
            run.benches(tally);
        }
    }
    tally.skips(&fs::read_to_string(run.skips.path()).context("the list of skipped tests")?);
    if let Some(extent) = vm {
        let args: Vec<_> =
            run.filter.map(OsString::from).into_iter().chain(run.args.iter().cloned()).collect();
        vm::guests(tally, &run.bpf, extent, run.bless, &args);
    }
    Ok(())
}

impl<'a> Run<'a> {
    fn new(filter: Option<&'a str>, bless: bool, long: bool, args: &'a [OsString]) -> Result<Self> {
        let skips = tempfile::Builder::new()
            .prefix("memstock-skips-")
            .tempfile()
            .context("cannot make a temporary file; is TMPDIR writable?")?;
        let bpf = setup::ensure()?;
        Ok(Self {
            bpf,
            binaries: Vec::new(),
            filter,
            bless,
            long,
            args,
            soak: None,
            prometheus: None,
            runc: None,
            skips,
        })
    }

    /// Builds the tests that these arguments of `cargo test` name, and what the tests start.
    fn build(&mut self, tests: &[&str]) -> Result<()> {
        // The live tests start `memstock` and its workload from the folder where this puts them.
        build::workspace(&self.bpf, false)?;
        self.binaries = binaries::build(&self.bpf, tests)?;
        Ok(())
    }

    /// Runs live tests and benches on this host, and checks what they leave behind.
    fn on_this_host(&mut self, tally: &mut Tally) -> Result<()> {
        let before = host::cpus()?;
        self.live(tally);
        if self.soak.is_none() {
            self.benches(tally);
        }
        for leftover in host::leftovers(&before)? {
            tally.note(&leftover);
        }
        Ok(())
    }

    fn live(&mut self, tally: &mut Tally) {
        // Tests that need what cannot be installed are skipped, with the reason.
        if apt::usable()
            && let Err(error) = apt::install("what the live tests use", pins::DEBIAN_LIVE)
        {
            exec::say("Setup", format_args!("{error:#}"));
        }
        if apt::is_there() {
            let or_said = |bin: Result<PathBuf>| {
                bin.inspect_err(|error| exec::say("Setup", format_args!("{error:#}"))).ok()
            };
            self.prometheus = or_said(prometheus::ensure());
            self.runc = or_said(runc::ensure());
        }
        self.group(tally, LIVE);
    }

    fn group(&self, tally: &mut Tally, (name, packages, libtest): Group) {
        exec::say("Test", name);
        for package in packages {
            let binaries = match binaries::of(&self.binaries, package) {
                Ok(binaries) => binaries,
                Err(error) => {
                    tally.broken(name, &error);
                    continue;
                }
            };
            for binary in binaries.iter().filter(|binary| binary.kind != BENCH) {
                let before = tally.failed();
                if let Err(error) = self.start(tally, binary, libtest)
                    && tally.failed() == before
                {
                    tally.broken(name, &error);
                }
            }
        }
    }

    /// Runs each benchmark for a moment, so that they keep working.
    fn benches(&self, tally: &mut Tally) {
        let wanted =
            |name: &str| self.filter.is_none_or(|filter| format!("bench {name}").contains(filter));
        for name in bench::NAMES.into_iter().filter(|name| wanted(name)) {
            // It runs three programs, each at several limits.
            if name == "rehearsal" && !self.long {
                tally.skips("bench rehearsal: long\n");
                continue;
            }
            exec::say("Test", format_args!("bench {name}"));
            tally.outcome(&format!("bench {name}"), self.smoke(name));
        }
    }

    /// Runs one benchmark with `--smoke`; it notes what it skips in the same file as the tests.
    fn smoke(&self, name: &str) -> Result<()> {
        let benches = binaries::of(&self.binaries, TESTS)?;
        let mut benches = benches.iter().filter(|bench| bench.kind == BENCH && bench.name == name);
        let bench = benches.next().context("it is not built")?;
        exec::stream(bench.command().arg("--smoke").env(SKIPS, self.skips.path()))
    }

    fn start(&self, tally: &mut Tally, binary: &Binary, libtest: &[&str]) -> Result<()> {
        exec::say("Running", format_args!("{} {}", binary.kind, binary.name));
        let mut cmd = binary.command();
        cmd.args(self.filter).args(libtest).args(self.args);
        if self.long && libtest.contains(&ONE_AT_A_TIME) {
            cmd.args(["--include-ignored", "--skip", IN_A_TERMINAL]);
        }
        cmd.env(SKIPS, self.skips.path());
        match self.soak {
            Some(minutes) => drop(cmd.env(MINUTES, minutes.to_string())),
            None if std::env::var_os(LOAD).is_none() => drop(cmd.env(LOAD, REPEATED)),
            None => {}
        }
        if let Some(bin) = &self.prometheus {
            cmd.env(prometheus::VAR, bin);
        }
        if let Some(bin) = &self.runc {
            cmd.env(runc::VAR, bin);
        }
        if self.bless {
            cmd.env("MEMSTOCK_BLESS", "1");
        }
        exec::tee(&mut cmd, |line| {
            println!("{line}");
            tally.line(line);
        })
    }
}
