//! Where the programs work: a folder on a real disk with their inputs, and an empty one in it, `out`, for what a run
//! writes. Gone in the end; what an interrupted bench left goes when the next one begins.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

use crate::inputs::Size;
use crate::programs::Program;

/// Not `/tmp`, which may be in memory.
const DISK: &str = "/var/tmp";
const PREFIX: &str = "memstock-rehearsal-";
/// Debian's own programs, whatever else somebody has put before them.
pub const PATH: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Result<Self> {
        let disk = Path::new(DISK);
        // A guest has none.
        fs::create_dir_all(disk).context(DISK)?;
        for left in abandoned(disk, PREFIX) {
            fs::remove_dir_all(&left).with_context(|| left.display().to_string())?;
        }
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(disk).context(DISK)?;
        Ok(Self { dir })
    }

    /// Makes what a program reads, unless it is there.
    pub fn prepare(&self, program: &Program, size: Size) -> Result<()> {
        self.clear()?;
        for input in program.inputs {
            let path = self.dir.path().join(input.name());
            if !path.exists() {
                input.write(&path, size).with_context(|| path.display().to_string())?;
            }
        }
        if let Some(script) = program.prepare {
            let status = self.shell(script).stdin(Stdio::null()).status().context(script)?;
            ensure!(status.success(), "{script}: {:?}, {:?}", status.code(), status.signal());
        }
        Ok(())
    }

    /// Before a run: nothing in `out`, and none of the inputs in the page cache.
    pub fn refresh(&self) -> Result<()> {
        self.clear()?;
        forget(self.dir.path())
    }

    /// Empties `out`. What is dirty there need not be written any more.
    pub fn clear(&self) -> Result<()> {
        let out = self.dir.path().join("out");
        if out.exists() {
            fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
        }
        fs::create_dir(&out).with_context(|| out.display().to_string())
    }

    /// A file beside the inputs.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Has `command` work here, in an environment that is the same everywhere.
    pub fn enter(&self, command: &mut Command) {
        let out = self.dir.path().join("out");
        command.current_dir(self.dir.path()).env_clear().env("PATH", PATH.join(":"));
        command.env("HOME", &out).env("TMPDIR", &out).env("LC_ALL", "C");
        // Of python and of perl: the order in a table, and with it the memory, is the same in each run.
        command.env("PYTHONHASHSEED", "0").env("PERL_HASH_SEED", "0");
    }

    /// The shell with this script.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        self.enter(&mut command);
        command
    }
}

/// Has the kernel drop these files from the page cache, and no others.
fn forget(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            forget(&path)?;
        } else if kind.is_file() {
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            // What is dirty would stay.
            file.sync_data()?;
            fadvise(&file, 0, None, Advice::DontNeed)
                .with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// What bears `prefix` and the id of a process that is no more.
pub fn abandoned(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let is_left = |name: &str| {
        let owner = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
        owner.is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists())
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let left = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_left));
    left.map(|entry| entry.path()).collect()
}
