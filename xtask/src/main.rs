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
        /// Arguments of the test binaries.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Check formatting, clippy (host and BPF) and the documentation.
    Lint,
    /// Run a benchmark of the `tests` package.
    Bench {
        /// fault, page, limit, scale, or all of them.
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
        Verb::Run { args } => run::run(&args),
        Verb::Test { filter, bless, args } => test::run(filter.as_deref(), bless, &args),
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
