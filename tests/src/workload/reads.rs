//! Reads pages of a file one by one, by Zipf's law: the n-th most popular page is read 1/n times as often as the first.
//! The order is fixed, so a test can compute the rereads.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rustix::fs::{Advice, fadvise};

use crate::PAGE;
use crate::random::Random;

/// What is read.
#[derive(Clone, Debug, clap::Args)]
pub struct Order {
    /// The file.
    #[arg(long)]
    pub file: PathBuf,
    /// How many pages it has.
    #[arg(long)]
    pub pages: u64,
    /// How many reads to make, some of the same page.
    #[arg(long)]
    pub reads: u64,
}

impl Order {
    /// The page numbers in the order of the reads; the same each time.
    pub fn indices(&self) -> impl Iterator<Item = u64> + use<> {
        let weights = (1..=self.pages).map(|rank| 1.0 / rank as f64);
        let sums: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let mut random = Random::new(1);
        // Spreads popular pages over the file. The odd factor visits every page if their number is a power of two.
        let (pages, all) = (self.pages, sums.last().copied().unwrap_or(0.0));
        (0..self.reads).map(move |_| {
            let drawn = random.below(1 << 53) as f64 / (1_u64 << 53) as f64 * all;
            let rank = sums.partition_point(|&sum| sum < drawn) as u64;
            rank.wrapping_mul(0x9e37_79b1) % pages
        })
    }
}

/// # Errors
/// When the file cannot be read.
pub fn run(order: &Order) -> Result<()> {
    let file = File::open(&order.file).with_context(|| order.file.display().to_string())?;
    // No read-ahead.
    fadvise(&file, 0, None, Advice::Random)?;
    let mut page = [0; PAGE as usize];
    for index in order.indices() {
        file.read_exact_at(&mut page, index * PAGE)?;
    }
    Ok(())
}
