//! `cargo xtask package`: makes a Debian package of the release binary from a staged tree, with Debian's own tools.
//!
//! `contents` has the package's files, `control` its metadata, `stage` the tree.

mod contents;
mod control;
pub mod image;
pub mod root;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use self::control::Control;
use self::stage::Stage;
use crate::arch::Arch;
use crate::exec::{capture, cargo, say, stream, target_dir};
use crate::setup::{self, BpfToolchain, apt};
use crate::{exec, pins};

/// The name of the package.
const NAME: &str = "memstock";
/// The upstream version, which is the workspace's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The packages with the libraries that the binary is linked with.
const LIBRARIES: [&str; 2] = ["libc6", "libgcc-s1"];

/// lintian's tags that only concern packages uploaded to Debian, by a maintainer with an address, to close a bug.
const NOT_OURS: &str =
    "bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs";

/// Packages `binary`, or one that it builds, and prints the package's path.
pub fn run(binary: Option<&Path>, output: Option<&Path>, revision: u32, arch: Arch) -> Result<()> {
    println!("{}", package(binary, output, revision, arch)?.display());
    Ok(())
}

/// Does the same, and returns the path.
pub fn package(
    binary: Option<&Path>,
    output: Option<&Path>,
    revision: u32,
    arch: Arch,
) -> Result<PathBuf> {
    tools()?;
    // A binary for this host can be packaged without a toolchain.
    let bpf =
        (binary.is_none() || arch != Arch::HOST).then(|| setup::ensure_for(arch)).transpose()?;
    let binary = match (binary, &bpf) {
        (None, Some(bpf)) => build(bpf)?,
        (binary, _) => binary.context("no binary")?.to_owned(),
    };
    let output = output.map_or_else(|| target_dir().join("debian"), Path::to_owned);
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;

    let stage = Stage::new()?;
    let epoch = last_commit();
    let control = Control::new(&binary, revision, arch)?;
    contents::put(&stage, &binary, bpf.as_ref(), &control, epoch.as_deref())?;
    control.put(&stage)?;
    let package = output.join(control.file_name());
    let mut cmd = Command::new("dpkg-deb");
    cmd.args(["--root-owner-group", "--build"]).arg(stage.root()).arg(&package);
    if let Some(epoch) = epoch {
        // No file is newer than the source, so that the same source gives the same package.
        cmd.env("SOURCE_DATE_EPOCH", epoch);
    }
    capture(&mut cmd)?;
    check(&package)?;
    Ok(package)
}

fn build(bpf: &BpfToolchain) -> Result<PathBuf> {
    stream(bpf.apply(&mut cargo(&["build", "--release", "--package", NAME]))?)?;
    Ok(bpf.arch().target_dir().join("release").join(NAME))
}

/// Installs Debian's tools if they are missing.
fn tools() -> Result<()> {
    if apt::usable() {
        apt::install("what builds a Debian package", pins::DEBIAN_PACKAGE)?;
    }
    for tool in ["dpkg-deb", "dpkg-shlibdeps", "strip", "gzip"] {
        if which::which(tool).is_err() {
            let packages = pins::DEBIAN_PACKAGE.join(" ");
            bail!("no {tool}, which building a Debian package needs: `apt-get install {packages}`");
        }
    }
    Ok(())
}

/// Time of the last commit, in seconds since the epoch; `None` in a tree without history.
fn last_commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(exec::root());
    Some(capture(&mut git).ok()?.trim().to_owned())
}

/// Runs lintian on the package, if it is installed.
fn check(package: &Path) -> Result<()> {
    if which::which("lintian").is_err() {
        say("Package", "lintian is not installed: the package is not checked");
        return Ok(());
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root"]);
    lintian.args(["--suppress-tags", NOT_OURS]).arg(package);
    // Standard output is reserved for the path.
    let output = lintian.output().context("cannot start lintian")?;
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        bail!("lintian does not accept {}, as shown above", package.display());
    }
    Ok(())
}
