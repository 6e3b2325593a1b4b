//! `cargo xtask package`: a Debian package of the release binary, by Debian's own tools from a staged tree.
//!
//! What is in it is in `contents`, what is said of it in `control`, and the tree itself in `stage`.

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
use crate::exec::{capture, cargo, say, stream, target_dir};
use crate::setup::{self, apt};
use crate::{exec, pins};

/// The name of the package.
const NAME: &str = "memstock";
/// Upstream's version: that of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What lintian asks only of packages that are uploaded to Debian, by a maintainer with an address, for a bug
/// that asks for them.
const NOT_OURS: &str =
    "bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs";

/// The verb: packages `binary`, or one that it builds, and prints where the package is.
pub fn run(binary: Option<&Path>, output: Option<&Path>, revision: u32) -> Result<()> {
    println!("{}", package(binary, output, revision)?.display());
    Ok(())
}

fn package(binary: Option<&Path>, output: Option<&Path>, revision: u32) -> Result<PathBuf> {
    tools()?;
    let binary = match binary {
        Some(binary) => binary.to_owned(),
        None => build()?,
    };
    let output = output.map_or_else(|| target_dir().join("debian"), Path::to_owned);
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;

    let stage = Stage::new()?;
    let epoch = last_commit();
    let control = Control::new(&binary, revision)?;
    contents::put(&stage, &binary, &control, epoch.as_deref())?;
    control.put(&stage)?;
    let package = output.join(control.file_name());
    let mut cmd = Command::new("dpkg-deb");
    cmd.args(["--root-owner-group", "--build"]).arg(stage.root()).arg(&package);
    if let Some(epoch) = epoch {
        // Times of files are not newer than the source: the same source gives the same package.
        cmd.env("SOURCE_DATE_EPOCH", epoch);
    }
    capture(&mut cmd)?;
    check(&package)?;
    Ok(package)
}

fn build() -> Result<PathBuf> {
    let bpf = setup::ensure()?;
    stream(bpf.apply(&mut cargo(&["build", "--release", "--package", NAME]))?)?;
    Ok(target_dir().join("release").join(NAME))
}

/// Makes sure of Debian's tools.
fn tools() -> Result<()> {
    if apt::usable() {
        apt::install("what builds a Debian package", pins::DEBIAN_PACKAGE)?;
    }
    for tool in ["dpkg-deb", "dpkg-shlibdeps", "strip", "gzip"] {
        if which::which(tool).is_err() {
            let packages = pins::DEBIAN_PACKAGE.join(" ");
            bail!("no {tool}, which a Debian package is built with: `apt-get install {packages}`");
        }
    }
    Ok(())
}

/// Seconds since the epoch of the last commit; none in a tree without its history.
fn last_commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(exec::root());
    Some(capture(&mut git).ok()?.trim().to_owned())
}

/// Debian's own check of a package, where it is installed.
fn check(package: &Path) -> Result<()> {
    if which::which("lintian").is_err() {
        say("Package", "lintian is not installed: the package is not checked");
        return Ok(());
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root"]);
    lintian.args(["--suppress-tags", NOT_OURS]).arg(package);
    // Standard output is for the path.
    let output = lintian.output().context("cannot start lintian")?;
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        bail!("lintian does not accept {}, as shown above", package.display());
    }
    Ok(())
}
