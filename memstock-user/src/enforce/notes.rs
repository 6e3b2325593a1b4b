//! Remembers which paths were named and the limits each was given, by command line, configuration or `memstock limit`.
//! A cgroup that is removed and created again under its name is a new one to the kernel, but not to people.
//!
//! A note is a symbolic link beside the pins, so it lives exactly as long as the engine, whoever is killed, and one
//! rename replaces it. Its target is the text `MEMORY MEMSW PATH`, in pages. Its name is a hash of the path, so one
//! system call finds it; of two paths with the same hash, only the one noted last is remembered.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use memstock_common::NO_LIMIT;

use crate::enforce::setting::Limits;
use crate::engine::pins::Pins;
use crate::host::cgroup::display;

/// The limits of a path that was named without any.
pub const NO_LIMITS: Limits = Limits { memory: NO_LIMIT, memsw: NO_LIMIT };

/// The notes of an engine.
#[derive(Debug)]
pub struct Notes(PathBuf);

impl Notes {
    /// The notes beside these pins.
    pub fn of(pins: &Pins) -> Self {
        Self(pins.names())
    }

    /// Notes that the cgroup at `path` is to be tracked with these limits whenever it exists.
    ///
    /// # Errors
    /// The link cannot be made, for example because the path is longer than some 4,000 bytes.
    pub fn note(&self, path: &Path, limits: Limits) -> Result<()> {
        let mut text = format!("{} {} ", limits.memory, limits.memsw).into_bytes();
        text.extend(path.as_os_str().as_bytes());
        let note = self.note_of(path);
        let new = self.0.join(format!("new-{}", std::process::id()));
        let noted = || -> io::Result<()> {
            fs::create_dir_all(&self.0)?;
            // May be left by a killed process that had our pid.
            remove(&new)?;
            symlink(OsString::from_vec(text), &new)?;
            fs::rename(&new, &note)
        };
        noted().with_context(|| format!("cannot note the limits of {}", display(path)))
    }

    /// The limits given to `path`; `None` if it was never named.
    ///
    /// # Errors
    /// The note cannot be read.
    pub fn limits(&self, path: &Path) -> Result<Option<Limits>> {
        let note = read(&self.note_of(path));
        let note = note.with_context(|| format!("cannot read the limits of {}", display(path)))?;
        Ok(note.and_then(|(noted, limits)| (noted == path).then_some(limits)))
    }

    /// Removes the note of a path, if there is one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget(&self, path: &Path) -> Result<()> {
        if self.limits(path)?.is_none() {
            return Ok(());
        }
        let removed = remove(&self.note_of(path));
        removed.with_context(|| format!("cannot forget the limits of {}", display(path)))
    }

    /// All paths that were named.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn all(&self) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
        };
        let entries = entries.with_context(|| format!("cannot read {}", self.0.display()))?;
        let notes = entries.iter().map(|entry| read(&entry.path()));
        let notes = notes.collect::<io::Result<Vec<_>>>();
        let notes = notes.with_context(|| format!("cannot read {}", self.0.display()))?;
        Ok(notes.into_iter().flatten().map(|(path, _)| path).collect())
    }

    fn note_of(&self, path: &Path) -> PathBuf {
        self.0.join(format!("{:016x}", hash(path.as_os_str().as_bytes())))
    }
}

/// Returns `None` if there is no note, or it is not one of ours.
fn read(note: &Path) -> io::Result<Option<(PathBuf, Limits)>> {
    match fs::read_link(note) {
        Ok(text) => Ok(parse(&text.into_os_string().into_vec())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &[u8]) -> Option<(PathBuf, Limits)> {
    let mut words = text.splitn(3, |&byte| byte == b' ');
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
    let limits = Limits { memory: number()?, memsw: number()? };
    Some((OsString::from_vec(words.next()?.to_vec()).into(), limits))
}

fn remove(note: &Path) -> io::Result<()> {
    match fs::remove_file(note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_limits_of_a_path_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::of(&Pins::at(folder.path().join("engine")));
        assert!(notes.all().unwrap().is_empty());
        let strange = PathBuf::from(OsString::from_vec(b"/a b/\x20\xff".to_vec()));
        let paths = [PathBuf::from("/a"), strange, format!("/{}", "deep/".repeat(700)).into()];
        for (memory, path) in (1..).zip(&paths) {
            assert_eq!(notes.limits(path).unwrap(), None);
            for limits in [Limits { memory: 7, memsw: 8 }, Limits { memory, memsw: NO_LIMIT }] {
                notes.note(path, limits).unwrap();
                assert_eq!(notes.limits(path).unwrap(), Some(limits));
            }
        }
        let mut all = notes.all().unwrap();
        all.sort();
        let mut expected = paths.to_vec();
        expected.sort();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_path_with_the_same_hash_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::of(&Pins::at(folder.path().to_owned()));
        let (here, there) = (Path::new("/here"), Path::new("/there"));
        notes.note(here, Limits { memory: 1, memsw: 2 }).unwrap();
        fs::rename(notes.note_of(here), notes.note_of(there)).unwrap();
        assert_eq!(notes.limits(there).unwrap(), None);
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
