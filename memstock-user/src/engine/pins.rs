//! Where the engine is pinned, and how the pins go away. Knows no map and no program by name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Name of the engine's folder on the BPF file system.
const FOLDER: &str = "memstock";

/// The folder that holds the pins of an engine.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins below a BPF file system.
    pub fn on(bpffs: &Path) -> Self {
        Self::at(bpffs.join(FOLDER))
    }

    /// The pins in a folder of their own, for an engine beside the one (benches, tests).
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Whether an engine, or the remains of one, is pinned.
    pub fn exist(&self) -> bool {
        self.root.exists()
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// They exist already or cannot be made.
    pub fn create(&self) -> Result<()> {
        for folder in [&self.root, &self.maps(), &self.programs(), &self.links()] {
            fs::create_dir(folder)
                .with_context(|| format!("cannot create the pin folder {}", folder.display()))?;
        }
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

    /// The pin of the link of `program` to `tracepoint`.
    pub fn link(&self, program: &str, tracepoint: &str) -> PathBuf {
        self.links().join(format!("{program}-{tracepoint}"))
    }

    /// Removes every pin, links first so that nothing is charged while the rest goes.
    ///
    /// # Errors
    /// A pin cannot be removed. What is already gone is no error.
    pub fn remove(&self) -> Result<()> {
        for folder in [self.links(), self.programs(), self.maps()] {
            remove_folder(&folder)?;
        }
        remove_folder(&self.root)
    }
}

fn remove_folder(folder: &Path) -> Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            match fs::remove_file(entry?.path()) {
                Err(error) if !gone(&error) => return Err(error),
                _ => {}
            }
        }
        fs::remove_dir(folder)
    };
    match remove() {
        Err(error) if !gone(&error) => {
            Err(error).with_context(|| format!("cannot remove the pins in {}", folder.display()))
        }
        _ => Ok(()),
    }
}
