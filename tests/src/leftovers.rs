//! Finds what memstock may leave on a host: pins, cgroups, its lock, its event stream. A test must leave none of it.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::cgroup;

/// Where memstock pins its maps and programs.
pub const PINS: &str = "/sys/fs/bpf";
/// The file that keeps a second engine out.
pub const LOCK: &str = "/run/memstock.lock";
/// The files of the event stream: the current one, and the full one before it.
pub const EVENTS: [&str; 2] = ["/run/memstock.events", "/run/memstock.events.1"];
/// The file that says why the daemon is degraded.
pub const DEGRADED: &str = "/run/memstock.degraded";

/// Everything of memstock's on the host now.
///
/// # Errors
/// When the cgroup v2 mount is not found, or the mounts cannot be read.
pub fn find() -> Result<Vec<String>> {
    let mut found = pins_and_lock();
    // memstock makes cgroups below the root or, in delegated places, a few levels down.
    collect(&cgroup::mount()?, 3, &mut found);
    // Tests make cgroups there for comparison.
    if let Some(mount) = cgroup::mount_v1_memory()? {
        collect(&mount, 0, &mut found);
    }
    Ok(found)
}

/// What an engine keeps while it runs: its pins, its lock and its event stream.
pub fn pins_and_lock() -> Vec<String> {
    let mut found = Vec::new();
    collect(Path::new(PINS), 0, &mut found);
    let files = [LOCK, DEGRADED].into_iter().chain(EVENTS).filter(|file| Path::new(file).exists());
    found.extend(files.map(str::to_owned));
    found
}

/// Checks that there is no engine.
///
/// # Errors
/// Lists what an engine keeps.
pub fn nothing_held() -> Result<()> {
    let held = pins_and_lock();
    ensure!(held.is_empty(), "an engine holds {}", held.join(", "));
    Ok(())
}

/// Checks that nothing was left behind.
///
/// # Errors
/// Lists what was.
pub fn none() -> Result<()> {
    let found = find()?;
    ensure!(found.is_empty(), "memstock left behind: {}", found.join(", "));
    Ok(())
}

fn collect(dir: &Path, depth: u32, found: &mut Vec<String>) {
    // A folder that does not exist, or vanishes while it is read, counts as empty.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("memstock") {
            found.push(entry.path().display().to_string());
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth - 1, found);
        }
    }
}
