//! Prometheus and promtool, for the live test of the metrics: unpacks Debian's package into the cache.
//!
//! It is not installed: that would start a service on the machine of whoever runs the tests.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::UNFINISHED;
use crate::exec::{capture, logged};
use crate::{cache, pins};

/// Names the folder with both programs to the tests.
pub const VAR: &str = "MEMSTOCK_PROMETHEUS";

/// The folder with both programs, unpacked if it is not there yet.
pub fn ensure() -> Result<PathBuf> {
    let home = cache::dir()?.join(pins::DEBIAN_PROMETHEUS);
    let bin = home.join("usr/bin");
    if answers(&bin) {
        return Ok(bin);
    }
    let _lock = cache::lock()?;
    // Another set-up may have unpacked it while we waited.
    if answers(&bin) {
        return Ok(bin);
    }
    let cache = cache::dir()?;
    let place = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(&cache)
        .with_context(|| format!("cannot write to {}; MEMSTOCK_CACHE moves it", cache.display()))?;
    let what = format!("{} for the tests of the metrics (apt-get)", pins::DEBIAN_PROMETHEUS);
    let mut download = Command::new("apt-get");
    download.args(["download", pins::DEBIAN_PROMETHEUS]).current_dir(place.path());
    logged(&what, &mut download, &cache::log("prometheus")?)
        .with_context(|| format!("run `apt-get update`, is {} there?", pins::DEBIAN_PROMETHEUS))?;
    let package = fs::read_dir(place.path())
        .and_then(|mut entries| entries.next().transpose())
        .ok()
        .flatten()
        .context("apt-get has downloaded nothing")?;
    let root = place.path().join("root");
    capture(Command::new("dpkg").arg("-x").arg(package.path()).arg(&root))?;
    if !answers(&root.join("usr/bin")) {
        bail!("the {} just unpacked does not run", pins::DEBIAN_PROMETHEUS);
    }
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot replace {}", home.display()))?;
    }
    fs::rename(&root, &home).with_context(|| format!("cannot make {}", home.display()))?;
    Ok(bin)
}

fn answers(bin: &std::path::Path) -> bool {
    ["prometheus", "promtool"]
        .iter()
        .all(|name| capture(Command::new(bin.join(name)).arg("--version")).is_ok())
}
