//! Flags of the verb that measures.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Flags of `memstock bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure.
    #[command(subcommand)]
    pub what: What,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum What {
    /// The table of the patch that memstock is modelled on, on this machine
    ///
    /// A task on each CPU maps, touches and unmaps pages, in cgroups that are made for it. In short slices, in
    /// turns, something is attached or nothing; what is left of the throughput is compared within moments.
    /// No engine may be running. Nothing stays behind, if it is interrupted as well.
    Table1(Table1),
    /// What a model says of larger machines: the part of its throughput that shared counters leave to each
    Scaling(Scaling),
    /// Map, touch and unmap pages for ever (started by `table1`)
    #[command(hide = true)]
    Worker(Worker),
}

/// Flags of `memstock bench table1`.
#[derive(Debug, Args)]
pub struct Table1 {
    /// Times that each variant is measured
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,

    /// Length of a slice in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub slice: u64,

    /// Pages that are mapped, touched and unmapped at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub pages: u32,

    /// Measure with one busy CPU as well, before all of them
    #[arg(long)]
    pub one: bool,

    /// Measure bpftrace, bcc and perf as well, where they are installed (some seconds more a round)
    #[arg(long)]
    pub peers: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Write a picture to this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Flags of `memstock bench scaling`.
#[derive(Debug, Args)]
pub struct Scaling {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Write a picture to this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Arguments of `memstock bench worker`.
#[derive(Debug, Args)]
pub struct Worker {
    /// The CPU to stay on
    pub cpu: u32,
    /// Pages at a time
    pub pages: usize,
}
