//! Holds the tasks of a subtree while it is decided what becomes of them: freezes the cgroup
//! (`cgroup.freeze`), and lets go of it when the hold is dropped, or by the guard.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::task::own_cgroup;
use super::undo::{Todo, Undo};
use crate::cgroup::{Cgroup, display};

/// A frozen subtree.
#[derive(Debug)]
pub struct Hold<'a> {
    undo: &'a RefCell<Undo>,
    file: PathBuf,
    todo: Option<Todo>,
}

impl<'a> Hold<'a> {
    /// Freezes `cgroup`; `None` when that is not to be done: we are in it ourselves, or somebody else
    /// has frozen it, whose decision it is to let go.
    ///
    /// # Errors
    /// The guard is gone or the kernel refuses.
    pub fn freeze(undo: &'a RefCell<Undo>, cgroup: &Cgroup) -> Result<Option<Self>> {
        if own_cgroup().is_none_or(|own| own.starts_with(&cgroup.path)) {
            return Ok(None);
        }
        let file = cgroup.dir.join("cgroup.freeze");
        if read(&file)?.trim() != "0" {
            return Ok(None);
        }
        let todo = undo.borrow_mut().add(&file, "0")?;
        let hold = Self { undo, file, todo: Some(todo) };
        fs::write(&hold.file, "1")
            .with_context(|| format!("cannot freeze cgroup {}", display(&cgroup.path)))?;
        Ok(Some(hold))
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // Where the cgroup is gone there is nothing to let go.
        let _ = fs::write(&self.file, "0");
        if let Some(todo) = self.todo.take() {
            self.undo.borrow_mut().done(todo);
        }
    }
}
