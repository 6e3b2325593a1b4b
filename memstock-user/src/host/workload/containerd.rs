//! containerd's names, from the OCI configuration in the state of each container. Kubelet's containers have their pod
//! in the annotations; for those of `ctr` the id is the name.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;

use super::file::{Files, SMALL, Trust};
use super::{Kind, Workload};

const TASKS: &str = "run/containerd/io.containerd.runtime.v2.task";
/// The namespace of its CRI plugin.
const CRI: &str = "k8s.io";

pub(super) struct Containerd {
    files: Files<Config>,
    /// Whether a namespace exists, for those asked for since the last call of `forget_unused`.
    namespaces: HashMap<String, bool>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Default, Deserialize)]
struct Linux {
    #[serde(default, rename = "cgroupsPath")]
    cgroups_path: String,
}

impl Containerd {
    pub(super) fn new() -> Self {
        Self { files: Files::new(SMALL), namespaces: HashMap::new() }
    }

    /// A container of a pod.
    pub(super) fn in_pod(&mut self, root: &Path, id: &str, trust: &mut Trust) -> Option<Workload> {
        let config = self.config(root, CRI, id, trust)?;
        let annotation =
            |name: &str| config.annotations.get(&format!("io.kubernetes.cri.{name}")).cloned();
        let (namespace, pod) = (annotation("sandbox-namespace")?, annotation("sandbox-name")?);
        let is_sandbox = annotation("container-type").is_some_and(|kind| kind == "sandbox");
        match annotation("container-name").filter(|_| !is_sandbox) {
            None if !is_sandbox => None,
            name => Some(Workload::in_pod(namespace, pod, name)),
        }
    }

    /// The container whose cgroup is at `path`: `/NAMESPACE/ID`, unless another one was configured.
    pub(super) fn at(&mut self, root: &Path, path: &str, trust: &mut Trust) -> Option<Workload> {
        let (namespace, id) = path.strip_prefix('/')?.split_once('/')?;
        if id.contains('/') || [namespace, id].iter().any(|name| name.starts_with('.')) {
            return None;
        }
        let config = self.config(root, namespace, id, trust)?;
        if config.linux.cgroups_path != path {
            return None;
        }
        if namespace == CRI {
            return self.in_pod(root, id, trust);
        }
        Some(Workload::new(Kind::Container, id))
    }

    fn config(
        &mut self,
        root: &Path,
        namespace: &str,
        id: &str,
        trust: &mut Trust,
    ) -> Option<std::sync::Arc<Config>> {
        let dir = || root.join(TASKS).join(namespace);
        // Cached, so as not to look once for each cgroup of a host without containerd.
        let exists = match self.namespaces.get(namespace) {
            Some(&exists) => exists,
            None => *self.namespaces.entry(namespace.to_owned()).or_insert(dir().exists()),
        };
        if !exists {
            return None;
        }
        self.files.json(&dir().join(id).join("config.json"), trust)
    }

    pub(super) fn forget_unused(&mut self) {
        self.files.forget_unused();
        self.namespaces.clear();
    }
}
