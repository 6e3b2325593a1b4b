//! Owns the settings of a run that are both flags and keys of its file, the cgroups of the file, and which settings can
//! change while an engine runs.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use memstock_common::EngineInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toml::Spanned;

use super::value::{self as read, Size};
use crate::cli::value::{address, batch, max_cgroups, slots};
use crate::engine::Engine;
use crate::host::workload::find::Wanted;

/// Settings of a run. None or false if not given.
#[derive(Args, Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Pages charged at once when a stock is empty, up to 1024 [default: 32, or that of an adopted engine]
    #[arg(long, value_name = "N", value_parser = batch)]
    #[serde(deserialize_with = "read::batch")]
    pub batch: Option<u32>,

    /// Cgroups for which a CPU can hold stocks at once, up to 64 [default: 1, or that of an adopted engine]
    #[arg(long, value_name = "N", value_parser = slots)]
    #[serde(deserialize_with = "read::slots")]
    pub slots: Option<u32>,

    /// Cgroups that can be tracked at once, up to 16384; each takes 40 bytes per possible CPU, and 128 more [default:
    /// 1024, or that of an adopted engine]
    #[arg(long, value_name = "N", value_parser = max_cgroups)]
    #[serde(deserialize_with = "read::max_cgroups")]
    pub max_cgroups: Option<u32>,

    /// Charge memory+swap as well (always on if the host has swap)
    #[arg(long)]
    pub memsw: bool,

    /// At a limit, stop and kill nobody; only report what would have been done
    #[arg(long)]
    pub observe: bool,

    /// At a limit, kill all tasks of the cgroup that exceeds it (as memory.oom.group does), not only the largest
    #[arg(long)]
    pub oom_group: bool,

    /// Do not charge what the cgroups' tasks already hold, only what they allocate from now on
    #[arg(long)]
    pub no_adopt: bool,

    /// Do not drain stocks automatically when the kernel reclaims memory or a limit is near
    #[arg(long)]
    pub no_drain: bool,

    /// Serve metrics and health over HTTP, on loopback unless an address is given (docs/metrics.md)
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = address)]
    #[serde(deserialize_with = "read::metrics")]
    pub metrics: Option<SocketAddr>,

    /// With --metrics, also serve what the kernel's own memory controller has in stock for each cgroup
    /// (docs/kernel-stock.md)
    #[arg(long)]
    pub kernel_stock: bool,

    /// Each `[[cgroup]]` of the file.
    #[arg(skip)]
    #[serde(rename = "cgroup", deserialize_with = "read::cgroups", skip_serializing)]
    pub cgroups: Vec<Entry>,
}

/// A `[[cgroup]]` of the file: one by path, or all with a name. Values that may be wrong on this host have their
/// position.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Entry {
    /// Which cgroup or cgroups.
    pub which: Which,
    /// Limit of memory.
    pub memory: Option<Spanned<Size>>,
    /// Limit of memory and swap together.
    pub memsw: Option<Spanned<Size>>,
}

/// How cgroups are named in the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Which {
    /// A directory, or a path in the hierarchy.
    Path(Spanned<PathBuf>),
    /// A container, pod or unit.
    Name(Wanted),
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    path: Option<Spanned<PathBuf>>,
    container: Option<String>,
    pod: Option<String>,
    unit: Option<String>,
    memory: Option<Spanned<Size>>,
    memsw: Option<Spanned<Size>>,
}

impl TryFrom<Written> for Entry {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { path, container, pod, unit, memory, memsw } = written;
        let names = [
            container.map(Wanted::Container).map(Which::Name),
            pod.map(Wanted::Pod).map(Which::Name),
            unit.map(Wanted::Unit).map(Which::Name),
        ];
        let mut all = names.into_iter().flatten().chain(path.map(Which::Path));
        match (all.next(), all.next()) {
            (Some(which), None) => Ok(Self { which, memory, memsw }),
            _ => Err("a cgroup needs one of `path`, `container`, `pod`, `unit`"),
        }
    }
}

impl Entry {
    /// Its path, if it has one.
    pub fn path(&self) -> Option<&Spanned<PathBuf>> {
        match &self.which {
            Which::Path(path) => Some(path),
            Which::Name(_) => None,
        }
    }

    /// Its name, if it has one instead of a path.
    pub fn name(&self) -> Option<&Wanted> {
        match &self.which {
            Which::Path(_) => None,
            Which::Name(wanted) => Some(wanted),
        }
    }
}

impl Settings {
    /// Whether any cgroup is named by container, pod or unit.
    pub fn has_names(&self) -> bool {
        self.cgroups.iter().any(|entry| entry.name().is_some())
    }

    /// These flags, with those not given taken from the file.
    pub fn or(&self, file: &Self) -> Self {
        Self {
            batch: self.batch.or(file.batch),
            slots: self.slots.or(file.slots),
            max_cgroups: self.max_cgroups.or(file.max_cgroups),
            memsw: self.memsw || file.memsw,
            observe: self.observe || file.observe,
            oom_group: self.oom_group || file.oom_group,
            no_adopt: self.no_adopt || file.no_adopt,
            no_drain: self.no_drain || file.no_drain,
            metrics: self.metrics.or(file.metrics),
            kernel_stock: self.kernel_stock || file.kernel_stock,
            cgroups: Vec::new(),
        }
    }

    /// These settings, with those not given taken from the running engine.
    pub fn with(&self, engine: &Engine) -> Self {
        let EngineInfo { batch, slots, memsw, .. } = engine.info();
        Self {
            batch: self.batch.or(Some(batch)),
            slots: self.slots.or(Some(slots)),
            max_cgroups: self.max_cgroups.or(Some(engine.max_cgroups())),
            memsw: self.memsw || memsw != 0,
            ..self.clone()
        }
    }

    /// These settings where they can change while an engine runs, and those of `old` elsewhere.
    pub fn while_running(&self, old: &Self) -> Self {
        let &Self { observe, oom_group, no_adopt, no_drain, .. } = self;
        Self { observe, oom_group, no_adopt, no_drain, ..old.clone() }
    }

    /// The changes from `self` to `new`: key, old value, new value.
    pub fn changes(&self, new: &Self) -> impl Iterator<Item = (String, String, String)> {
        let pairs = self.values().into_iter().zip(new.values());
        pairs.filter(|(old, new)| old != new).map(|((key, from), (_, to))| (key, from, to))
    }

    /// The keys, and their values as written in the file.
    fn values(&self) -> Vec<(String, String)> {
        let Ok(Value::Object(values)) = serde_json::to_value(self) else { return Vec::new() };
        let text = |value| match value {
            Value::Null => "none".to_owned(),
            Value::String(text) => text,
            other => other.to_string(),
        };
        values.into_iter().map(|(key, value)| (key, text(value))).collect()
    }
}
