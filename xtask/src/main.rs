//! `cargo xtask VERB`: what a developer types.
//!
//! Owns the command line only; each verb lives in the file of its name.

mod bench;
mod build;
mod cache;
mod exec;
mod lint;
mod pins;
mod run;
mod setup;
mod test;
mod vm;

use std::ffi::OsString;
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
    /// Build and run memstock: a demonstration, or `memstock run ARGS`.
    Run {
        /// Arguments of `memstock run`; without any, a demonstration load of ten seconds.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run every test; the last line printed is `N passed, N failed, N skipped`.
    Test {
        /// Run only tests whose name contains this.
        filter: Option<String>,
        /// Accept the output seen as the new expectation of the snapshot tests.
        #[arg(long)]
        bless: bool,
        /// Run the live tests in guests with other kernels, too (see `cargo xtask vm`); takes hours.
        #[arg(long)]
        vm: bool,
        /// Arguments of the test binaries.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run the live tests in a guest with another kernel: `cargo xtask vm --kernel 6.12 -- TEST`.
    Vm {
        #[command(flatten)]
        guest: vm::Guest,
        #[command(flatten)]
        work: vm::Work,
    },
    /// Check formatting, clippy (host and BPF) and the documentation.
    Lint,
    /// Run a benchmark of the `tests` package.
    Bench {
        /// Name of the benchmark.
        #[arg(default_value = "fault")]
        name: String,
        /// Arguments of the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup => setup::run(),
        Verb::Build { release } => build::run(release),
        Verb::Run { args } => run::run(&args),
        Verb::Test { filter, bless, vm, args } => test::run(filter.as_deref(), bless, vm, &args),
        Verb::Vm { guest, work } => vm::run(&guest, &work),
        Verb::Lint => lint::run(),
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
