//! The guest's kernel: Debian's package or, for newer kernels, packages, unpacked into the cache and never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Preempt;
use crate::arch::Arch;
use crate::setup::suite::Suite;
use crate::setup::unpack::{self, Needs};
use crate::{cache, pins};

/// Kernels among which the newest is chosen.
struct Line<'a> {
    /// Major and minor version.
    name: &'a str,
    /// What follows the version in the name of a release.
    flavour: String,
}

impl Line<'_> {
    /// The newest release of this line in a list of package names.
    fn newest<'a>(&self, names: &'a str) -> Option<&'a str> {
        names.lines().filter_map(|name| self.number(name)).max().map(|(_, release)| release)
    }

    /// The patch level in a package's name, and the release.
    fn number<'a>(&self, package: &'a str) -> Option<(Vec<u32>, &'a str)> {
        let release = package.strip_prefix("linux-image-")?;
        let rest = release.strip_suffix(&self.flavour)?.strip_prefix(self.name)?;
        let version = rest.strip_prefix('.')?.split('+').next()?;
        let numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.collect::<Result<_, _>>().ok()?, release))
    }
}

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
    pub fn get(line: &str, arch: Arch) -> Result<Self> {
        let dir = cache::dir()?.join("kernels");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let (backports, newer) = pins::DEBIAN_BACKPORTS;
        let suite = if pins::DEBIAN_KERNELS.contains(&line) {
            Suite::own(arch)?
        } else if newer.contains(&line) {
            Suite::open(backports, arch)?
        } else {
            let known: Vec<_> = pins::DEBIAN_KERNELS.iter().chain(newer).copied().collect();
            bail!("no kernel {line}: there are {}", known.join(", "));
        };
        let line = &Line { name: line, flavour: format!("-cloud-{}", arch.debian()) };
        match Self::of_suite(&dir, line, &suite) {
            Ok(Some(kernel)) => Ok(kernel),
            // Only the first line of the error, which can stand alone.
            other => cached(&dir, line)?.with_context(|| match other {
                Err(error) => format!("no kernel {}: {error}", line.name),
                Ok(_) => format!(
                    "Debian has no kernel {} or cannot be asked, and the cache has none",
                    line.name
                ),
            }),
        }
    }

    /// The newest kernel of this line in the suite.
    fn of_suite(dir: &Path, line: &Line<'_>, suite: &Suite) -> Result<Option<Self>> {
        let home = |release: &str| dir.join(format!("linux-image-{release}"));
        let mut names = suite.names();
        let known = line.newest(&names);
        if !known.is_some_and(|release| home(release).exists()) {
            // The lists may be old and name a kernel that the mirror no longer has.
            suite.update();
            names = suite.names();
        }
        let Some(release) = line.newest(&names) else { return Ok(None) };
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
    let is_dynamic = config.lines().any(|line| line == "CONFIG_PREEMPT_DYNAMIC=y");
    let offered = |preempt: &Preempt| {
        chosen(preempt) || is_dynamic && says(preempt, |option| format!("# {option} is not set"))
    };
    let all = [Preempt::None, Preempt::Voluntary, Preempt::Lazy, Preempt::Full];
    (all.into_iter().filter(offered).collect(), all.into_iter().find(chosen))
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
fn cached(dir: &Path, line: &Line<'_>) -> Result<Option<Kernel>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?.flatten();
    let ours = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| line.number(name).is_some()));
    let newest = ours.max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
    newest.map(|entry| Kernel::at(&entry.path())).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> Line<'_> {
        Line { name, flavour: "-cloud-amd64".to_owned() }
    }

    #[test]
    fn the_newest_of_a_line_is_that_with_the_highest_numbers() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
                     linux-image-6.1.0-57-cloud-arm64\nlinux-image-6.1-cloud-amd64\n\
                     linux-image-6.12.117+deb12-cloud-amd64\nlinux-image-6.12.9+deb12-cloud-amd64\n\
                     linux-image-6.1.0-60-cloud-amd64-unsigned\n";
        assert_eq!(line("6.1").newest(names), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(line("6.12").newest(names), Some("6.12.117+deb12-cloud-amd64"));
    }

    #[test]
    fn a_kernel_is_in_one_package_or_in_three() {
        let names = "linux-image-7.3.4+deb13-cloud-amd64\nlinux-image-7.3.10+deb13-cloud-amd64\n\
                     linux-image-7.3.11+deb13-cloud-amd64-dbg\nlinux-image-7.31.1+deb13-cloud-amd64\n\
                     linux-modules-7.3.10+deb13-cloud-amd64\nlinux-binary-7.3.10+deb13-cloud-amd64\n\
                     linux-binary-unsigned-7.3.10+deb13-cloud-amd64\n\
                     linux-image-6.18.15+deb13-cloud-amd64\n";
        let release = line("7.3").newest(names).unwrap();
        assert_eq!(release, "7.3.10+deb13-cloud-amd64");
        let parts = ["binary", "modules"].map(|part| format!("linux-{part}-{release}"));
        assert_eq!(packages(names, release), parts);
        let release = line("6.18").newest(names).unwrap();
        assert_eq!(packages(names, release), [format!("linux-image-{release}")]);
        assert_eq!(line("7.2").newest(names), None);
    }

    #[test]
    fn a_configuration_says_what_it_could_have_chosen() {
        let old = "CONFIG_PREEMPT_DYNAMIC=y\n# CONFIG_PREEMPT_NONE is not set\nCONFIG_PREEMPT_VOLUNTARY=y\n# CONFIG_PREEMPT is not set\n";
        let known = vec![Preempt::None, Preempt::Voluntary, Preempt::Full];
        assert_eq!(parse_preempt(old), (known, Some(Preempt::Voluntary)));
        let new = "CONFIG_PREEMPT_DYNAMIC=y\nCONFIG_ARCH_HAS_PREEMPT_LAZY=y\n# CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_LAZY=y\n";
        assert_eq!(parse_preempt(new), (vec![Preempt::Lazy, Preempt::Full], Some(Preempt::Lazy)));
        let fixed = old.replace("DYNAMIC=y", "DYNAMIC=n");
        assert_eq!(parse_preempt(&fixed), (vec![Preempt::Voluntary], Some(Preempt::Voluntary)));
    }
}
