//! Where the engine is pinned, and how pins are created and removed. Knows no map and no program by name.
//!
//! The folder's name contains the version of its contents. An engine is created in a folder beside it, which gets its
//! name when everything is there and attached, and loses it again before the first pin is removed: one rename each. So
//! whenever its creator is killed, the folder with the name holds a whole engine, and one without it holds an engine
//! that was never complete or was told to end (`docs/adr/0013-adopted-pins.md`).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use memstock_common::LAYOUT;

/// Start of the name of an engine's folder on the BPF file system; a dash and the version follow. Engines from before
/// there were versions have only this name.
const FOLDER: &str = "memstock";
/// End of the name of a folder that is being filled or emptied. (bpffs allows no dots.)
const UNFINISHED: &str = "-unfinished";

/// The folder that holds the pins of an engine.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins of this version below a BPF file system.
    pub fn on(bpffs: &Path) -> Self {
        Self::at(bpffs.join(format!("{FOLDER}-{LAYOUT}")))
    }

    /// The pins in a folder of their own, for another engine beside the usual one (benches, tests).
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Their folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether an engine is pinned.
    pub fn exist(&self) -> bool {
        self.root.exists()
    }

    /// The pins while they are created or removed.
    pub fn unfinished(&self) -> Self {
        let mut root = self.root.clone().into_os_string();
        root.push(UNFINISHED);
        Self::at(root.into())
    }

    /// The pins of all other versions on this file system, finished or not: their names say that they are memstock's.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn of_other_versions(&self) -> Result<Vec<Self>> {
        let Some(bpffs) = self.root.parent() else { return Ok(Vec::new()) };
        let unreadable = || format!("cannot read {}", bpffs.display());
        let entries = match fs::read_dir(bpffs) {
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            entries => entries.with_context(unreadable)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let root = entry.with_context(unreadable)?.path();
            if root.file_name().is_some_and(is_engines)
                && root != self.root
                && root != self.unfinished().root
            {
                found.push(Self::at(root));
            }
        }
        Ok(found)
    }

    /// Creates the folders, under the unfinished name.
    ///
    /// # Errors
    /// They already exist or cannot be created.
    pub fn create(&self) -> Result<()> {
        let Self { root } = self.unfinished();
        for folder in [root.clone(), root.join("maps"), root.join("programs"), root.join("links")] {
            DirBuilder::new()
                .mode(0o700)
                .create(&folder)
                .with_context(|| format!("cannot create the pin folder {}", folder.display()))?;
        }
        Ok(())
    }

    /// Renames the folder, now complete, to its final name.
    ///
    /// # Errors
    /// The name is taken.
    pub fn finish(&self) -> Result<()> {
        fs::rename(self.unfinished().root, &self.root)
            .with_context(|| format!("cannot name the pin folder {}", self.root.display()))
    }

    /// Refuses a folder that another user has created, or can change: if the BPF file system is writable for everybody,
    /// anybody can create one.
    ///
    /// # Errors
    /// It is such a folder, or cannot be examined.
    pub fn check(&self) -> Result<()> {
        let root = self.root.display();
        let found =
            fs::symlink_metadata(&self.root).with_context(|| format!("cannot stat {root}"))?;
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        let is_ours = owner == rustix::process::geteuid().as_raw();
        ensure!(
            found.is_dir() && is_ours,
            "{root} is not ours, but belongs to user {owner}: remove it"
        );
        ensure!(mode & 0o022 == 0, "others may write to {root} (mode {mode:o}): remove it");
        Ok(())
    }

    /// The folder of the maps.
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// The folder of the programs.
    pub fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// The folder of the links.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The pin of the map `name`.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// The pin of the program `name`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    /// Whether the program `name` is pinned: an engine lacks programs that its kernel cannot run or does not need.
    ///
    /// # Errors
    /// The pins cannot be read.
    pub fn has_program(&self, name: &str) -> Result<bool> {
        self.program(name).try_exists().context("cannot look at a pin")
    }

    /// The pin of the link of `program` to `tracepoint`.
    pub fn link(&self, program: &str, tracepoint: &str) -> PathBuf {
        self.links().join(format!("{program}-{tracepoint}"))
    }

    /// The folder of the notes on named paths and their limits (`enforce/notes.rs`).
    pub fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Holds a folder for each cgroup whose tasks' pages are still to be adopted. Unlike a file elsewhere, these notes
    /// live exactly as long as the engine.
    fn unadopted_folder(&self) -> PathBuf {
        self.root.join("unadopted")
    }

    /// Notes cgroups, by id, whose pages are to be adopted.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn note_unadopted(&self, ids: impl IntoIterator<Item = u64>) -> Result<()> {
        for id in ids {
            let note = self.unadopted_folder().join(id.to_string());
            fs::create_dir_all(&note).with_context(|| format!("cannot make {}", note.display()))?;
        }
        Ok(())
    }

    /// The cgroups noted.
    ///
    /// # Errors
    /// The notes cannot be read.
    pub fn unadopted(&self) -> Result<BTreeSet<u64>> {
        let folder = self.unadopted_folder();
        let names = || -> io::Result<BTreeSet<u64>> {
            let names = fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name()));
            let names = names.collect::<io::Result<Vec<_>>>()?;
            Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
        };
        match names() {
            Err(error) if is_gone(&error) => Ok(BTreeSet::new()),
            names => names.with_context(|| format!("cannot read {}", folder.display())),
        }
    }

    /// Removes the notes of these cgroups only: others may have been noted meanwhile.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn adopted(&self, ids: &BTreeSet<u64>) -> Result<()> {
        ids.iter().try_for_each(|id| remove_folder(&self.unadopted_folder().join(id.to_string())))
    }

    /// Removes every pin, links first, so that nothing is charged while the rest is removed.
    ///
    /// # Errors
    /// A pin cannot be removed. A pin that is already gone is no error.
    pub fn remove(&self) -> Result<()> {
        let unfinished = self.unfinished();
        // Left by an earlier removal or a failed start; it occupies the name that is needed now.
        unfinished.clear()?;
        match fs::rename(&self.root, &unfinished.root) {
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error)
                .with_context(|| format!("cannot rename the pin folder {}", self.root.display())),
            Ok(()) => unfinished.clear(),
        }
    }

    fn clear(&self) -> Result<()> {
        remove_folder(&self.links())?;
        remove_folder(&self.root)
    }
}

