//! The method of all benches: variants in short slices, in turns, each between two slices of the control. Must
//! not know what a variant is.
//!
//! One process, the same tasks, the same pages. A machine that others use gets faster and slower by several
//! per cent from second to second, and a run of one variant after the run of another measures that. A slice
//! of some 50 ms beside control slices of the same length does not, and many of them say how sure it is. The
//! order within a round is drawn anew for each one, so that no variant always comes after the same other.
//! Whoever measures adds the control to the variants: its ratio to itself is what the method can resolve.

use anyhow::Result;

use super::statistics::Pair;
use crate::random::Random;

/// What one slice of a variant gave, and the slices of the control before and after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired<T> {
    /// The variant's.
    pub value: T,
    /// The control's.
    pub controls: [T; 2],
}

impl<T> Paired<T> {
    /// One figure of it, and the mean of the control's.
    pub fn pair(&self, figure: impl Fn(&T) -> f64) -> Pair {
        let [before, after] = &self.controls;
        Pair { value: figure(&self.value), control: (figure(before) + figure(after)) / 2.0 }
    }
}

/// One figure of all slices of a variant.
pub fn pairs<T>(slices: &[Paired<T>], figure: impl Fn(&T) -> f64) -> Vec<Pair> {
    slices.iter().map(|paired| paired.pair(&figure)).collect()
}

/// Runs so many rounds; each runs every one of `variants` once. `slice` measures one variant, or the control
/// (`None`). Returns what each variant gave.
///
/// # Errors
/// Those of `slice`.
pub fn interleave<T: Copy>(
    rounds: usize,
    variants: usize,
    mut slice: impl FnMut(Option<usize>) -> Result<T>,
) -> Result<Vec<Vec<Paired<T>>>> {
    let mut seen: Vec<_> = (0..variants).map(|_| Vec::with_capacity(rounds)).collect();
    let mut random = Random::new(variants as u64);
    let mut before = slice(None)?;
    for _ in 0..rounds {
        for variant in shuffled(variants, &mut random) {
            let value = slice(Some(variant))?;
            let after = slice(None)?;
            seen[variant].push(Paired { value, controls: [before, after] });
            before = after;
        }
    }
    Ok(seen)
}

/// The numbers below `end` in some order.
fn shuffled(end: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<_> = (0..end).collect();
    for n in (1..end).rev() {
        order.swap(n, random.below(n as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slice_has_the_control_on_both_sides() {
        let mut clock = 0.0;
        let seen = interleave(5, 3, |variant| {
            clock += 1.0;
            Ok((variant, clock))
        })
        .unwrap();
        for (n, slices) in seen.iter().enumerate() {
            assert_eq!(slices.len(), 5);
            for Paired { value, controls: [before, after] } in slices {
                assert_eq!((value.0, before.0, after.0), (Some(n), None, None));
                assert_eq!((before.1, after.1), (value.1 - 1.0, value.1 + 1.0));
            }
            assert!(pairs(slices, |&(_, time)| time).iter().all(|pair| pair.value == pair.control));
        }
        // 15 slices, and the control before, between and after them.
        assert_eq!(clock, 31.0);
    }

    #[test]
    fn orders_differ_and_are_complete() {
        let mut random = Random::new(7);
        let orders: Vec<_> = (0..20).map(|_| shuffled(8, &mut random)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..8).collect::<Vec<_>>());
        }
        assert!(orders.iter().any(|order| *order != orders[0]));
    }
}
