//! `memstock-workload`: causes page faults and holds memory for memstock to count. Only the command line is here.

use anyhow::Result;
use clap::{Parser, Subcommand};
use memstock_tests::workload::{churn, demo, fuse, grow, hog, hold, reads, serve, share};

/// Causes page faults and holds memory.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fault on command: one line on standard input, one reply on standard output.
    Serve {
        /// CPU to run on.
        #[arg(long)]
        cpu: Option<u32>,
    },
    /// Get memory in some way, hold it, and give it back, on command as with serve.
    Hold {
        /// How to get it.
        mode: hold::Mode,
        #[command(flatten)]
        order: hold::Order,
        /// CPU to run on.
        #[arg(long)]
        cpu: Option<u32>,
    },
    /// Get memory as fast as possible, say `done`, and hold it until standard input ends.
    Hog {
        /// Pages of private memory.
        #[arg(long, default_value_t = 0)]
        pages: u32,
        /// Write as many pages to this new file instead of touching them.
        #[arg(long)]
        file: Option<std::path::PathBuf>,
        /// CPU to run on.
        #[arg(long)]
        cpu: Option<u32>,
        /// Ignore SIGTERM and SIGINT.
        #[arg(long)]
        catch_term: bool,
    },
    /// Share memory with another process, which touches pages of it on command.
    Share {
        /// Pages of private memory.
        #[arg(long, default_value_t = 400)]
        pages: u32,
    },
    /// Hold memory in some way, and allocate more on command.
    Grow(grow::Order),
    /// Read pages of a file, some of them often.
    Reads(reads::Order),
    /// Serve a file system with one file, in a mount namespace.
    Fuse {
        /// Where to mount it.
        dir: std::path::PathBuf,
        /// Never answer a read.
        #[arg(long)]
        silent: bool,
    },
    /// Run a demo in two cgroups below its own, until SIGINT or SIGTERM.
    Demo,
    /// Map, touch and unmap pages on one CPU, until SIGINT or SIGTERM.
    Churn {
        /// CPU to run on.
        #[arg(long)]
        cpu: u32,
        /// Pages to map at a time.
        #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
        pages: u32,
        /// Count them in the file on standard input.
        #[arg(long)]
        counted: bool,
        /// What to do with them.
        #[arg(long, value_enum, default_value_t = churn::Round::Map)]
        round: churn::Round,
    },
}

fn main() -> Result<()> {
    match Cli::parse().verb {
        Verb::Serve { cpu } => serve::serve(cpu),
        Verb::Hold { mode, order, cpu } => hold::serve(mode, &order, cpu),
        Verb::Hog { pages, file, cpu, catch_term } => {
            hog::run(pages.try_into()?, file.as_deref(), cpu, catch_term)
        }
        Verb::Grow(order) => grow::run(order),
        Verb::Reads(order) => reads::run(&order),
        Verb::Demo => demo::run(),
        Verb::Fuse { dir, silent } => fuse::serve(&dir, silent),
        Verb::Share { pages } => share::run(pages.try_into()?),
        Verb::Churn { cpu, pages, counted, round } => {
            churn::churn(cpu, pages.try_into()?, counted, round)
        }
    }
}
