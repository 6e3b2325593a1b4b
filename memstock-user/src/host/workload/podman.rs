//! Podman's names, from `containers.json` of its storage, one file for all containers. After a rename `names` is right,
//! `metadata` is not.

use std::path::Path;

use serde::Deserialize;

use super::file::{Files, LARGE, Trust};
use super::{Kind, Workload};

/// Storage drivers, which name the folder.
const STORAGES: [&str; 3] = ["overlay", "vfs", "btrfs"];

pub(super) struct Podman(Files<Vec<Container>>);

#[derive(Deserialize)]
struct Container {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

impl Podman {
    pub(super) fn new() -> Self {
        Self(Files::new(LARGE))
    }

    pub(super) fn name(&mut self, root: &Path, id: &str, trust: &mut Trust) -> Option<Workload> {
        STORAGES.iter().find_map(|driver| {
            let storage = root.join("var/lib/containers/storage");
            let path = storage.join(format!("{driver}-containers/containers.json"));
            let containers = self.0.json(&path, trust)?;
            let container = containers.iter().find(|container| container.id == id)?;
            Some(Workload::new(Kind::Container, container.names.first()?.clone()))
        })
    }

    pub(super) fn forget_unused(&mut self) {
        self.0.forget_unused();
    }
}
