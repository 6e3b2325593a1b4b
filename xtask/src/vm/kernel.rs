//! The guest's kernel: Debian's package or, for newer kernels, packages, unpacked into the cache and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Preempt;
use crate::exec::capture;
use crate::setup::apt;
use crate::setup::suite::Suite;
use crate::setup::unpack::{self, Needs};
use crate::{cache, pins};

/// The end of the name of a kernel package.
const FLAVOUR: &str = "-cloud-amd64";

/// A kernel in the cache.
pub struct Kernel {
    /// What `uname -r` prints.
    pub release: String,
    /// The image that QEMU boots.
    pub image: PathBuf,
    /// Its `lib/modules/RELEASE`.
    pub modules: PathBuf,
    /// Its configuration file.
    config: String,
}

impl Kernel {
    /// The newest kernel of this line in the package lists, or else in the cache.
    pub fn get(line: &str) -> Result<Self> {
        let dir = cache::dir()?.join("kernels");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let (suite, newer) = pins::DEBIAN_BACKPORTS;
        if let Some((_, metas)) = pins::DEBIAN_KERNELS.iter().find(|(known, _)| *known == line) {
            let Some(package) = newest(line, metas) else {
                return cached(&dir, line)?.with_context(|| {
                    format!("this host's packages have no kernel {line}, and the cache has none")
                });
            };
            let home = dir.join(&package);
            unpack::ensure(&[&package], Needs::Nothing, &home, |home| Self::at(home).is_ok())?;
            return Self::at(&home);
        }
        if !newer.contains(&line) {
            let own = pins::DEBIAN_KERNELS.iter().map(|(line, _)| line);
            let known: Vec<_> = own.chain(newer).copied().collect();
            bail!("no kernel {line}: there are {}", known.join(", "));
        }
        match Self::of_suite(&dir, line, &Suite::open(suite)?) {
            Ok(Some(kernel)) => Ok(kernel),
            // Only the first line of the error, which can stand alone.
            other => cached(&dir, line)?.with_context(|| match other {
                Err(error) => format!("no kernel {line}: {error}"),
                Ok(_) => {
                    format!(
                        "{suite} has no kernel {line} or no mirror answers, and the cache has none"
                    )
                }
            }),
        }
    }

    /// The newest kernel of this line in the suite.
    fn of_suite(dir: &Path, line: &str, suite: &Suite) -> Result<Option<Self>> {
        let home = |release: &str| dir.join(format!("linux-image-{release}"));
        let mut names = suite.names();
        let known = newest_release(&names, line);
        if !known.is_some_and(|release| home(release).exists()) {
            // The lists may be old and name a kernel that the mirror no longer has.
            suite.update();
            names = suite.names();
        }
        let Some(release) = newest_release(&names, line) else { return Ok(None) };
        let (packages, home) = (packages(&names, release), home(release));
        let packages: Vec<_> = packages.iter().map(String::as_str).collect();
        unpack::ensure(&packages, Needs::NothingOf(suite), &home, |home| Self::at(home).is_ok())?;
        Self::at(&home).map(Some)
    }

    fn at(home: &Path) -> Result<Self> {
        // In releases where /lib is a link to /usr/lib, packages have the modules there.
        let dirs = ["lib/modules", "usr/lib/modules"].map(|dir| home.join(dir));
        let modules = dirs.iter().flat_map(fs::read_dir).flatten().flatten().next();
        let modules = modules.context("a kernel package without modules")?;
        let release = modules.file_name().into_string().ok().context("a release in UTF-8")?;
        let (modules, boot) = (modules.path(), home.join("boot"));
        let find = |name: &str| {
            let places = [boot.join(format!("{name}-{release}")), modules.join(name)];
            let found = places.into_iter().find(|file| file.is_file());
            found.with_context(|| format!("no {name} of {release} in {}", home.display()))
        };
        let (image, config) = (find("vmlinuz")?, find("config")?);
        let config = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
        Ok(Self { release, image, modules, config })
    }

    /// Its preemption mode: `wish`, or else the mode that it was built with.
    ///
    /// # Errors
    /// If the kernel does not know that mode.
    pub fn preempt(&self, wish: Option<Preempt>) -> Result<Preempt> {
        let (known, own) = parse_preempt(&self.config);
        let preempt =
            wish.or(own).context("the kernel's configuration names no preemption mode")?;
        if !known.contains(&preempt) {
            let known: Vec<_> = known.iter().map(|preempt| preempt.name()).collect();
            bail!(
                "there is no Linux {} with preempt={}: it knows {}",
                self.release,
                preempt.name(),
                known.join(", ")
            );
        }
        Ok(preempt)
    }
}

