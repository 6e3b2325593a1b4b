//! The cgroups that the workers run in: a tracked chain of four, and a chain of four of the kernel's own memory
//! controller if that has a hierarchy of its own (v1). Attaches and charges nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use memstock::engine::Engine;
use memstock::host::cgroup::{Cgroup, CgroupMount};
use memstock_common::NO_LIMIT;
use memstock_tests::bench::workers::Workers;
use memstock_tests::cgroup::{OF_BENCH, mount_v1_memory};

/// Levels of a chain.
pub const LEVELS: usize = 4;

/// Both chains.
pub struct Places {
    /// The root of the v2 hierarchy.
    root: PathBuf,
    /// The tracked chain below the root, from the top.
    tracked: Vec<Cgroup>,
    kernel: Option<KernelChain>,
    /// Whether the kernel also charges tasks in v2 cgroups.
    v2_charges: bool,
}

/// Where the workers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Levels of tracked cgroups that their pages are charged to, up to [`LEVELS`]; 0: the root.
    pub depth: usize,
    /// Levels of the kernel's cgroups; 0: its root, which is not charged.
    pub kernel: usize,
}

impl Place {
    /// Where the workers are in slices of the control.
    pub const CONTROL: Self = Self { depth: 1, kernel: 0 };
}

/// A chain of v1 cgroups. Removed on `Drop`.
struct KernelChain {
    /// The root, then the chain from the top.
    dirs: Vec<PathBuf>,
}

impl Places {
    /// Makes the cgroups below `top`, which exists already, and the kernel's chain.
    pub fn make(mount: &CgroupMount, top: &Cgroup) -> Result<Self> {
        let mut tracked = vec![top.clone()];
        let mut path = top.path.clone();
        for level in 2..=LEVELS {
            path.push(level.to_string());
            let dir = mount.dir().join(path.strip_prefix("/").unwrap_or(&path));
            fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            tracked.push(mount.resolve(&path)?);
        }
        let controllers = fs::read_to_string(top.dir.join("cgroup.controllers"));
        let controllers = controllers.context("cannot read cgroup.controllers")?;
        let v2_charges = controllers.split_whitespace().any(|name| name == "memory");
        let kernel = mount_v1_memory()?.map(|root| KernelChain::make(&root)).transpose()?;
        Ok(Self { root: mount.dir().to_path_buf(), tracked, kernel, v2_charges })
    }

    /// Makes an engine track the chain.
    pub fn register(&self, engine: &Engine) -> Result<()> {
        let mut parent = None;
        for cgroup in &self.tracked {
            parent = Some(engine.register(cgroup.id, parent, NO_LIMIT, NO_LIMIT)?);
        }
        Ok(())
    }

    /// Whether the kernel has a chain of its own.
    pub fn has_kernel_chain(&self) -> bool {
        self.kernel.is_some()
    }

    /// Whether the kernel's v2 controller charges the workers in every slice.
    pub fn v2_charges(&self) -> bool {
        self.v2_charges
    }

    /// The folders of a place.
    pub fn dirs(&self, place: Place) -> Vec<&Path> {
        let level = place.depth.checked_sub(1).and_then(|level| self.tracked.get(level));
        let tracked = level.map_or(self.root.as_path(), |cgroup| &cgroup.dir);
        let kernel = self.kernel.as_ref().and_then(|kernel| kernel.dirs.get(place.kernel));
        [tracked].into_iter().chain(kernel.map(PathBuf::as_path)).collect()
    }

    /// Moves the workers, unless they are there already.
    pub fn enter(&self, workers: &Workers, from: Place, to: Place) -> Result<()> {
        let (there, wanted) = (self.dirs(from), self.dirs(to));
        wanted.into_iter().filter(|dir| !there.contains(dir)).try_for_each(|dir| workers.enter(dir))
    }
}

impl KernelChain {
    fn make(root: &Path) -> Result<Self> {
        let mut chain = Self { dirs: vec![root.to_path_buf()] };
        let mut dir = root.join(OF_BENCH);
        // Left by a bench that was killed; its workers died with it.
        remove_tree(&dir);
        for level in 1..=LEVELS {
            fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            chain.dirs.push(dir.clone());
            dir.push((level + 1).to_string());
        }
        Ok(chain)
    }
}

impl Drop for KernelChain {
    fn drop(&mut self) {
        for dir in self.dirs.iter().skip(1).rev() {
            if let Err(error) = fs::remove_dir(dir) {
                eprintln!("cannot remove {}: {error}", dir.display());
            }
        }
    }
}

/// Removes empty cgroups. One that is not empty stays, and making it again will fail.
fn remove_tree(dir: &Path) {
    let below = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_dir = |entry: &fs::DirEntry| -> io::Result<bool> { Ok(entry.file_type()?.is_dir()) };
    for entry in below.filter(|entry| is_dir(entry).unwrap_or(false)) {
        remove_tree(&entry.path());
    }
    let _ = fs::remove_dir(dir);
}
