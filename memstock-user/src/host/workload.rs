//! Owns the names of cgroups: container, pod, unit, machine. They come from a cgroup's path and from the files of
//! runtimes; no daemon is asked, so names are known while a runtime is dead.
//!
//! `place` tells from the path alone what a cgroup can be; one module per runtime (`docker`, `podman`, `containerd`,
//! `runc`, `kubelet`) knows the file with the name, which `file` reads with suspicion; `resolve` combines them and
//! caches; `find` goes from names to cgroups. A name that cannot be found is none, never an error. Must not be used
//! where the daemon may not wait: a file may be on a disk that hangs.

mod containerd;
mod docker;
mod file;
pub mod find;
mod kubelet;
mod place;
mod podman;
mod resolve;
mod runc;
#[cfg(test)]
mod tests;

pub use resolve::Resolver;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::exit::printable;

/// The longest name that is accepted, in bytes: namespace, pod and container of Kubernetes.
const LONGEST: usize = 253 + 1 + 253 + 1 + 253;

/// What people call a cgroup.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Workload {
    /// What it is.
    pub kind: Kind,
    /// Its whole name: `web`, `shop/web-0/api`, `shop/web-0`, `nginx.service`.
    pub name: String,
    /// The name of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The namespace of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name of the container, in its pod if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// What a cgroup can be.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A container.
    Container,
    /// A pod, with its containers below it.
    Pod,
    /// What keeps the namespaces of a pod.
    Sandbox,
    /// A container that is a whole system: of lxc or systemd-nspawn.
    Machine,
    /// A unit of systemd.
    Unit,
}

impl Workload {
    fn new(kind: Kind, name: impl Into<String>) -> Self {
        let name = name.into();
        let container = matches!(kind, Kind::Container | Kind::Machine).then(|| name.clone());
        Self { kind, name, pod: None, namespace: None, container }
    }

    fn pod(namespace: String, pod: String) -> Self {
        let name = format!("{namespace}/{pod}");
        Self { kind: Kind::Pod, name, pod: Some(pod), namespace: Some(namespace), container: None }
    }

    /// A container of a pod; its sandbox if it has no name.
    fn in_pod(namespace: String, pod: String, container: Option<String>) -> Self {
        let of = Self::pod(namespace, pod);
        match container {
            Some(container) => {
                let name = format!("{}/{container}", of.name);
                Self { kind: Kind::Container, name, container: Some(container), ..of }
            }
            None => Self { kind: Kind::Sandbox, name: format!("{} (sandbox)", of.name), ..of },
        }
    }

    /// The unit, if it is one.
    pub fn unit(&self) -> Option<&str> {
        (self.kind == Kind::Unit).then_some(&*self.name)
    }

    /// Whether every name in it can be a name.
    fn is_sound(&self) -> bool {
        let names = [&self.pod, &self.namespace, &self.container].into_iter().flatten();
        names.chain([&self.name]).all(|name| is_sound(name))
    }
}

/// Escaped, so that it is harmless on a terminal.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.name))
    }
}

/// Whether text can be a name at all; runtimes allow fewer.
fn is_sound(name: &str) -> bool {
    // A name must not look like a path, which begins with a slash.
    let is_odd = name.trim().is_empty() || name.starts_with('/') || name.contains(char::is_control);
    !is_odd && name.len() <= LONGEST
}
