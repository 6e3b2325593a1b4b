//! Owns the settings of a run that the file may have: their keys, which flags they stand for, and which can
//! change while it runs. A new one is a field, a row in [`SETTINGS`], and its name in `below`, `of`
//! and `while_running`, which the compiler asks for.

use std::net::SocketAddr;

use memstock_common::{EngineInfo, MAX_BATCH, MAX_CGROUPS, MAX_SLOTS};
use toml::de::DeValue;

use super::value::{Key, boolean, expected, number};
use crate::cli::{Batch, Run, address};
use crate::engine::Engine;

/// Settings with the names of the flags. None and false: the file does not say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Pages charged at once.
    pub batch: Option<Batch>,
    /// Cgroups that a CPU's stock can be cached for at once.
    pub slots: Option<u32>,
    /// Cgroups that can be tracked at once.
    pub max_cgroups: Option<u32>,
    /// Charge memory+swap as well.
    pub memsw: bool,
    /// Stop and kill nobody at a limit.
    pub observe: bool,
    /// Kill all tasks of the cgroup that is over its limit.
    pub oom_group: bool,
    /// Leave alone what the cgroups hold already.
    pub no_adopt: bool,
    /// Do not drain stocks by itself.
    pub no_drain: bool,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
}

/// A setting.
pub struct Setting {
    /// Its key, and how it is read.
    pub key: Key<Settings>,
    /// How it reads.
    pub show: fn(&Settings) -> String,
}

/// All of them.
pub const SETTINGS: [Setting; 9] = [
    Setting {
        key: Key { name: "batch", read: |of, value| batch(value).map(|n| of.batch = Some(n)) },
        show: |of| of.batch.map_or_else(|| "default".to_owned(), |batch| batch.to_string()),
    },
    Setting {
        key: Key { name: "slots", read: |of, value| slots(value).map(|n| of.slots = Some(n)) },
        show: |of| given(of.slots),
    },
    Setting {
        key: Key {
            name: "max-cgroups",
            read: |of, value| number(value, 1..=MAX_CGROUPS).map(|n| of.max_cgroups = Some(n)),
        },
        show: |of| given(of.max_cgroups),
    },
    Setting {
        key: Key { name: "memsw", read: |of, value| boolean(value).map(|on| of.memsw = on) },
        show: |of| of.memsw.to_string(),
    },
    Setting {
        key: Key { name: "observe", read: |of, value| boolean(value).map(|on| of.observe = on) },
        show: |of| of.observe.to_string(),
    },
    Setting {
        key: Key {
            name: "oom-group",
            read: |of, value| boolean(value).map(|on| of.oom_group = on),
        },
        show: |of| of.oom_group.to_string(),
    },
    Setting {
        key: Key { name: "no-adopt", read: |of, value| boolean(value).map(|on| of.no_adopt = on) },
        show: |of| of.no_adopt.to_string(),
    },
    Setting {
        key: Key { name: "no-drain", read: |of, value| boolean(value).map(|on| of.no_drain = on) },
        show: |of| of.no_drain.to_string(),
    },
    Setting {
        key: Key {
            name: "metrics",
            read: |of, value| metrics(value).map(|address| of.metrics = Some(address)),
        },
        show: |of| of.metrics.map_or_else(|| "none".to_owned(), |address| address.to_string()),
    },
];

fn batch(value: &DeValue<'_>) -> Result<Batch, String> {
    match value.as_str() {
        Some("auto") => Ok(Batch::Auto),
        _ => number(value, 1..=MAX_BATCH).map(Batch::Pages),
    }
}

fn slots(value: &DeValue<'_>) -> Result<u32, String> {
    match number(value, 1..=MAX_SLOTS)? {
        slots if slots.is_power_of_two() => Ok(slots),
        slots => Err(format!("{slots} is not a power of two")),
    }
}

fn metrics(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    match value {
        DeValue::String(text) => address(text),
        DeValue::Integer(port) if port.radix() == 10 => address(port.as_str()),
        value => Err(expected("a port, or \"ADDRESS:PORT\"", value)),
    }
}

fn given(number: Option<u32>) -> String {
    number.map_or_else(|| "default".to_owned(), |number| number.to_string())
}

impl Settings {
    /// Gives a command line what it leaves open.
    pub fn below(&self, run: &mut Run) {
        let &Self { batch, slots, max_cgroups, memsw, observe, .. } = self;
        let &Self { oom_group, no_adopt, no_drain, metrics, .. } = self;
        run.batch = run.batch.or(batch);
        run.slots = run.slots.or(slots);
        run.max_cgroups = run.max_cgroups.or(max_cgroups);
        run.memsw |= memsw;
        run.observe |= observe;
        run.oom_group |= oom_group;
        run.no_adopt |= no_adopt;
        run.no_drain |= no_drain;
        run.metrics = run.metrics.or(metrics);
    }

    /// Those of a command line, with what the running engine has where it leaves that open.
    pub fn with(run: &Run, engine: &Engine) -> Self {
        let EngineInfo { batch, slots, memsw, .. } = engine.info();
        let &Run { observe, oom_group, no_adopt, no_drain, metrics, .. } = run;
        let batch = run.batch.or(Some(Batch::Pages(batch)));
        let slots = run.slots.or(Some(slots));
        let max_cgroups = run.max_cgroups.or(Some(engine.max_cgroups()));
        let memsw = run.memsw || memsw != 0;
        Self { batch, slots, max_cgroups, memsw, observe, oom_group, no_adopt, no_drain, metrics }
    }

    /// These as far as they can change while an engine runs, and those of `old` for the rest.
    pub fn while_running(self, old: &Self) -> Self {
        let Self { batch: _, slots: _, max_cgroups: _, memsw: _, metrics: _, .. } = self;
        let Self { observe, oom_group, no_adopt, no_drain, .. } = self;
        let &Self { batch, slots, max_cgroups, memsw, metrics, .. } = old;
        Self { batch, slots, max_cgroups, memsw, observe, oom_group, no_adopt, no_drain, metrics }
    }

    /// What differs from `self` to `new`: key, old value, new value.
    pub fn changes(&self, new: &Self) -> impl Iterator<Item = (&'static str, String, String)> {
        let shown =
            |setting: &Setting| (setting.key.name, (setting.show)(self), (setting.show)(new));
        let shown: Vec<_> = SETTINGS.iter().map(shown).collect();
        shown.into_iter().filter(|(_, from, to)| from != to)
    }

    /// How the value of a key reads.
    pub fn value(&self, key: &str) -> Option<String> {
        let setting = SETTINGS.iter().find(|setting| setting.key.name == key)?;
        Some((setting.show)(self))
    }
}
