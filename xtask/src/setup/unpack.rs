//! Unpacks Debian packages into the cache without installing them, so no service starts, and nothing conflicts with the
//! packages of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::UNFINISHED;
use super::suite::Suite;
use crate::arch::Arch;
use crate::cache;
use crate::exec::{capture, logged};

/// What to download with a package, and from where.
#[derive(Clone, Copy, Debug)]
pub enum Needs<'a> {
    /// Only the package.
    Nothing,
    /// Only the package, from that suite.
    NothingOf(&'a Suite),
    /// Also the dependencies that are not installed on the machine.
    Dependencies,
    /// Its dependencies, with packages of that suite.
    DependenciesOf(&'a Suite),
}

/// Unpacks the packages into `home`, unless it already `works`.
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

/// Makes sure that the cache has these packages of another architecture under `name`; returns their folder.
pub fn foreign(
    packages: &[&str],
    needs: fn(&Suite) -> Needs<'_>,
    arch: Arch,
    name: &str,
    works: impl Fn(&Path) -> bool,
) -> Result<PathBuf> {
    let home = cache::dir()?.join(name);
    let suite = Suite::own(arch)?;
    if !works(&home) {
        suite.update();
    }
    ensure(packages, needs(&suite), &home, works)?;
    Ok(home)
}

/// Like [`ensure`], for a caller that holds the lock and has checked `works`.
pub fn unpack(
    packages: &[&str],
    needs: Needs<'_>,
    home: &Path,
    works: impl Fn(&Path) -> bool,
) -> Result<()> {
    let names = packages.join(", ");
    let folder = home.parent().context("a package is unpacked into a folder")?;
    // Unpack beside the final place, and rename when complete.
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
        capture(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&root))?;
        // Control files of a library; with several packages, those of the last one.
        capture(Command::new("dpkg-deb").arg("-e").arg(&archive).arg(root.join("DEBIAN")))?;
    }
    if !works(&root) {
        bail!("what was just unpacked does not work: {names}");
    }
    if home.exists() {
        fs::remove_dir_all(home).with_context(|| format!("cannot replace {}", home.display()))?;
    }
    fs::rename(&root, home).with_context(|| format!("cannot make {}", home.display()))
}

/// The command that downloads the archives into `place`.
fn download(packages: &[&str], needs: Needs<'_>, place: &Path) -> Result<Command> {
    let mut cmd = Command::new("apt-get");
    // apt's own user cannot read root's cache, of which apt would warn.
    cmd.args(["-o", "APT::Sandbox::User=root"]);
    if let Needs::NothingOf(suite) | Needs::DependenciesOf(suite) = needs {
        cmd.args(suite.options());
    }
    match needs {
        Needs::Nothing | Needs::NothingOf(_) => cmd.arg("download").args(packages),
        Needs::Dependencies | Needs::DependenciesOf(_) => {
            fs::create_dir(place.join("partial"))?;
            let archives = place.to_str().context("the cache's path is not UTF-8")?;
            cmd.args(["-o", &format!("Dir::Cache::archives={archives}")]);
            // Only download: the machine does not change, even if apt would remove packages to install these.
            cmd.args(["-o", "Debug::NoLocking=1", "-y", "--no-install-recommends"]);
            cmd.args(["--download-only", "install"]).args(packages)
        }
    };
    cmd.current_dir(place);
    Ok(cmd)
}
