//! Medians and their confidence intervals, for all benches. Knows nothing of what was measured.
//!
//! A reading counts only beside the control around it: what disturbs the machine for longer than three slices is in
//! both. So everything is computed from [`Pair`]s. The interval comes from resampling them (a percentile bootstrap),
//! which assumes nothing about their distribution.

use std::fmt;

use serde::Serialize;

use crate::random::Random;

/// Times the pairs are resampled.
const RESAMPLES: usize = 2000;
/// The fraction of the resampled medians outside the interval on each side.
const TAIL: f64 = 0.025;

/// A median with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The median of the readings.
    pub median: f64,
    /// 2.5 % of the resampled medians are below.
    pub low: f64,
    /// 2.5 % of the resampled medians are above.
    pub high: f64,
}

impl Estimate {
    /// The estimate from `readings`; all NaN when there are none.
    pub fn of(readings: &[f64]) -> Self {
        // A fixed seed, so that the same readings give the same report.
        let mut random = Random::new(readings.len() as u64);
        let mut resampled = vec![0.0; readings.len()];
        let mut medians = Vec::with_capacity(RESAMPLES);
        if !readings.is_empty() {
            for _ in 0..RESAMPLES {
                resampled.fill_with(|| readings[random.below(readings.len() as u64) as usize]);
                medians.push(quantile(&mut resampled, 0.5));
            }
        }
        let low = quantile(&mut medians, TAIL);
        let high = quantile(&mut medians, 1.0 - TAIL);
        Self { median: quantile(&mut readings.to_vec(), 0.5), low, high }
    }

    /// As text, with this many decimal places.
    pub fn digits(&self, digits: usize) -> String {
        let Self { median, low, high } = self;
        format!("{median:.digits$} ({low:.digits$}..{high:.digits$})")
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digits(1))
    }
}

/// A reading, and the control's around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The reading.
    pub value: f64,
    /// The control's.
    pub control: f64,
}

/// Their ratios.
pub fn ratio(pairs: &[Pair]) -> Estimate {
    Estimate::of(&pairs.iter().map(|pair| pair.value / pair.control).collect::<Vec<_>>())
}

/// Their differences.
pub fn difference(pairs: &[Pair]) -> Estimate {
    Estimate::of(&pairs.iter().map(|pair| pair.value - pair.control).collect::<Vec<_>>())
}

/// The readings themselves.
pub fn values(pairs: &[Pair]) -> Estimate {
    Estimate::of(&pairs.iter().map(|pair| pair.value).collect::<Vec<_>>())
}

/// The interpolated quantile `part` of the readings; NaN when there are none.
fn quantile(readings: &mut [f64], part: f64) -> f64 {
    if readings.is_empty() {
        return f64::NAN;
    }
    let place = part * (readings.len() - 1) as f64;
    let below = place.floor() as usize;
    let (_, &mut at, above) = readings.select_nth_unstable_by(below, f64::total_cmp);
    match above.iter().copied().min_by(f64::total_cmp) {
        Some(next) => at + (next - at) * place.fract(),
        None => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let mut readings = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.25, 0.5, 1.0].map(|part| quantile(&mut readings, part)), [1.75, 2.5, 4.0]);
        assert!(quantile(&mut [], 0.5).is_nan());
        assert!(Estimate::of(&[]).median.is_nan());
        assert_eq!(Estimate::of(&[7.0]), Estimate { median: 7.0, low: 7.0, high: 7.0 });
    }

    /// For 101 evenly spread readings, the binomial distribution gives an interval of 40..60.
    #[test]
    fn the_interval_is_that_of_the_median() {
        let readings: Vec<_> = (0..=100).map(f64::from).collect();
        let estimate = Estimate::of(&readings);
        assert_eq!(estimate.median, 50.0);
        assert!((37.0..=43.0).contains(&estimate.low), "{estimate:?}");
        assert!((57.0..=63.0).contains(&estimate.high), "{estimate:?}");
    }

    /// A machine that gets slower all the time does not change a paired ratio.
    #[test]
    fn pairs_see_through_a_drift() {
        let pairs: Vec<_> = (1..50)
            .map(|n| Pair { value: 0.9 / f64::from(n), control: 1.0 / f64::from(n) })
            .collect();
        let ratio = ratio(&pairs);
        assert!((ratio.median - 0.9).abs() < 1e-12 && ratio.high - ratio.low < 1e-12, "{ratio:?}");
        assert!(difference(&pairs).median < 0.0);
    }
}
