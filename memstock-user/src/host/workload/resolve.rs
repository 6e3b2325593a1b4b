//! From cgroups to names: which runtime's files are read for which place, and what was found.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::containerd::Containerd;
use super::docker::Docker;
use super::file::Trust;
use super::kubelet::Kubelet;
use super::place::{Place, is_id, is_in_container, place, split};
use super::podman::Podman;
use super::runc::Runc;
use super::{Kind, Workload};
use crate::host::cgroup::Cgroup;

/// Resolves names repeatedly: a file is read only if it is new or has changed.
pub struct Resolver {
    /// The folder below which runtimes have their files.
    root: PathBuf,
    trust: Trust,
    docker: Docker,
    podman: Podman,
    containerd: Containerd,
    runc: Runc,
    kubelet: Kubelet,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::below("/".into(), 0)
    }
}

impl Resolver {
    pub(super) fn below(root: PathBuf, owner: u32) -> Self {
        Self {
            root,
            trust: Trust::new(owner),
            docker: Docker::new(),
            podman: Podman::new(),
            containerd: Containerd::new(),
            runc: Runc::new(),
            kubelet: Kubelet::new(),
        }
    }

    /// The names of these cgroups, by path; those without a name are left out. `hierarchy` is where cgroup v2 is
    /// mounted.
    pub fn names<'a>(
        &mut self,
        hierarchy: &Path,
        paths: impl IntoIterator<Item = &'a Path>,
    ) -> HashMap<&'a Path, Workload> {
        self.runc.look(&self.root, &mut self.trust);
        let (mut found, mut unnamed_pods) = (HashMap::new(), Vec::new());
        let mut believed = HashMap::new();
        let mut last = None;
        for path in paths {
            let Some((above, _)) = split(path) else { continue };
            // By its bytes: hashing or comparing a `Path` walks over its components.
            let above = above.as_os_str();
            let is_believed = match last {
                // Most come after a sibling.
                Some((last, is_believed)) if last == above => is_believed,
                _ => *believed.entry(above).or_insert_with(|| {
                    let above = Path::new(above);
                    !is_in_container(above) && self.owns(hierarchy, above)
                }),
            };
            last = Some((above, is_believed));
            let Some(place) = place(path).filter(|_| is_believed) else { continue };
            match self.name(hierarchy, path, &place).filter(Workload::is_sound) {
                Some(workload) => drop(found.insert(path, workload)),
                None if matches!(place, Place::Pod(_)) => unnamed_pods.push(path),
                None => {}
            }
        }
        for path in unnamed_pods {
            // Its containers know their pod.
            let below = found.iter().find(|(below, _)| below.parent() == Some(path));
            let of = below.and_then(|(_, of)| Some((of.namespace.clone()?, of.pod.clone()?)));
            if let Some((namespace, pod)) = of {
                found.insert(path, Workload::pod(namespace, pod));
            }
        }
        self.docker.forget_unused();
        self.podman.forget_unused();
        self.containerd.forget_unused();
        self.runc.forget_unused();
        self.kubelet.forget_unused();
        found
    }

    /// The name of a single cgroup, without a cache.
    pub fn name_of(cgroup: &Cgroup) -> Option<Workload> {
        let path = &*cgroup.path;
        let inside = path.strip_prefix("/").unwrap_or(path).iter().count();
        let hierarchy = cgroup.dir.ancestors().nth(inside)?;
        Self::default().names(hierarchy, [path]).remove(path)
    }

    /// What was wrong with files since the last call, one line each.
    pub fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trust.warnings)
    }

    #[cfg(test)]
    pub(super) fn owner(&self) -> u32 {
        self.trust.owner
    }

    /// How many files of docker are cached.
    #[cfg(test)]
    pub(super) fn nr_known(&self) -> usize {
        self.docker.nr_known()
    }

    /// Whether root owns the parent cgroup: whoever may make cgroups there can give them the names of others.
    fn owns(&self, hierarchy: &Path, above: &Path) -> bool {
        let above = hierarchy.join(above.strip_prefix("/").unwrap_or(above));
        above.metadata().is_ok_and(|above| above.uid() == self.trust.owner)
    }

    fn name(&mut self, hierarchy: &Path, path: &Path, place: &Place) -> Option<Workload> {
        let (root, trust) = (&*self.root, &mut self.trust);
        match place {
            Place::Docker(id) => self.docker.name(root, id, trust),
            Place::Podman(id) => self.podman.name(root, id, trust),
            Place::InPod(id) => {
                let of_runtime = self.containerd.in_pod(root, id, trust);
                of_runtime.or_else(|| self.kubelet.container(root, id, trust))
            }
            Place::Pod(uid) => self.kubelet.pod(root, uid, trust),
            Place::Machine(name) => Some(Workload::new(Kind::Machine, name.clone())),
            Place::Unit(name) => {
                // For runc with the systemd driver, the unit is the container.
                let found = self.by_files(hierarchy, path);
                found.or_else(|| Some(Workload::new(Kind::Unit, name.clone())))
            }
            Place::Unknown => self.by_files(hierarchy, path),
        }
    }

    /// The container whose runtime has this path in its files.
    fn by_files(&mut self, hierarchy: &Path, path: &Path) -> Option<Workload> {
        let (root, trust) = (&*self.root, &mut self.trust);
        if let Some(found) = self.runc.name(hierarchy, path) {
            return Some(found);
        }
        let id = split(path)?.1.to_str()?;
        if is_id(id)
            && let Some(found) = self.docker.name(root, id, trust)
        {
            return Some(found);
        }
        self.containerd.at(root, path.to_str()?, trust)
    }
}
