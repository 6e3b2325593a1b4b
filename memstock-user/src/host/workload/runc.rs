//! Names of runc's own containers, from the state of each, which has the path of its cgroup.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::file::{Files, SMALL, Trust};
use super::{Kind, Workload};

const STATES: &str = "run/runc";

pub(super) struct Runc {
    names: Files<Vec<OsString>>,
    states: Files<State>,
    /// Containers by the directory of their cgroup.
    by_dir: BTreeMap<PathBuf, String>,
}

#[derive(Deserialize)]
struct State {
    id: String,
    /// By hierarchy; the key of cgroup v2 is empty.
    cgroup_paths: BTreeMap<String, PathBuf>,
}

impl Runc {
    pub(super) fn new() -> Self {
        let (names, states) = (Files::new(0), Files::new(SMALL));
        Self { names, states, by_dir: BTreeMap::new() }
    }

    /// Updates the containers from their states.
    pub(super) fn look(&mut self, root: &Path, trust: &mut Trust) {
        self.by_dir.clear();
        let states = root.join(STATES);
        for name in self.names.names(&states, trust).iter().flat_map(|names| names.iter()) {
            let state = self.states.json(&states.join(name).join("state.json"), trust);
            // runc names the folder by the id; with any other id the file is not runc's.
            if let Some(state) = state.filter(|state| OsString::from(&state.id) == *name)
                && let Some(dir) = state.cgroup_paths.get("")
            {
                self.by_dir.insert(dir.clone(), state.id.clone());
            }
        }
    }

    /// The container whose cgroup is at `path` in the hierarchy, wherever runc found the hierarchy mounted.
    pub(super) fn name(&self, hierarchy: &Path, path: &Path) -> Option<Workload> {
        if self.by_dir.is_empty() {
            return None;
        }
        let inside = path.strip_prefix("/").unwrap_or(path);
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let mut mounts = [hierarchy].into_iter().chain(mounts);
        let id = mounts.find_map(|mount| self.by_dir.get(&mount.join(inside)))?;
        Some(Workload::new(Kind::Container, id.clone()))
    }

    pub(super) fn forget_unused(&mut self) {
        self.names.forget_unused();
        self.states.forget_unused();
    }
}
