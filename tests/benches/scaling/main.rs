//! `cargo xtask bench scaling`: a model's prediction of the throughput that shared counters leave to larger machines.
//! It is computed, not measured (`docs/scaling.md`).

mod curves;
mod forecast;
#[path = "../support/output.rs"]
mod output;
mod text;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use memstock_tests::bench::Common;

/// Predict the throughput of larger machines by a model.
#[derive(Parser)]
struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a picture to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let forecast = forecast::forecast();
    curves::draw(&forecast, args.svg.as_deref())?;
    output::print(args.json, &forecast, &forecast)
}
