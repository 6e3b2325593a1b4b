//! Computes how long tasks would be made to sleep above `memory.high`, as `calculate_high_delay` in `mm/memcontrol.c`
//! does.

use std::time::Duration;

use super::timeline::Timeline;

/// Pages charged for each penalty (`MEMCG_CHARGE_BATCH`; before Linux 6.0 half of that).
const BATCH: u64 = 64;
/// Up to this many penalties of a step are computed one by one; beyond that, runs of them are taken to be equal.
const EACH: u64 = 1 << 16;
/// Bounds of one penalty in seconds: up to the least (`HZ / 100`) it is waived, and it is never above the most.
const LEAST: f64 = 0.01;
const MOST: f64 = 2.0;

/// The penalty in seconds for a batch charged while `needed` pages are in use.
fn penalty(needed: u64, high: u64) -> f64 {
    let over = needed.saturating_sub(high) as f64 / high.max(1) as f64;
    // The kernel squares it with 20 fractional bits, then shifts right by 20 and 14: 2^40 / 2^34.
    let seconds = (64.0 * over * over).min(MOST);
    if seconds <= LEAST { 0.0 } else { seconds }
}

/// Penalties are waived up to this many pages in use: 64 times the square of 1/80 is the least.
fn let_off(high: u64) -> u64 {
    high.saturating_add(high / 80)
}

/// The sum of all penalties of a run, which is the delay if its tasks wait for each other. Counts growth only; what is
/// freed and charged anew between two steps is not seen.
pub fn throttled(timeline: &Timeline, high: u64) -> Duration {
    let mut before = 0;
    let mut seconds = 0.0;
    for step in &timeline.steps {
        let grown = step.needed.saturating_sub(before.max(high));
        // Each batch by itself, since usage grows on the way. The batches without a penalty are skipped: at a large
        // limit they are many.
        let from = step.needed - grown;
        let batches = grown.div_ceil(BATCH);
        let first = (let_off(high).saturating_sub(from) / BATCH).max(1);
        let alike = (batches + 1).saturating_sub(first).div_ceil(EACH).max(1);
        let mut batch = first;
        while batch <= batches {
            let count = alike.min(batches - batch + 1);
            let needed = from.saturating_add((batch + count / 2).saturating_mul(BATCH));
            seconds += penalty(needed.min(step.needed), high) * count as f64;
            if seconds >= FOREVER {
                return Duration::from_secs_f64(FOREVER);
            }
            batch += count;
        }
        before = step.needed;
    }
    Duration::from_secs_f64(seconds)
}

/// A year, in seconds: longer delays need not be added up.
const FOREVER: f64 = 31_536_000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::timeline::Step;

    /// The table in the comment on the kernel's function, for a high limit of 100 MiB.
    #[test]
    fn penalties_are_the_kernels() {
        let high = 25_600;
        for (percent, ms) in
            [(1, 0), (2, 26), (5, 160), (10, 640), (17, 1850), (18, 2000), (90, 2000)]
        {
            let found = penalty(high + high * percent / 100, high) * 1000.0;
            assert!((found - f64::from(ms)).abs() < 1.0, "{percent} %: {found}");
        }
    }

    #[test]
    fn growth_above_it_is_held_up() {
        let step = |ms, needed| Step { from: Duration::from_millis(ms), needed, ..Step::default() };
        let of = |steps: &[Step]| Timeline { steps: steps.to_vec(), end: Duration::from_secs(1) };
        let grown = of(&[step(0, 25_600), step(1, 25_600 + 2560)]);
        // 40 batches of 64 pages, 0.25 % more each: the first 4 are waived.
        let sum: f64 = (5..=40).map(|n| 64.0 * (0.0025 * f64::from(n)).powi(2)).sum();
        assert!((throttled(&grown, 25_600).as_secs_f64() - sum).abs() < 0.01);
        assert_eq!(throttled(&grown, 30_000), Duration::ZERO);
        assert_eq!(throttled(&of(&[step(0, u64::MAX / 2)]), 1).as_secs_f64(), FOREVER);
        // Waived penalties are skipped, and very many are not computed one by one.
        let high = 1 << 51;
        assert_eq!(throttled(&of(&[step(0, let_off(high))]), high), Duration::ZERO);
        assert_eq!(throttled(&of(&[step(0, 2 * high)]), high).as_secs_f64(), FOREVER);
        // 40 GiB above 400: 163,840 batches, whose sum is the integral of a square.
        let high = 100_u64 << 20;
        let sum = 163_840.0 * 64.0 * 0.01 / 3.0 * (1.0 - 0.125_f64.powi(3));
        let found = throttled(&of(&[step(0, high + (10 << 20))]), high).as_secs_f64();
        assert!((found / sum - 1.0).abs() < 1e-3, "{found} {sum}");
    }
}
