//! `cargo xtask VERB`: what a developer types.
//!
//! Owns the command line only; each verb lives in the file of its name.

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

/// Development tasks of memstock.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what builds the BPF half: a compiler with `core`'s source, and bpf-linker.
    Setup,
    /// Build the whole workspace.
    Build {
        /// Build with optimisations.
        #[arg(long)]
        release: bool,
    },
    /// Build and run memstock: a demonstration, or `memstock run ARGS`; in a guest where the kernel refuses BPF.
    Run {
        /// Run it on this host, whatever the kernel refuses.
        #[arg(long)]
        host: bool,
        /// Arguments of `memstock run`; without any, a demonstration of ten seconds: two cgroups, and a limit that is met.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run the tests, with few of their repetitions; the last line printed is `N passed, N failed, N skipped`.
    Test {
        /// Run only tests whose name contains this.
        filter: Option<String>,
        /// Accept the output seen as the new expectation of the snapshot tests.
        #[arg(long)]
        bless: bool,
        /// Run those that take long as well.
        #[arg(long)]
        long: bool,
        /// Run live tests in guests with other kernels, too (see `cargo xtask vm`): `short` takes minutes, all in
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
        /// For how long one daemon is to be at work.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
    /// Build a Debian package of the release binary, and print its path.
    Package {
        /// Package this binary, and build none.
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Put the package into this folder [default: debian, in the target folder].
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Its Debian revision: tells packages of one version apart.
        #[arg(long, default_value_t = 1)]
        revision: u32,
    },
    /// Build an OCI image of the package, without network and without root, and print its path.
    Image {
        /// Of this package, and build none.
        #[arg(long, value_name = "FILE")]
        deb: Option<PathBuf>,
        /// Write the image, an archive, to this file [default: memstock-VERSION.oci.tar, in the target folder].
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print what the kernel refuses of what memstock needs, in one line; nothing if it grants all.
    #[command(hide = true)]
    Refusal,
    /// Print the path of an archive with a minimal Debian root, made when it is missing.
    #[command(hide = true)]
    DebianRoot {
        /// With systemd, to boot it.
        #[arg(long)]
        systemd: bool,
    },
    /// Run the live tests in a guest with another kernel: `cargo xtask vm --kernel 6.12 -- TEST`.
    Vm {
        #[command(flatten)]
        guest: vm::Guest,
        /// In each guest of the matrix, or in those of these lines of kernels, one after the other; what came out goes
        /// into docs/kernels.md.
        #[arg(long, value_name = "LINE", num_args = 0.., conflicts_with = "Guest")]
        matrix: Option<Vec<String>>,
        #[command(flatten)]
        work: vm::Work,
    },
    /// Check formatting, clippy (host and BPF) and the documentation.
    Lint,
    /// Take the picture of `memstock top` in the README anew, from a real run (as root).
    Picture,
    /// Have damaged and hostile recordings read, judged and replayed: tests/hostile.rs of memstock-user, with more inputs.
    Fuzz {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        inputs: u64,
        /// The number of the first one, to repeat what failed.
        #[arg(long, default_value_t = 0)]
        first: u64,
    },
    /// Run a benchmark of the `tests` package.
    Bench {
        /// fault, page, table1, limit, scale, scaling, read, rehearsal, or all of them.
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
        Verb::Build { release } => build::run(release),
        Verb::Run { host, args } => run::run(host, &args),
        Verb::Refusal => run::refusal(),
        Verb::Package { binary, output, revision } => {
            package::run(binary.as_deref(), output.as_deref(), revision)
        }
        Verb::Image { deb, output } => package::image::run(deb.as_deref(), output.as_deref()),
        Verb::DebianRoot { systemd } => package::root::run(systemd),
        Verb::Test { filter, bless, long, vm, args } => {
            test::run(filter.as_deref(), bless, long, vm, &args)
        }
        Verb::Soak { filter, minutes } => test::soak(filter.as_deref(), minutes),
        Verb::Vm { matrix: Some(lines), work, .. } => vm::matrix(&lines, &work),
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
