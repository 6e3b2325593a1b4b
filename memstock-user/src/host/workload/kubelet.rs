//! Kubelet's names, whatever the runtime, from the names of its log files. Reads only the names in two directories, and
//! no files.

use std::ffi::OsString;
use std::path::Path;

use super::Workload;
use super::file::{Files, Trust};

/// `<namespace>_<pod>_<uid>`.
const PODS: &str = "var/log/pods";
/// `<pod>_<namespace>_<container>-<id>.log`.
const CONTAINERS: &str = "var/log/containers";

pub(super) struct Kubelet(Files<Vec<OsString>>);

impl Kubelet {
    pub(super) fn new() -> Self {
        Self(Files::new(0))
    }

    pub(super) fn pod(&mut self, root: &Path, uid: &str, trust: &mut Trust) -> Option<Workload> {
        let end = format!("_{uid}");
        let stem = self.with_end(&root.join(PODS), &end, trust)?;
        let (namespace, pod) = stem.split_once('_')?;
        Some(Workload::pod(namespace.to_owned(), pod.to_owned()))
    }

    pub(super) fn container(
        &mut self,
        root: &Path,
        id: &str,
        trust: &mut Trust,
    ) -> Option<Workload> {
        let end = format!("-{id}.log");
        let stem = self.with_end(&root.join(CONTAINERS), &end, trust)?;
        let mut words = stem.splitn(3, '_').map(str::to_owned);
        let (pod, namespace, container) = (words.next()?, words.next()?, words.next()?);
        Some(Workload::in_pod(namespace, pod, Some(container)))
    }

    /// What precedes `end` in the file name that has it. Names of Kubernetes contain no underscore.
    fn with_end(&mut self, dir: &Path, end: &str, trust: &mut Trust) -> Option<String> {
        let names = self.0.names(dir, trust)?;
        let stems = names.iter().filter_map(|name| name.to_str()?.strip_suffix(end));
        stems.map(str::to_owned).next()
    }

    pub(super) fn forget_unused(&mut self) {
        self.0.forget_unused();
    }
}
