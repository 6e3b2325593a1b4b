//! Reads a value of the file, a number or a string, with the parser of the flag of that name.

use std::fmt;
use std::net::SocketAddr;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::settings::Entry;
use crate::cli::value;

/// A limit in pages, or none for no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(pub Option<u64>);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AsFlag(value::limited)).map(Self)
    }
}

pub fn batch<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    from.deserialize_any(AsFlag(value::batch)).map(Some)
}

pub fn slots<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    from.deserialize_any(AsFlag(value::slots)).map(Some)
}

pub fn max_cgroups<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    from.deserialize_any(AsFlag(value::max_cgroups)).map(Some)
}

pub fn metrics<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    from.deserialize_any(AsFlag(value::address)).map(Some)
}

pub fn cgroups<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Entry>, D::Error> {
    from.deserialize_seq(Cgroups)
}

/// Reads a value with the parser of a flag.
struct AsFlag<T>(fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for AsFlag<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        // A flag accepts -1 for no limit, as cgroup v1 does; in a file it is a mistake.
        let number = u64::try_from(number).map_err(|_| E::custom("a negative number"))?;
        self.visit_u64(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

/// Expects a list, and says how it is written.
struct Cgroups;

impl<'de> Visitor<'de> for Cgroups {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[[cgroup]] in two brackets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<Vec<Entry>, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(entries))
    }
}
