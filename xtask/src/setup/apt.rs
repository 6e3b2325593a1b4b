//! Installs Debian packages, as root, if they are missing.
//!
//! Never removes a package: if one is in the way, the user has to decide.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cache;
use crate::exec::{capture, logged, say};

/// Whether we can install packages.
pub fn usable() -> bool {
    rustix::process::geteuid().is_root() && is_there()
}

/// Whether there is apt: every user may download and unpack packages.
pub fn is_there() -> bool {
    which::which("apt-get").is_ok()
}

/// Whether the package lists have `package` in the version `oldest` or newer.
pub fn offers(package: &str, oldest: (u64, u64)) -> bool {
    candidate(package).is_some_and(|have| have >= oldest)
}

/// Installs those of `packages` that are missing.
pub fn install(what: &str, packages: &[&str]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|name| !installed(name)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut fresh = false;
    for name in &missing {
        if !fresh && candidate(name).is_none() {
            update();
            fresh = true;
        }
    }
    let mut done = get(what, &missing);
    if done.is_err() && !fresh {
        // Outdated lists name packages that the server no longer has.
        update();
        done = get(what, &missing);
    }
    done.with_context(|| format!("run `apt-get install {}` and try again", missing.join(" ")))
}

fn get(what: &str, packages: &[&str]) -> Result<()> {
    let what = format!("{what}: {} (apt-get)", packages.join(", "));
    let mut cmd = apt_get(&["install", "-y", "--no-install-recommends", "--no-remove"]);
    logged(&what, cmd.args(packages), &cache::log("apt-install")?)
}

/// Updates the package lists. A failure is only reported, because the old lists may be good enough.
pub fn update() {
    let done = cache::log("apt-update")
        .and_then(|log| logged("package lists (apt-get)", &mut apt_get(&["update"]), &log));
    if let Err(error) = done {
        say("Setup", format_args!("{error}"));
    }
}

/// `apt-get` that asks no questions and waits for the lock of another one.
pub fn apt_get(args: &[&str]) -> Command {
    let mut cmd = Command::new("apt-get");
    cmd.args(["-o", "DPkg::Lock::Timeout=300"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
    cmd
}

fn installed(package: &str) -> bool {
    let mut cmd = Command::new("dpkg-query");
    capture(cmd.args(["-W", "-f", "${Status}", package]))
        .is_ok_and(|said| said == "install ok installed")
}

fn candidate(package: &str) -> Option<(u64, u64)> {
    let mut cmd = Command::new("apt-cache");
    parse_candidate(&capture(cmd.args(["policy", package]).env("LC_ALL", "C")).ok()?)
}

/// Major and minor version of the candidate in the output of `apt-cache policy`.
fn parse_candidate(policy: &str) -> Option<(u64, u64)> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    if version == "(none)" {
        return None;
    }
    let version = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read() {
        let policy = |version: &str| format!("it:\n  Installed: (none)\n  Candidate: {version}\n");
        assert_eq!(parse_candidate(&policy("1.96.0+dfsg1-1~deb12u2")), Some((1, 96)));
        assert_eq!(parse_candidate(&policy("1:22.1.8-1~deb12u1")), Some((22, 1)));
        assert_eq!(parse_candidate(&policy("(none)")), None);
        assert_eq!(parse_candidate(""), None);
    }
}
