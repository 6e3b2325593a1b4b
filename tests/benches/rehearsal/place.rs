//! The programs' working folder: on a real disk, with their inputs and a subfolder `out` for what a run writes. Removed
//! at the end; the next bench removes what an interrupted one left.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Advice, fadvise, syncfs};
use tempfile::TempDir;

use crate::inputs::Size;
use crate::programs::Program;

/// Not `/tmp`, which may be in memory.
const DISK: &str = "/var/tmp";
const PREFIX: &str = "memstock-rehearsal-";
/// Debian's own programs, not what else may precede them in `PATH`.
pub const PATH: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

pub struct Place {
    dir: TempDir,
    /// Whether to drop a program's own text from the page cache as well.
    owns_text: bool,
}

impl Place {
    pub fn new(owns_text: bool) -> Result<Self> {
        let disk = Path::new(DISK);
        // A guest does not have it.
        fs::create_dir_all(disk).context(DISK)?;
        for left in abandoned(disk, PREFIX) {
            fs::remove_dir_all(&left).with_context(|| left.display().to_string())?;
        }
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(disk).context(DISK)?;
        Ok(Self { dir, owns_text })
    }

    /// Runs it once, so that its text is in the page cache and charged to none of the measured runs.
    pub fn warm(&self, program: &Program) -> Result<()> {
        if self.owns_text {
            return Ok(());
        }
        let mut command = self.shell(program.script);
        let output = command.stdin(Stdio::null()).output().context(program.script)?;
        ensure!(output.status.success(), "{}: {}", program.script, output.status);
        Ok(())
    }

    /// Makes a program's inputs, unless they exist.
    pub fn prepare(&self, program: &Program, size: Size) -> Result<()> {
        self.clear()?;
        for input in program.inputs {
            let path = self.dir.path().join(input.name());
            if !path.exists() {
                input.write(&path, size).with_context(|| path.display().to_string())?;
            }
        }
        if let Some((_, script)) = program.prepare {
            let status = self.shell(script).stdin(Stdio::null()).status().context(script)?;
            ensure!(status.success(), "{script}: {:?}, {:?}", status.code(), status.signal());
        }
        // Dirty pages could not be dropped from the cache.
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        File::open(self.dir.path()).and_then(|dir| Ok(syncfs(dir)?)).context("syncfs")
    }

    /// Prepares a run: empties `out`, writes back dirty pages, and drops the inputs from the page cache, since the run
    /// is not charged for what is cached already.
    pub fn refresh(&self, program: &Program) -> Result<()> {
        self.clear()?;
        self.sync()?;
        let made = program.prepare.map(|(made, _)| made);
        let inputs = program.inputs.iter().map(|input| input.name()).chain(made);
        let inputs = inputs.map(|name| self.dir.path().join(name));
        inputs.into_iter().try_for_each(|path| forget(&path))?;
        program.files().try_for_each(|path| {
            if self.owns_text {
                // Works only if no other process runs it: the kernel keeps mapped pages.
                return forget(&path);
            }
            // Otherwise, if the host has paged it out meanwhile (DAMON), the run would be charged for it.
            fs::read(&path).map(drop).with_context(|| path.display().to_string())
        })
    }

    /// Empties `out`, so that its dirty pages need not be written.
    pub fn clear(&self) -> Result<()> {
        let out = self.dir.path().join("out");
        if out.exists() {
            fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
        }
        fs::create_dir(&out).with_context(|| out.display().to_string())
    }

    /// The path of a file beside the inputs.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes `command` run here, in a fixed environment.
    pub fn enter(&self, command: &mut Command) {
        let out = self.dir.path().join("out");
        command.current_dir(self.dir.path()).env_clear().env("PATH", PATH.join(":"));
        command.env("HOME", &out).env("TMPDIR", &out).env("LC_ALL", "C");
        // Fixes the order of Python's and Perl's hash tables, and with it their memory.
        command.env("PYTHONHASHSEED", "0").env("PERL_HASH_SEED", "0");
    }

    /// A shell that runs this script.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        self.enter(&mut command);
        command
    }
}

/// Makes the kernel drop this file, or the files in this folder, from the page cache.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    if !file.metadata()?.is_dir() {
        return fadvise(&file, 0, None, Advice::DontNeed).context("posix_fadvise");
    }
    let mut entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    entries.try_for_each(|entry| forget(&entry?.path()))
}

/// Entries of `dir` named by `prefix` and the id of a process that no longer exists.
pub fn abandoned(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let is_left = |name: &str| {
        let owner = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
        owner.is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists())
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let left = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_left));
    left.map(|entry| entry.path()).collect()
}
