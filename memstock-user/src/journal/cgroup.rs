//! A cgroup as a record names it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::host::cgroup::{display, hex_unless_plain};
use crate::host::workload::Workload;

/// A cgroup by id and name.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cgroup {
    /// cgroup v2 id.
    pub id: u64,
    /// Path in the hierarchy, with bytes that are not text escaped; none if it is no longer known.
    pub path: Option<String>,
    /// The bytes of the path in hexadecimal, if something in it was escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// What people call it, if known. Not written to the files of the stream: readers look it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Workload>,
}

impl Cgroup {
    /// Named as people see it.
    pub fn new(id: u64, path: Option<&Path>) -> Self {
        let path_hex = path.and_then(hex_unless_plain);
        Self { id, path: path.map(display), path_hex, name: None }
    }
}

/// A living cgroup.
pub fn named(cgroup: &crate::host::cgroup::Cgroup) -> Cgroup {
    Cgroup::new(cgroup.id, Some(&cgroup.path))
}
