//! Debian packages that are unpacked into the cache and never installed: no service starts, and nothing that
//! the machine has is in their way.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::UNFINISHED;
use super::suite::Suite;
use crate::cache;
use crate::exec::{capture, logged};

/// What comes with a package.
#[derive(Clone, Copy, Debug)]
pub enum Needs<'a> {
    /// Nothing.
    Nothing,
    /// Nothing, and the packages are of that suite.
    NothingOf(&'a Suite),
    /// What it depends on and the machine has not installed.
    Dependencies,
}

/// Sees to it that `home` holds what the packages hold and `works`; unpacks them if it does not yet.
pub fn ensure(
    packages: &[&str],
    needs: Needs<'_>,
    home: &Path,
    works: impl Fn(&Path) -> bool,
) -> Result<()> {
    if works(home) {
        return Ok(());
    }
    let _lock = cache::lock()?;
    // Another set-up may have unpacked it while we waited.
    if works(home) {
        return Ok(());
    }
    unpack(packages, needs, home, works)
}

/// As [`ensure`], for who holds the lock and has looked already.
pub fn unpack(
    packages: &[&str],
    needs: Needs<'_>,
    home: &Path,
    works: impl Fn(&Path) -> bool,
) -> Result<()> {
    let names = packages.join(", ");
    let folder = home.parent().context("a package is unpacked into a folder")?;
    // Beside its final place, and renamed when it is whole.
    let place =
        tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(folder).with_context(|| {
            format!("cannot write to {}; MEMSTOCK_CACHE moves it", folder.display())
        })?;
    let mut cmd = download(packages, needs, place.path())?;
    logged(&format!("{names} (apt-get)"), &mut cmd, &cache::log("apt-download")?)
        .with_context(|| format!("run `apt-get update`; are there {names}?"))?;
    let root = place.path().join("root");
    fs::create_dir(&root)?;
    let files = fs::read_dir(place.path())?.flatten().map(|entry| entry.path());
    for archive in files.filter(|path| path.extension().is_some_and(|kind| kind == "deb")) {
        capture(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&root))?;
    }
    if !works(&root) {
        bail!("what was just unpacked does not work: {names}");
    }
    if home.exists() {
        fs::remove_dir_all(home).with_context(|| format!("cannot replace {}", home.display()))?;
    }
    fs::rename(&root, home).with_context(|| format!("cannot make {}", home.display()))
}

/// What leaves the archives in `place`.
fn download(packages: &[&str], needs: Needs<'_>, place: &Path) -> Result<Command> {
    let mut cmd = Command::new("apt-get");
    // Root's cache is closed to apt's own user, which it would warn of.
    cmd.args(["-o", "APT::Sandbox::User=root"]);
    match needs {
        Needs::Nothing => cmd.arg("download").args(packages),
        Needs::NothingOf(suite) => cmd.args(suite.options()).arg("download").args(packages),
        Needs::Dependencies => {
            fs::create_dir(place.join("partial"))?;
            let archives = place.to_str().context("the cache's path is not UTF-8")?;
            cmd.args(["-o", &format!("Dir::Cache::archives={archives}")]);
            // Nothing of the machine's is changed, whatever apt would remove to install it.
            cmd.args(["-o", "Debug::NoLocking=1", "-y", "--no-install-recommends"]);
            cmd.args(["--download-only", "install"]).args(packages)
        }
    };
    cmd.current_dir(place);
    Ok(cmd)
}
