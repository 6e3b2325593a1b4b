//! Takes readings of the running engine, with its daemon and events. Notices when the engine ended or another one
//! replaced it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::engine::Engine;
use crate::engine::sample::{Paths, sample};
use crate::exit::{Failure, exit_code};
use crate::host::cgroup::{CgroupMount, Pressure};
use crate::host::lock;
use crate::host::workload::Resolver;
use crate::journal::Entry;
use crate::journal::degraded;
use crate::journal::read::Reader;
use crate::model::{Name, Sample};

/// Time between two lookups of the daemon, each of which examines all files that it has open.
const DAEMON_PAUSE: Duration = Duration::from_secs(5);

/// Memory pressure by cgroup v2 id.
pub type Pressures = HashMap<u64, Pressure>;

/// A sample, with when it was taken and what is known besides.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What the engine held.
    pub sample: Sample,
    /// When it was taken.
    pub at: Instant,
    /// The daemon's process id; `None` if it died, or is not known.
    pub daemon: Option<u32>,
    /// Whether the reading before was of another engine.
    pub is_new_engine: bool,
    /// Memory pressure of the cgroups that it was asked for and is known of.
    pub pressures: Pressures,
    /// Why some names are unknown, a line each.
    pub warnings: Vec<String>,
}

/// The running engine, for reading.
pub struct Source {
    engine: Engine,
    mount: CgroupMount,
    paths: Paths,
    resolver: Resolver,
    /// Show only the cgroup with this id and its descendants; all cgroups if `None`.
    only: Option<u64>,
    /// Device and inode of the pin folder that the engine was opened through.
    folder: Option<(u64, u64)>,
    events: Reader,
    daemon: Option<u32>,
    daemon_asked: Option<Instant>,
}

impl Source {
    /// Reads an engine that was just opened; `only` this cgroup and its descendants, if given.
    ///
    /// # Errors
    /// Its pin folder cannot be examined.
    pub fn new(engine: Engine, mount: CgroupMount, only: Option<u64>) -> Result<Self> {
        let folder = folder(&engine)?;
        Ok(Self {
            engine,
            mount,
            paths: Paths::default(),
            resolver: Resolver::default(),
            only,
            folder,
            events: Reader::new(),
            daemon: None,
            daemon_asked: None,
        })
    }

    /// The path of the cgroup with this id, if it exists.
    pub fn path_of(&self, id: u64) -> Option<PathBuf> {
        self.mount.path_of(id)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The next reading, with the memory pressure of the cgroups for which `wants` is true; `None` if the engine has ended
    /// and no other one runs.
    ///
    /// # Errors
    /// The engine cannot be read.
    pub fn reading(&mut self, wants: impl Fn(u64) -> bool) -> Result<Option<Reading>> {
        let folder = folder(&self.engine)?;
        let is_new_engine = folder != self.folder;
        if is_new_engine {
            self.engine = match Engine::open(self.engine.pins()) {
                Err(error) if exit_code(&error) == Failure::NotRunning.code() => return Ok(None),
                engine => engine?,
            };
            (self.folder, self.daemon_asked) = (folder, None);
            self.events = Reader::new();
        }
        if self.daemon_asked.is_none_or(|asked| asked.elapsed() >= DAEMON_PAUSE) {
            self.daemon = lock::holder().ok().flatten();
            self.daemon_asked = Some(Instant::now());
        }
        if self.daemon.is_none() {
            // Nobody tells the engine that a cgroup was removed.
            self.paths = Paths::default();
        }
        // A missing daemon is shown anyway.
        let degraded = self.daemon.map(|_| degraded::of_daemon()).unwrap_or_default();
        let mut sample = Sample { degraded, ..sample(&self.engine, &self.mount, &mut self.paths)? };
        let at = Instant::now();
        if let Some(id) = self.only {
            sample.keep_below(id);
        }
        sample.ask_names(self.mount.dir(), &mut self.resolver);
        let pressure = |Name { id, path, .. }: &Name| {
            Some((*id, Pressure::of(self.mount.dir(), path.as_deref()?, Pressure::MEMORY)?))
        };
        let wanted = sample.cgroups.iter().map(|cgroup| &cgroup.name).filter(|name| wants(name.id));
        let pressures = wanted.filter_map(pressure).collect();
        let (daemon, warnings) = (self.daemon, self.resolver.warnings());
        Ok(Some(Reading { sample, at, daemon, is_new_engine, pressures, warnings }))
    }

    /// The events since the last call.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn events(&mut self) -> Result<Vec<Entry>> {
        if self.events.is_over() {
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        self.events.read(|read| {
            entries.push(read.entry.clone());
            Ok(())
        })??;
        Ok(entries)
    }
}

/// Device and inode of the engine's pin folder; another engine has another folder.
fn folder(engine: &Engine) -> Result<Option<(u64, u64)>> {
    let root = engine.pins().root();
    match fs::metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        meta => {
            let meta = meta.with_context(|| format!("cannot look at {}", root.display()))?;
            Ok(Some((meta.dev(), meta.ino())))
        }
    }
}

/// The error that the engine has ended.
pub fn ended() -> anyhow::Error {
    Failure::NotRunning.error("the engine has ended: start one with \"memstock run\"")
}
