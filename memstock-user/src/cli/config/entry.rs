//! Owns what a `[[cgroup]]` of the file may have.

use std::path::PathBuf;

use super::mistake::Place;
use super::value::{Key, path, size};

/// A cgroup of the file. Limits are in pages: no limit is `Some(None)`, and `None` that the file does not say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Entry {
    /// A directory, or a path in the hierarchy.
    pub path: PathBuf,
    /// Of memory.
    pub memory: Option<Option<u64>>,
    /// Of memory and swap together.
    pub memsw: Option<Option<u64>>,
    /// Where its keys are in the file, for what is wrong with it on this host.
    pub places: Places,
}

/// The place of each value.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Places {
    /// Of `path`.
    pub path: Place,
    /// Of `memory`.
    pub memory: Place,
    /// Of `memsw`.
    pub memsw: Place,
}

/// A key of an entry, and where its place is noted.
pub struct Field {
    /// The key, and how it is read.
    pub key: Key<Entry>,
    /// The place.
    pub place: fn(&mut Places) -> &mut Place,
}

/// All of them.
pub const FIELDS: [Field; 3] = [
    Field {
        key: Key { name: "path", read: |of, value| path(value).map(|path| of.path = path) },
        place: |places| &mut places.path,
    },
    Field {
        key: Key { name: "memory", read: |of, value| size(value).map(|to| of.memory = Some(to)) },
        place: |places| &mut places.memory,
    },
    Field {
        key: Key { name: "memsw", read: |of, value| size(value).map(|to| of.memsw = Some(to)) },
        place: |places| &mut places.memsw,
    },
];
