//! A minimal Debian root, as an archive in the cache, in which tests install the package.
//!
//! It has the host's release, from the server and through the proxy that the host's apt uses, so no server is named
//! here. It is made beside its final place and renamed, so that an interrupted one is never taken for complete.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::exec::{capture, logged};
use crate::{cache, pins};

/// Prints the path of the archive. With `systemd` the root can be booted.
pub fn run(systemd: bool) -> Result<()> {
    println!("{}", ensure(systemd)?.display());
    Ok(())
}

/// The path of the archive, which is made if it is missing.
///
/// # Errors
/// If it is missing and cannot be made.
pub fn ensure(systemd: bool) -> Result<PathBuf> {
    let release = release()?;
    let architecture = capture(Command::new("dpkg").arg("--print-architecture"))?;
    let (more, packages) =
        if systemd { ("-systemd", pins::DEBIAN_SYSTEMD) } else { ("", [].as_slice()) };
    let archive = format!("debian-{release}-{}{more}.tar", architecture.trim());
    let archive = cache::dir()?.join(archive);
    if archive.exists() {
        return Ok(archive);
    }
    let _lock = cache::lock()?;
    if !archive.exists() {
        make(&release, packages, &archive)?;
    }
    Ok(archive)
}

fn make(release: &str, packages: &[&str], archive: &PathBuf) -> Result<()> {
    if !rustix::process::geteuid().is_root() || which::which("debootstrap").is_err() {
        bail!("making a Debian root needs root and debootstrap: `apt-get install debootstrap`");
    }
    let server = server(release)?;
    let place = tempfile::Builder::new().prefix("unfinished-").tempdir_in(cache::dir()?);
    let place = place.context("cannot write to the cache; MEMSTOCK_CACHE moves it")?;
    let root = place.path().join("root");
    // debootstrap mounts file systems and may be killed; its mount namespace takes them away with it.
    let mut cmd = Command::new("unshare");
    cmd.args(["--mount", "debootstrap", "--variant=minbase"]);
    if !packages.is_empty() {
        cmd.arg(format!("--include={}", packages.join(",")));
    }
    cmd.arg(release).arg(&root).arg(server);
    if let Some(proxy) = apt_setting("Acquire::http::Proxy")? {
        cmd.env("http_proxy", proxy);
    }
    logged(&format!("Debian {release} (debootstrap)"), &mut cmd, &cache::log("debootstrap")?)?;
    let unfinished = place.path().join("tar");
    let mut tar = Command::new("tar");
    // Leave out what was downloaded: it is installed.
    tar.args(["--exclude=./var/cache/apt/*.bin", "--exclude=./var/cache/apt/archives/*.deb"]);
    tar.args(["--exclude=./var/lib/apt/lists/*", "--exclude=./dev/*"]);
    tar.args(["--one-file-system", "--numeric-owner", "--create", "--file"]).arg(&unfinished);
    capture(tar.arg("--directory").arg(&root).arg("."))?;
    fs::rename(&unfinished, archive).with_context(|| format!("cannot make {}", archive.display()))
}

/// The code name of the host's Debian release.
fn release() -> Result<String> {
    const PATH: &str = "/etc/os-release";
    let text = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.with_context(|| format!("{PATH} names no release: is this Debian?"))?;
    Ok(name.trim_matches('"').to_owned())
}

/// The server from which the host's apt gets this release.
fn server(release: &str) -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)"]);
    let said = capture(apt.arg("Created-By: Packages"))?;
    parse_server(&said, release)
        .with_context(|| format!("apt has no source of {release}: look at /etc/apt/sources.list.d"))
}

fn parse_server(said: &str, release: &str) -> Option<String> {
    let wanted = format!("{release} main ");
    said.lines().find_map(|line| line.strip_prefix(&wanted)).map(str::to_owned)
}

fn apt_setting(name: &str) -> Result<Option<String>> {
    let said = capture(Command::new("apt-config").args(["dump", "--format", "%v%n", name]))?;
    Ok(said.lines().next().filter(|value| !value.is_empty()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_that_of_the_release() {
        let said = "old main file:/old\nnew-updates main file:/updates\nnew contrib file:/other\n\
                    new main file:/new\n";
        assert_eq!(parse_server(said, "new").as_deref(), Some("file:/new"));
        assert_eq!(parse_server(said, "newer"), None);
    }
}
