//! Tests the curve by hand, against a plain simulation, and a sample against all pages.

use proptest::prelude::*;

use super::*;
use crate::forecast::uses::{Event, Taken};

/// One step of a run: what is needed changes, or a page is used or leaves.
#[derive(Clone, Copy, Debug)]
enum Step {
    Need(u64),
    Use(u32),
    Leave(u32),
}

fn uses(steps: &[Step], one_in: u32) -> Uses {
    let mut uses = Uses::default();
    for &step in steps {
        let what = match step {
            Step::Need(needed) => {
                uses.taken.push(Taken { needed, ..Taken::default() });
                What::Taken(u32::try_from(uses.taken.len()).unwrap() - 1)
            }
            Step::Use(page) => What::Again(Use { page, weight: one_in }),
            Step::Leave(page) => What::Leave(page),
        };
        uses.events.push(Event { part: 0, more: 0, what });
    }
    let pages = steps.iter().map(|step| match *step {
        Step::Use(page) | Step::Leave(page) => page as usize + 1,
        Step::Need(_) => 0,
    });
    uses.file_of = vec![0; pages.max().unwrap_or(0)];
    uses
}

/// What an LRU cache with room for `limit` less what is needed would read again.
fn searched(steps: &[Step], limit: u64) -> u64 {
    let (mut cache, mut known) = (Vec::<u32>::new(), std::collections::BTreeSet::new());
    let (mut needed, mut reread) = (0, 0);
    for &step in steps {
        match step {
            Step::Need(now) => needed = now,
            Step::Use(page) => {
                let is_here = cache.contains(&page);
                reread += u64::from(!is_here && !known.insert(page));
                cache.retain(|&other| other != page);
                cache.push(page);
            }
            Step::Leave(page) => {
                known.remove(&page);
                cache.retain(|&other| other != page);
            }
        }
        let room = usize::try_from(limit.saturating_sub(needed)).unwrap();
        cache.drain(..cache.len().saturating_sub(room));
    }
    reread
}

fn reread(curve: &Curve, limit: u64) -> u64 {
    curve.rereads(limit).iter().sum()
}

#[test]
fn by_hand() {
    use Step::{Leave, Need, Use};
    // Two pages in turn beside a need of 10: both fit from 12 on.
    let turns = [Need(10), Use(0), Use(1), Use(0), Use(1)];
    let curve = Curve::of(&uses(&turns, 1));
    assert_eq!([0, 11, 12, 99].map(|limit| reread(&curve, limit)), [2, 2, 0, 0]);
    // A short need of 50 evicts what came before it, but not what comes after.
    let peak = [Need(10), Use(0), Need(50), Need(10), Use(1), Use(0), Use(1)];
    let curve = Curve::of(&uses(&peak, 1));
    assert_eq!([11, 12, 50, 51].map(|limit| reread(&curve, limit)), [2, 1, 1, 0]);
    // A truncated page makes room; its next use is a first one.
    let truncated = [Use(0), Use(1), Use(2), Leave(1), Leave(2), Use(3), Use(0), Use(1)];
    let curve = Curve::of(&uses(&truncated, 1));
    assert_eq!([2, 3].map(|limit| reread(&curve, limit)), [1, 0]);
    // A sampled page stands for four.
    let curve = Curve::of(&uses(&turns, 4));
    assert_eq!([14, 15].map(|limit| reread(&curve, limit)), [8, 0]);
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0_u64..30).prop_map(Step::Need),
        8 => (0_u32..20).prop_map(Step::Use),
        1 => (0_u32..20).prop_map(Step::Leave),
    ]
}

proptest! {
    /// Unsampled, the curve equals a simulation at each limit, and more memory is never worse.
    #[test]
    fn it_is_what_a_search_says(steps in prop::collection::vec(step(), 0..400)) {
        let curve = Curve::of(&uses(&steps, 1));
        let mut before = u64::MAX;
        for limit in 0..60 {
            let reread = reread(&curve, limit);
            prop_assert_eq!(reread, searched(&steps, limit), "{}", limit);
            prop_assert!(reread <= before);
            before = reread;
        }
    }

    /// Holds for all weights.
    #[test]
    fn more_memory_is_never_worse(
        all in prop::collection::vec((step(), 1_u32..500), 0..300)
    ) {
        let steps: Vec<_> = all.iter().map(|&(step, _)| step).collect();
        let mut uses = uses(&steps, 1);
        for (event, (_, weight)) in uses.events.iter_mut().zip(&all) {
            if let What::Again(used) = &mut event.what {
                used.weight = *weight;
            }
        }
        let curve = Curve::of(&uses);
        let rereads: Vec<_> = (0..12).map(|power| reread(&curve, 1 << power)).collect();
        prop_assert!(rereads.is_sorted_by(|more, less| more >= less), "{:?}", rereads);
    }
}

/// Any fixed mixing of bits will do (splitmix64).
fn mixed(number: u64) -> u64 {
    let mixed = (number.wrapping_add(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[test]
fn a_sample_is_near_to_all() {
    const PAGES: usize = 40_000;
    const USES: u64 = 400_000;
    const ONE_IN: u32 = 16;
    // Zipf's law with an exponent of 1: the weight of the n-th page is 1/n.
    let weights = (1..=PAGES).map(|rank| 1.0 / rank as f64);
    let sums: Vec<f64> = weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let page = |n: u64| {
        let drawn = (mixed(n) >> 11) as f64 / (1_u64 << 53) as f64 * sums[PAGES - 1];
        u32::try_from(sums.partition_point(|&sum| sum < drawn)).unwrap()
    };
    let steps: Vec<_> = (0..USES).map(|n| Step::Use(page(n))).collect();
    let is_followed = |step: &Step| match *step {
        Step::Use(page) => mixed(u64::from(page) ^ 0xABCD).is_multiple_of(u64::from(ONE_IN)),
        Step::Need(_) | Step::Leave(_) => true,
    };
    let sampled: Vec<_> = steps.iter().copied().filter(is_followed).collect();
    let (all, sample) = (Curve::of(&uses(&steps, 1)), Curve::of(&uses(&sampled, ONE_IN)));
    // From the limit on at which the sample has some dozens of pages in the cache.
    for limit in (0..).map(|n| 1000_u64 << n).take_while(|&limit| limit < PAGES as u64) {
        let [exact, near] = [&all, &sample].map(|curve| reread(curve, limit) as f64 / USES as f64);
        assert!((exact - near).abs() < 0.02, "{limit} pages: {near} for {exact}");
    }
}
