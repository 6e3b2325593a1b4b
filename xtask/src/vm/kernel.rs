//! The guest's kernel: a Debian package, unpacked into the cache and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::exec::capture;
use crate::setup::apt;
use crate::setup::unpack::{self, Needs};
use crate::{cache, pins};

/// A kernel in the cache.
pub struct Kernel {
    /// As `uname -r` will have it.
    pub release: String,
    /// What QEMU boots.
    pub image: PathBuf,
    /// Its `lib/modules/RELEASE`.
    pub modules: PathBuf,
}

impl Kernel {
    /// The newest of this line that the package lists have, or else the newest that the cache has.
    pub fn get(line: &str) -> Result<Self> {
        let Some((_, metas)) = pins::DEBIAN_KERNELS.iter().find(|(known, _)| *known == line) else {
            let known: Vec<_> = pins::DEBIAN_KERNELS.iter().map(|(line, _)| *line).collect();
            bail!("no kernel {line}: there are {}", known.join(" and "));
        };
        let dir = cache::dir()?.join("kernels");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let Some(package) = newest(line, metas) else {
            return cached(&dir, line)?.with_context(|| {
                format!("this host's packages have no kernel {line}, and the cache has none")
            });
        };
        let home = dir.join(&package);
        unpack::ensure(&[&package], Needs::Nothing, &home, |home| Self::at(home).is_ok())?;
        Self::at(&home)
    }

    fn at(home: &Path) -> Result<Self> {
        let boot = home.join("boot");
        let entries = fs::read_dir(&boot).with_context(|| boot.display().to_string())?;
        let release = entries.flatten().find_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned)
        });
        let release = release.with_context(|| format!("no kernel in {}", boot.display()))?;
        let image = boot.join(format!("vmlinuz-{release}"));
        // Where /lib is a link to /usr/lib, packages have them there.
        let modules = ["lib", "usr/lib"].map(|lib| home.join(lib).join("modules").join(&release));
        let modules = modules.into_iter().find(|dir| dir.is_dir());
        Ok(Self { image, modules: modules.context("a kernel package without modules")?, release })
    }
}

/// The package of the newest kernel of a line: what the first of `metas` that knows one depends on.
fn newest(line: &str, metas: &[&str]) -> Option<String> {
    if metas.iter().all(|meta| depends(line, meta).is_none()) {
        apt::update();
    }
    metas.iter().find_map(|meta| depends(line, meta))
}

fn depends(line: &str, meta: &str) -> Option<String> {
    let mut cmd = Command::new("apt-cache");
    parse_depends(&capture(cmd.args(["depends", meta]).env("LC_ALL", "C")).ok()?, line)
}

/// The kernel package of the line in the answer of `apt-cache depends`.
fn parse_depends(answer: &str, line: &str) -> Option<String> {
    let prefix = format!("linux-image-{line}.");
    let mut names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.find(|name| name.starts_with(&prefix)).map(str::to_owned)
}

/// The newest kernel of the line that is in the cache; by the time at which it came there.
fn cached(dir: &Path, line: &str) -> Result<Option<Kernel>> {
    let prefix = format!("linux-image-{line}.");
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?.flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let newest = ours.max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
    newest.map(|entry| Kernel::at(&entry.path())).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_meta_package_is_checked() {
        let answer = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        let found = Some("linux-image-6.1.0-56-cloud-amd64".to_owned());
        assert_eq!(parse_depends(answer, "6.1"), found);
        assert_eq!(parse_depends(answer, "6.12"), None);
        assert_eq!(parse_depends("linux-image-cloud-amd64\n", "6.1"), None);
    }
}
