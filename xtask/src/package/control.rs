//! The package's metadata for Debian: control file, dependencies, scripts and checksums.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::contents::{CONFIG, read};
use super::stage::Stage;
use super::{LIBRARIES, NAME, VERSION};
use crate::arch::Arch;
use crate::exec::capture;
use crate::setup::unpack::{self, Needs};

/// The `Maintainer:` field. The project has no address of its own.
pub const MAINTAINER: &str = "memstock developers <memstock@localhost>";
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

const DESCRIPTION: &str = "\
memory-cgroup controller in eBPF
 Charges the pages of cgroups to hierarchical counters with limits, through
 per-CPU stocks of pre-charged pages, and shows who is charged for what, live.
 It runs beside the kernel's own memory controller and needs neither that nor
 a patched kernel.
 .
 Limits can be tried before they are set: with --observe nobody is stopped or
 killed, and each limit that is hit reports what would have been done.";

/// The control file's fields that differ between packages.
pub struct Control {
    version: String,
    architecture: &'static str,
    depends: String,
}

impl Control {
    /// Finds what the binary depends on.
    pub fn new(binary: &Path, revision: u32, arch: Arch) -> Result<Self> {
        Ok(Self {
            version: format!("{VERSION}-{revision}"),
            architecture: arch.debian(),
            depends: depends(binary, arch)?,
        })
    }

    /// Version and Debian revision.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The name of the package's file, as Debian spells it.
    pub fn file_name(&self) -> String {
        format!("{NAME}_{}_{}.deb", self.version, self.architecture)
    }

    /// Puts the metadata into a tree that has all other files.
    pub fn put(&self, stage: &Stage) -> Result<()> {
        let files = stage.files()?;
        let mut bytes = 0;
        for path in &files {
            let file = stage.at(path);
            bytes += fs::metadata(&file).with_context(|| file.display().to_string())?.len();
        }
        let Self { version, architecture, depends } = self;
        let text = format!(
            "Package: {NAME}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: \
             {MAINTAINER}\nInstalled-Size: {}\nDepends: {depends}\nSection: admin\nPriority: \
             optional\nDescription: {DESCRIPTION}\n",
            bytes.div_ceil(1024)
        );
        stage.data("DEBIAN/control", text)?;
        let config = format!("etc/{CONFIG}");
        if files.contains(&config) {
            stage.data("DEBIAN/conffiles", format!("/{config}\n"))?;
        }
        let mut md5sum = Command::new("md5sum");
        // Administrators may change the configuration, so it has no checksum.
        md5sum.args(files.iter().filter(|path| **path != config)).current_dir(stage.root());
        stage.data("DEBIAN/md5sums", capture(&mut md5sum)?)?;
        for script in SCRIPTS {
            stage
                .program(&format!("DEBIAN/{script}"), read(&format!("contrib/debian/{script}"))?)?;
        }
        Ok(())
    }
}

/// The packages that have the libraries of the binary, in the versions whose symbols it uses.
fn depends(binary: &Path, arch: Arch) -> Result<String> {
    // dpkg-shlibdeps has to run in the source tree of a package.
    let source = tempfile::tempdir().context("cannot make a temporary folder")?;
    let debian = source.path().join("debian");
    let text = format!("Source: {NAME}\n\nPackage: {NAME}\nArchitecture: any\n");
    fs::create_dir(&debian)
        .and_then(|()| fs::write(debian.join("control"), text))
        .context("cannot write to a temporary folder")?;
    let binary = fs::canonicalize(binary)
        .with_context(|| format!("cannot find the binary {}", binary.display()))?;
    let mut cmd = Command::new("dpkg-shlibdeps");
    if arch != Arch::HOST {
        cmd.env("DEB_HOST_ARCH", arch.debian());
        for library in LIBRARIES {
            let name = format!("{library}-{}", arch.debian());
            let is_whole = |home: &Path| home.join("DEBIAN/shlibs").exists();
            let home = unpack::foreign(
                &[library],
                |suite| Needs::NothingOf(suite),
                arch,
                &name,
                is_whole,
            )?;
            cmd.arg(format!("-S{}", home.display()));
        }
    }
    let said = capture(cmd.arg("-O").arg(binary).current_dir(source.path()))?;
    parse_depends(&said).with_context(|| format!("dpkg-shlibdeps said {said:?}"))
}

fn parse_depends(said: &str) -> Option<String> {
    let depends = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="))?;
    (!depends.is_empty()).then(|| depends.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        let said = "shlibs:Depends=libc6 (>= 2.34), libgcc-s1 (>= 4.2)\n";
        assert_eq!(parse_depends(said).as_deref(), Some("libc6 (>= 2.34), libgcc-s1 (>= 4.2)"));
        assert_eq!(parse_depends("shlibs:Depends=\n"), None);
        assert_eq!(parse_depends(""), None);
    }
}
