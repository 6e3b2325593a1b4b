//! The method of all benches: variants run in short slices, in turns, each between two slices of the control. Knows
//! nothing about the variants.
//!
//! All run in one process, with the same tasks and pages. A shared machine gets faster and slower by several percent
//! from second to second, and one long run per variant would measure that. A slice of some 50 ms between control slices
//! of the same length does not, and many slices show the uncertainty. Each round has a random order, so that no variant
//! always follows the same other one. Benches also add the control as a variant: its ratio to itself shows the
//! resolution of the method.

use anyhow::Result;

use super::statistics::Pair;
use crate::random::Random;

/// The result of one slice of a variant, and of the control slices before and after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired<T> {
    /// The variant's.
    pub value: T,
    /// The control's.
    pub controls: [T; 2],
}

impl<T> Paired<T> {
    /// One figure of the slice, with the mean of the control's.
    pub fn pair(&self, figure: impl Fn(&T) -> f64) -> Pair {
        let [before, after] = &self.controls;
        Pair { value: figure(&self.value), control: (figure(before) + figure(after)) / 2.0 }
    }
}

/// One figure of all slices of a variant.
pub fn pairs<T>(slices: &[Paired<T>], figure: impl Fn(&T) -> f64) -> Vec<Pair> {
    slices.iter().map(|paired| paired.pair(&figure)).collect()
}

/// Runs `rounds` rounds, each with one slice of every variant. `slice` measures one variant, or the control
/// (`None`). Returns the results by variant.
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

/// The numbers below `end` in a random order.
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
