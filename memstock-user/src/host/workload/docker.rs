//! Docker's names, from `config.v2.json` of each container, which dockerd rewrites when one is renamed.

use std::path::Path;

use serde::Deserialize;

use super::file::{Files, SMALL, Trust};
use super::{Kind, Workload};

const CONTAINERS: &str = "var/lib/docker/containers";

pub(super) struct Docker(Files<Config>);

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Name")]
    name: String,
}

impl Docker {
    pub(super) fn new() -> Self {
        Self(Files::new(SMALL))
    }

    pub(super) fn name(&mut self, root: &Path, id: &str, trust: &mut Trust) -> Option<Workload> {
        let path = root.join(CONTAINERS).join(id).join("config.v2.json");
        let config = self.0.json(&path, trust)?;
        let name = config.name.strip_prefix('/').unwrap_or(&config.name);
        Some(Workload::new(Kind::Container, name))
    }

    #[cfg(test)]
    pub(super) fn nr_known(&self) -> usize {
        self.0.nr_known()
    }

    pub(super) fn forget_unused(&mut self) {
        self.0.forget_unused();
    }
}
