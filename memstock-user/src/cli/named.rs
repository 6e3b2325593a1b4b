//! Flags that name a cgroup by container, pod or unit.

use clap::Args;

use crate::host::workload::find::Wanted;

/// A cgroup by name.
#[derive(Args, Clone, Debug, Default)]
pub struct Named {
    /// The cgroup of this container: NAME, POD/NAME or NAMESPACE/POD/NAME (docs/names.md)
    #[arg(long = "container", value_name = "NAME")]
    pub containers: Vec<String>,

    /// The cgroup of this pod, with all its containers
    #[arg(long = "pod", value_name = "[NAMESPACE/]POD")]
    pub pods: Vec<String>,

    /// The cgroup of this systemd unit; ".service" may be left out
    #[arg(long = "unit", value_name = "UNIT")]
    pub units: Vec<String>,
}

impl Named {
    /// What the flags name.
    pub fn wanted(&self) -> Vec<Wanted> {
        let containers = self.containers.iter().cloned().map(Wanted::Container);
        let pods = self.pods.iter().cloned().map(Wanted::Pod);
        containers.chain(pods).chain(self.units.iter().cloned().map(Wanted::Unit)).collect()
    }
}