/// The preemption modes that a configuration offers, and the one that it chooses. A configuration does not mention a
/// mode that its kernel does not have (`none` and `voluntary` since Linux 7.0, `lazy` before 6.13).
fn parse_preempt(config: &str) -> (Vec<Preempt>, Option<Preempt>) {
    let says = |preempt: &Preempt, what: fn(&str) -> String| {
        let line = what(preempt.option());
        config.lines().any(|known| known == line)
    };
    let chosen = |preempt: &Preempt| says(preempt, |option| format!("{option}=y"));
    let offered = |preempt: &Preempt| {
        chosen(preempt) || says(preempt, |option| format!("# {option} is not set"))
    };
    let all = [Preempt::None, Preempt::Voluntary, Preempt::Lazy, Preempt::Full];
    (all.into_iter().filter(offered).collect(), all.into_iter().find(chosen))
}

/// The package of the newest kernel of a line: a dependency of the first of `metas` that has one.
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

/// The kernel package of the line in the output of `apt-cache depends`.
fn parse_depends(answer: &str, line: &str) -> Option<String> {
    let prefix = format!("linux-image-{line}.");
    let mut names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.find(|name| name.starts_with(&prefix)).map(str::to_owned)
}

/// The newest release of the line in a list of package names.
fn newest_release<'a>(names: &'a str, line: &str) -> Option<&'a str> {
    let number = |name: &'a str| {
        let release = name.strip_prefix("linux-image-")?;
        let rest = release.strip_suffix(FLAVOUR)?.strip_prefix(line)?.strip_prefix('.')?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((digits.parse::<u32>().ok()?, release))
    };
    names.lines().filter_map(number).max().map(|(_, release)| release)
}

/// The packages of a kernel: a single one, or since 6.19 one with the image, and possibly one with the modules and one
/// with the configuration.
fn packages(names: &str, release: &str) -> Vec<String> {
    let parts = ["binary", "modules", "base"].map(|part| format!("linux-{part}-{release}"));
    let known = |package: &String| names.lines().any(|name| name == package);
    let parts: Vec<_> = parts.into_iter().filter(known).collect();
    if parts.is_empty() { vec![format!("linux-image-{release}")] } else { parts }
}

/// The kernel of the line that was put into the cache last.
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

    #[test]
    fn a_kernel_is_in_one_package_or_in_three() {
        let names = "linux-image-7.3.4+deb13-cloud-amd64\nlinux-image-7.3.10+deb13-cloud-amd64\n\
                     linux-image-7.3.11+deb13-cloud-amd64-dbg\nlinux-image-7.31.1+deb13-cloud-amd64\n\
                     linux-modules-7.3.10+deb13-cloud-amd64\nlinux-binary-7.3.10+deb13-cloud-amd64\n\
                     linux-binary-unsigned-7.3.10+deb13-cloud-amd64\n\
                     linux-image-6.18.15+deb13-cloud-amd64\n";
        let release = newest_release(names, "7.3").unwrap();
        assert_eq!(release, "7.3.10+deb13-cloud-amd64");
        let parts = ["binary", "modules"].map(|part| format!("linux-{part}-{release}"));
        assert_eq!(packages(names, release), parts);
        let release = newest_release(names, "6.18").unwrap();
        assert_eq!(packages(names, release), [format!("linux-image-{release}")]);
        assert_eq!(newest_release(names, "7.2"), None);
    }

    #[test]
    fn a_configuration_says_what_it_could_have_chosen() {
        let old = "# CONFIG_PREEMPT_NONE is not set\nCONFIG_PREEMPT_VOLUNTARY=y\n# CONFIG_PREEMPT is not set\n";
        let known = vec![Preempt::None, Preempt::Voluntary, Preempt::Full];
        assert_eq!(parse_preempt(old), (known, Some(Preempt::Voluntary)));
        let new =
            "CONFIG_ARCH_HAS_PREEMPT_LAZY=y\n# CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_LAZY=y\n";
        assert_eq!(parse_preempt(new), (vec![Preempt::Lazy, Preempt::Full], Some(Preempt::Lazy)));
    }
}
