//! `cargo xtask VERB`: the command line of the development tasks.
//!
//! Owns only the command line; each verb is in the file of its name.

mod arch;
mod bench;
mod build;
mod cache;
mod demo;
mod exec;
mod fuzz;
mod lint;
mod package;
mod picture;
mod pins;
mod run;
mod setup;
mod test;
mod vm;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::arch::Arch;

/// Development tasks of memstock.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install the toolchain of the BPF half: a compiler with the source of `core`, and bpf-linker.
    Setup,
    /// Build the whole workspace.
    Build {
        /// Build with optimisations.
        #[arg(long)]
        release: bool,
        /// Build memstock and its tests for this architecture; aarch64-unknown-linux-gnu is understood, too.
        #[arg(long, value_enum, default_value_t = Arch::HOST)]
        target: Arch,
    },
    /// Build and run memstock: a demonstration, or `memstock run ARGS`; in a guest where the kernel refuses BPF.
    Run {
        /// Run it on this host even if the kernel refuses BPF.
        #[arg(long)]
        host: bool,
        /// Arguments of `memstock run`; without any, a demonstration of ten seconds: two cgroups, and a limit that is
        /// hit.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run the tests, with a few of their repetitions; the last line is `N passed, N failed, N skipped`.
    Test {
        /// Run only tests whose name contains this.
        filter: Option<String>,
        /// Accept the current output as the expectation of the snapshot tests.
        #[arg(long)]
        bless: bool,
        /// Also run the tests that take long.
        #[arg(long)]
        long: bool,
        /// Also run live tests in guests with other kernels (see `cargo xtask vm`): `short` takes minutes, all tests in
        /// `one` guest an hour, the whole matrix hours.
        #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "matrix")]
        vm: Option<vm::Extent>,
        /// Arguments of the test binaries.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run the live tests with all their repetitions, and one daemon for an hour.
    Soak {
        /// Only tests whose name contains this.
        filter: Option<String>,
        /// How long one daemon works, in minutes.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
    /// Build a Debian package of the release binary, and print its path.
    Package {
        /// Package this binary instead of building one.
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Put the package into this folder [default: debian, in the target folder].
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Debian revision, which distinguishes packages of one version.
        #[arg(long, default_value_t = 1)]
        revision: u32,
        /// For this architecture.
        #[arg(long, value_enum, default_value_t = Arch::HOST)]
        target: Arch,
    },
    /// Build an OCI image of the package, without network and without root, and print its path.
    Image {
        /// Use this package instead of building one.
        #[arg(long, value_name = "FILE")]
        deb: Option<PathBuf>,
        /// Write the image, as an archive, to this file [default: memstock-VERSION.oci.tar, in the target folder].
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print in one line what memstock needs and the kernel refuses; nothing if it grants everything.
    #[command(hide = true)]
    Refusal,
    /// Print the path of an archive with a minimal Debian root; make it if it is missing.
    #[command(hide = true)]
    DebianRoot {
        /// Include systemd, so that the root can be booted.
        #[arg(long)]
        systemd: bool,
    },
    /// Run the live tests in a guest with another kernel: `cargo xtask vm --kernel 6.12 -- TEST`.
    Vm {
        #[command(flatten)]
        guest: vm::Guest,
        /// Run in each guest of the matrix, or in those with these kernels or names, one after the other, and write the
        /// results into docs/kernels.md.
        #[arg(long, value_name = "GUEST", num_args = 0.., conflicts_with = "Guest")]
        matrix: Option<Vec<String>>,
        #[command(flatten)]
        work: vm::Work,
    },
    /// Check formatting, clippy (host and BPF) and the documentation.
    Lint,
    /// Make the picture of `memstock top` in the README again, from a real run (as root).
    Picture,
    /// Read, judge and replay damaged and hostile recordings: memstock-user/tests/hostile.rs with more inputs.
    Fuzz {
        /// Number of recordings.
        #[arg(long, default_value_t = 1_000_000)]
        inputs: u64,
        /// Number of the first recording, to repeat a failure.
        #[arg(long, default_value_t = 0)]
        first: u64,
    },
    /// Run a benchmark of the `tests` package.
    Bench {
        /// fault, page, table1, limit, scale, read, record, rehearsal, or all of them.
        #[arg(default_value = "fault")]
        name: String,
        /// Arguments of the benchmark, such as --smoke.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup => setup::run(),
        Verb::Build { release, target } => build::run(release, target),
        Verb::Run { host, args } => run::run(host, &args),
        Verb::Refusal => run::refusal(),
        Verb::Package { binary, output, revision, target } => {
            package::run(binary.as_deref(), output.as_deref(), revision, target)
        }
        Verb::Image { deb, output } => package::image::run(deb.as_deref(), output.as_deref()),
        Verb::DebianRoot { systemd } => package::root::run(systemd),
        Verb::Test { filter, bless, long, vm, args } => {
            test::run(filter.as_deref(), bless, long, vm, &args)
        }
        Verb::Soak { filter, minutes } => test::soak(filter.as_deref(), minutes),
        Verb::Vm { matrix: Some(guests), work, .. } => vm::matrix(&guests, &work),
        Verb::Vm { guest, work, .. } => vm::run(&guest, &work),
        Verb::Lint => lint::run(),
        Verb::Picture => picture::run(),
        Verb::Fuzz { inputs, first } => fuzz::run(inputs, first),
        Verb::Bench { name, args } => bench::run(&name, &args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
