//! Pictures of a recording: what each limit would do, and memory over time; as SVG, or on a self-contained HTML page.
//! The figures are those of `memstock rehearse`; nothing here judges.

mod page;
mod pictures;
mod time;

use std::time::Duration;

use anyhow::Result;

use super::show::rehearse::Judged;
use crate::forecast::recommend::Advice;
use crate::forecast::rehearse::{Rehearsal, Row, page_size};

/// How many limits are drawn from where the run survives to where it fits, and how many below.
const LIVING: usize = 40;
const DYING: usize = 16;
/// The smallest limit drawn, as a fraction of what is needed.
const LEAST: f64 = 1.0 / 16.0;

/// A recording, judged at all limits that are drawn.
#[derive(Debug)]
pub struct Report<'a> {
    judged: Judged<'a>,
}

impl<'a> Report<'a> {
    /// Runs one simulation per limit.
    pub fn of(rehearsal: &'a Rehearsal<'a>, advice: Advice) -> Self {
        let needed = rehearsal.peaks().needed;
        let page = page_size(rehearsal.recording);
        let dying = (0..DYING).map(|n| {
            let part = LEAST.powf(1.0 - n as f64 / DYING as f64);
            ((needed as f64 * part) as u64).div_ceil(page).saturating_mul(page)
        });
        let mut limits: Vec<_> = dying.filter(|&limit| limit < needed).collect();
        if needed > 0 {
            limits.extend([needed - page, needed]);
        }
        limits.extend(rehearsal.between(LIVING));
        limits.sort_unstable();
        limits.dedup();
        let rows = limits.iter().map(|&limit| rehearsal.judge(limit)).collect();
        Self { judged: Judged { rehearsal, rows, advice } }
    }

    /// The picture of all limits, as an SVG file.
    ///
    /// # Errors
    /// It cannot be drawn.
    pub fn svg(&self) -> Result<String> {
        pictures::limits(self)
    }

    /// The page, as an HTML file.
    ///
    /// # Errors
    /// One of its pictures cannot be drawn.
    pub fn html(&self) -> Result<String> {
        page::page(self)
    }

    fn rehearsal(&self) -> &Rehearsal<'a> {
        self.judged.rehearsal
    }

    fn rows(&self) -> &[Row] {
        &self.judged.rows
    }

    fn end(&self) -> Duration {
        self.rehearsal().timeline.end
    }
}

#[cfg(test)]
mod tests;
