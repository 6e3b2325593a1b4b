//! Flags of the verbs that judge recordings.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use memstock_common::MAX_BATCH;

use super::value::{Swap, bytes, kernel, part, slots, swap, window};
use crate::forecast::rehearse::Kernel;

/// The default file of `memstock record` and of the verbs that read recordings.
pub const FILE: &str = "memstock.data";

/// Flags of `memstock rehearse`.
#[derive(Debug, Args)]
pub struct Rehearse {
    /// The recording
    #[arg(value_name = "FILE", default_value = FILE)]
    pub file: PathBuf,

    /// Judge this limit (bytes, or with K, M, G, T); may be given more than once [default: several between what
    /// fits and what kills]
    #[arg(long = "limit", value_name = "SIZE", value_parser = bytes)]
    pub limits: Vec<u64>,

    /// Assumptions that differ from the recorded run.
    #[command(flatten)]
    pub what_if: WhatIfArgs,

    /// Judge the limits as memory.high: nobody is killed, tasks are throttled
    #[arg(long)]
    pub high: bool,

    /// Print JSON; sizes in bytes, times in seconds, slowdown as a fraction of the time
    #[arg(long)]
    pub json: bool,
}

/// Assumptions that differ from the recorded run.
#[derive(Clone, Copy, Debug, Args)]
pub struct WhatIfArgs {
    /// Assume this much swap, or "host" for as much as the recorded host had
    #[arg(long, value_name = "SIZE", value_parser = swap, default_value = "0")]
    pub swap: Swap,

    /// Assume the reclaim policy of the recorded kernel, of another one, or strict least recently used order
    #[arg(long, value_name = "KERNEL", value_parser = kernel(), default_value = "host")]
    pub kernel: Kernel,
}

/// Flags of `memstock recommend`.
#[derive(Debug, Args)]
pub struct Recommend {
    /// Recordings of one program, judged together
    #[arg(value_name = "FILE", default_value = FILE)]
    pub files: Vec<PathBuf>,

    /// Allow a run to take this much longer
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = part)]
    pub slower: f64,

    /// Add this much for loads that were not recorded
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = part)]
    pub margin: f64,

    /// Assumptions that differ from the recorded run.
    #[command(flatten)]
    pub what_if: WhatIfArgs,

    /// Judge by the metrics of a Prometheus server instead, for each cgroup that it knows: http://HOST:PORT of
    /// Prometheus or of a compatible server (Thanos, Mimir)
    #[arg(long, value_name = "URL", conflicts_with_all = ["files", "slower", "swap", "kernel"])]
    pub prometheus: Option<String>,

    /// Judge cgroups that were scraped within this time (a Prometheus duration); the figures are the highest since each
    /// was tracked
    #[arg(long, value_name = "DURATION", default_value = "14d", requires = "prometheus", conflicts_with = "files", value_parser = window)]
    pub window: String,

    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// The output format of a recommendation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people, with reasons
    Table,
    /// For programs
    Json,
    /// The resources of a container
    Yaml,
    /// A drop-in for a systemd unit
    Systemd,
}

/// Flags of `memstock replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The recording
    #[arg(value_name = "FILE", default_value = FILE)]
    pub file: PathBuf,

    /// Charge N pages at once; may be given more than once [default: 8, 32, 64, 128, 256, and as recorded]
    #[arg(long = "batch", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BATCH)))]
    pub batches: Vec<u32>,

    /// Give each CPU's stock N slots; may be given more than once [default: 1, 7, as recorded, and one for each cgroup]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Vec<u32>,

    /// Print JSON; sizes in bytes
    #[arg(long)]
    pub json: bool,
}

/// Flags of `memstock verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The limit (bytes, or with K, M, G, T)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub limit: u64,

    /// The recording
    #[arg(value_name = "FILE", default_value = FILE)]
    pub file: PathBuf,

    /// Assumptions that differ from the recorded run.
    #[command(flatten)]
    pub what_if: WhatIfArgs,

    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Flags of `memstock report`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("as").required(true).multiple(true))]
pub struct Report {
    /// The recording
    #[arg(value_name = "FILE", default_value = FILE)]
    pub file: PathBuf,

    /// Write an HTML page with pictures, all in one file
    #[arg(long, value_name = "FILE", group = "as")]
    pub html: Option<PathBuf>,

    /// Write the picture of all limits as SVG
    #[arg(long, value_name = "FILE", group = "as")]
    pub svg: Option<PathBuf>,

    /// Assumptions that differ from the recorded run.
    #[command(flatten)]
    pub what_if: WhatIfArgs,
}
