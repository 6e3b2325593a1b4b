//! Packages that the machine itself does not use: of another Debian suite, or of another architecture. apt's lists of them
//! are in the cache, and the machine's own lists and sources stay as they are.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::apt;
use crate::arch::Arch;
use crate::cache;
use crate::exec::{capture, logged, say};

/// The keys with which Debian signs its suites; on every Debian.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite, at the mirror that the machine's own packages come from.
#[derive(Clone, Debug)]
pub struct Suite {
    /// `None` for the suites of the machine's own packages.
    name: Option<&'static str>,
    arch: Arch,
    home: PathBuf,
}

impl Suite {
    /// Opens the suite of this name, with the package lists of the last update.
    pub fn open(name: &'static str, arch: Arch) -> Result<Self> {
        Self::new(Some(name), arch)
    }

    /// Opens the suites of the machine's own packages; for its own architecture, with the machine's own lists.
    pub fn own(arch: Arch) -> Result<Self> {
        Self::new(None, arch)
    }

    fn new(name: Option<&'static str>, arch: Arch) -> Result<Self> {
        let name_of_arch = (arch != Arch::HOST).then_some(arch.debian());
        let parts = ["apt"].into_iter().chain(name).chain(name_of_arch).collect::<Vec<_>>();
        let home = cache::dir()?.join(parts.join("-"));
        let suite = Self { name, arch, home };
        if !suite.is_the_machines() {
            fs::create_dir_all(suite.home.join("lists/partial"))
                .with_context(|| format!("cannot create {}", suite.home.display()))?;
        }
        Ok(suite)
    }

    fn is_the_machines(&self) -> bool {
        self.name.is_none() && self.arch == Arch::HOST
    }

    /// Updates the package lists. A failure is only reported, because the old lists may be good enough.
    pub fn update(&self) {
        if self.is_the_machines() {
            if apt::usable() {
                apt::update();
            }
        } else if let Err(error) = self.ask() {
            say("Setup", format_args!("{error}"));
        }
    }

    fn ask(&self) -> Result<()> {
        let sources = self.sources()?;
        ensure!(!sources.is_empty(), "this host's apt has no mirror of Debian: `apt-get update`?");
        fs::write(self.home.join("sources.list"), sources)
            .with_context(|| format!("cannot write to {}", self.home.display()))?;
        let (name, arch) = (self.name.unwrap_or("this Debian"), self.arch.debian());
        let what = format!("package lists of {name}, {arch} (apt-get)");
        let mut cmd = apt::apt_get(&["update"]);
        logged(&what, cmd.args(self.options()), &cache::log("apt-update")?)
    }

    /// The sources of the machine's own packages, according to apt; or the first mirror, with the suite of this name.
    fn sources(&self) -> Result<String> {
        let suite = self.name.unwrap_or("$(CODENAME)");
        let mut cmd = Command::new("apt-get");
        let line = format!("deb [signed-by={KEYS}] $(REPO_URI) {suite} main");
        cmd.args(["indextargets", "--format", &line]);
        cmd.args(["Origin: Debian", "Component: main", "Created-By: Packages"]);
        if self.name.is_some() {
            // Not the mirror of security updates, which has no such suite.
            cmd.arg("Label: Debian");
        }
        let all = capture(&mut cmd)?;
        let wanted = if self.name.is_some() { 1 } else { usize::MAX };
        Ok(all.split_inclusive('\n').take(wanted).collect())
    }

    /// The names of its packages, one a line; empty if it was never updated.
    pub fn names(&self) -> String {
        let mut cmd = Command::new("apt-cache");
        capture(cmd.args(self.options()).arg("pkgnames")).unwrap_or_default()
    }

    /// Options by which apt uses only this suite.
    pub fn options(&self) -> Vec<String> {
        if self.is_the_machines() {
            return Vec::new();
        }
        let home = self.home.display();
        let mut settings = vec![
            format!("Dir::Etc::sourcelist={home}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={home}/lists"),
            format!("Dir::Cache={home}"),
            // apt's own user cannot read the cache, of which apt would warn.
            "APT::Sandbox::User=root".to_owned(),
        ];
        if self.arch != Arch::HOST {
            let arch = self.arch.debian();
            settings.push(format!("APT::Architecture={arch}"));
            settings.push(format!("APT::Architectures={arch}"));
            // None of its packages are installed.
            settings.push("Dir::State::status=/dev/null".to_owned());
        }
        settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect()
    }
}