/// Removes what a failed start left behind.
///
/// # Errors
/// Those of `result`.
pub fn undo_on_error<T>(pins: &Pins, result: Result<T>) -> Result<T> {
    if result.is_err()
        && let Err(error) = pins.remove()
    {
        log::error!("{error:#}");
    }
    result
}

/// Whether a folder's name is that of an engine of some version.
fn is_engines(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let name = name.strip_suffix(UNFINISHED).unwrap_or(name);
    name == FOLDER
        || name.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('-')).is_some_and(
            |version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()),
        )
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if !is_gone(&error) => {
            Err(error).with_context(|| format!("cannot remove the pins in {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_known_by_name() {
        for name in ["memstock", "memstock-1", "memstock-27", "memstock-1-unfinished"] {
            assert!(is_engines(OsStr::new(name)), "{name}");
        }
        for name in ["memstock-", "memstock-bench", "memstock-test-control", "memstock2", "other-1"]
        {
            assert!(!is_engines(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn folders_come_and_go_whole() {
        let bpffs = tempfile::tempdir().unwrap();
        let pins = Pins::on(bpffs.path());
        pins.create().unwrap();
        assert!(!pins.exist() && pins.unfinished().exist());
        pins.finish().unwrap();
        assert!(pins.exist() && pins.links().exists() && !pins.unfinished().exist());
        fs::write(pins.map("X"), "").unwrap();
        for other in ["memstock", "memstock-9999-unfinished", "memstock-bench", "somebody"] {
            fs::create_dir(bpffs.path().join(other)).unwrap();
        }
        let others = pins.of_other_versions().unwrap();
        assert_eq!(others.len(), 2, "{others:?}");
        for other in others {
            other.remove().unwrap();
        }
        // Killed during the removal, and a new one started.
        pins.create().unwrap();
        pins.remove().unwrap();
        pins.remove().unwrap();
        let left: BTreeSet<_> =
            fs::read_dir(bpffs.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["memstock-bench", "somebody"].map(Into::into).into());
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let bpffs = tempfile::tempdir().unwrap();
        let pins = Pins::on(bpffs.path());
        pins.create().unwrap();
        pins.finish().unwrap();
        pins.check().unwrap();
        fs::set_permissions(pins.root(), fs::Permissions::from_mode(0o775)).unwrap();
        pins.check().unwrap_err();
        fs::remove_dir_all(pins.root()).unwrap();
        std::os::unix::fs::symlink(bpffs.path(), pins.root()).unwrap();
        pins.check().unwrap_err();
    }

    #[test]
    fn notes_go_with_the_engine() {
        let bpffs = tempfile::tempdir().unwrap();
        let pins = Pins::on(bpffs.path());
        pins.create().unwrap();
        assert!(pins.unadopted().unwrap().is_empty());
        pins.unfinished().note_unadopted([7, 1 << 40, 7]).unwrap();
        pins.finish().unwrap();
        assert_eq!(pins.unadopted().unwrap(), [7, 1 << 40].into());
        pins.note_unadopted([8]).unwrap();
        for _ in 0..2 {
            pins.adopted(&[7, 1 << 40].into()).unwrap();
            assert_eq!(pins.unadopted().unwrap(), [8].into(), "noted meanwhile");
        }
        pins.remove().unwrap();
        assert_eq!(fs::read_dir(bpffs.path()).unwrap().count(), 0);
    }
}
