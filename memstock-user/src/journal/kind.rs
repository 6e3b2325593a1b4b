//! Counts the records published of each kind, for the metrics.

use strum::{EnumCount as _, VariantNames as _};

use super::record::{Kind, Record};

/// The name of each kind, as in the field `kind`.
pub(super) const KINDS: &[&str] = Kind::VARIANTS;

/// The number of records of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([u64; Kind::COUNT]);

impl Counts {
    pub(super) fn count(&mut self, record: &Record) {
        self.0[Kind::from(record) as usize] += 1;
    }

    /// Every kind with its count, also those without a record.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.iter().copied().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::every_kind;

    #[test]
    fn the_names_are_those_of_the_stream() {
        let mut counts = Counts::default();
        for record in every_kind() {
            let json = serde_json::to_value(&record).unwrap();
            assert_eq!(json["kind"], KINDS[Kind::from(&record) as usize]);
            counts.count(&record);
        }
        assert!(counts.iter().all(|(_, count)| count > 0));
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), every_kind().len() as u64);
    }
}
