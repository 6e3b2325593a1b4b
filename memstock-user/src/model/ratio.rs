//! The ratios shown to people, all computed from counts taken where pages are charged.

/// The share of charged pages that came from a stock, in percent; `None` when nothing was charged.
pub fn hit_rate(from_stock: f64, charged: f64) -> Option<f64> {
    // The two are not read at the same instant, so the part may exceed the whole.
    (charged > 0.0).then(|| 100.0 * (from_stock / charged).clamp(0.0, 1.0))
}

/// Operations on the shared counters for each page charged; `None` when nothing was charged.
pub fn operations_per_page(operations: f64, charged: f64) -> Option<f64> {
    (charged > 0.0).then(|| operations / charged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Holds for all values of the counters.
        #[test]
        fn a_percentage_is_one(from_stock: u64, missed: u64, operations: u64) {
            let charged = from_stock as f64 + missed as f64;
            for charged in [charged, missed as f64] {
                let rate = hit_rate(from_stock as f64, charged);
                prop_assert!(rate.is_none_or(|rate| (0.0..=100.0).contains(&rate)));
                let operations = operations_per_page(operations as f64, charged);
                prop_assert!(operations.is_none_or(|ratio| ratio >= 0.0 && ratio.is_finite()));
            }
        }
    }

    #[test]
    fn of_nothing_there_is_none() {
        assert_eq!((hit_rate(0.0, 0.0), operations_per_page(3.0, 0.0)), (None, None));
        assert_eq!(hit_rate(3.0, 4.0), Some(75.0));
    }
}
