//! A Debian suite that the machine itself does not use. apt's lists of it are in the cache, and the machine's own lists
//! and sources stay as they are.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt;
use crate::cache;
use crate::exec::{capture, logged, say};

/// The keys with which Debian signs its suites; on every Debian.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite, at the mirror that the machine's own packages come from.
#[derive(Clone, Debug)]
pub struct Suite {
    name: &'static str,
    home: PathBuf,
}

impl Suite {
    /// Opens the suite of this name, with the package lists of the last update.
    pub fn open(name: &'static str) -> Result<Self> {
        let home = cache::dir()?.join(format!("apt-{name}"));
        fs::create_dir_all(home.join("lists/partial"))
            .with_context(|| format!("cannot create {}", home.display()))?;
        Ok(Self { name, home })
    }

    /// Updates the package lists. A failure is only reported, because the old lists may be good enough.
    pub fn update(&self) {
        if let Err(error) = self.ask() {
            say("Setup", format_args!("{error}"));
        }
    }

    fn ask(&self) -> Result<()> {
        let mirror =
            mirror().context("this host's apt has no mirror of Debian: `apt-get update`?")?;
        let source = format!("deb [signed-by={KEYS}] {mirror} {} main\n", self.name);
        fs::write(self.home.join("sources.list"), source)
            .with_context(|| format!("cannot write to {}", self.home.display()))?;
        let what = format!("package lists of {} (apt-get)", self.name);
        let mut cmd = apt::apt_get(&["update"]);
        logged(&what, cmd.args(self.options()), &cache::log("apt-update")?)
    }

    /// The names of its packages, one a line; empty if it was never updated.
    pub fn names(&self) -> String {
        let mut cmd = Command::new("apt-cache");
        capture(cmd.args(self.options()).arg("pkgnames")).unwrap_or_default()
    }

    /// Options by which apt uses only this suite.
    pub fn options(&self) -> Vec<String> {
        let home = self.home.display();
        let settings = [
            format!("Dir::Etc::sourcelist={home}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={home}/lists"),
            format!("Dir::Cache={home}"),
            // apt's own user cannot read the cache, of which apt would warn.
            "APT::Sandbox::User=root".to_owned(),
        ];
        settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect()
    }
}

/// The mirror of the machine's own packages, according to apt.
fn mirror() -> Option<String> {
    let mut cmd = Command::new("apt-get");
    cmd.args(["indextargets", "--format", "$(REPO_URI)"]);
    cmd.args(["Origin: Debian", "Label: Debian", "Component: main", "Created-By: Packages"]);
    capture(&mut cmd).ok()?.lines().next().map(str::to_owned)
}
