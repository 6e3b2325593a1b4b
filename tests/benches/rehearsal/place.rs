//! Where the programs work: a folder on a real disk with their inputs, and an empty one in it, `out`, for what a run
//! writes. Gone in the end; what an interrupted bench left goes when the next one begins.

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
/// Debian's own programs, whatever else somebody has put before them.
pub const PATH: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

pub struct Place {
    dir: TempDir,
    /// Whether a program's own text goes from the page cache as well.
    owns_text: bool,
}

impl Place {
    pub fn new(owns_text: bool) -> Result<Self> {
        let disk = Path::new(DISK);
        // A guest has none.
        fs::create_dir_all(disk).context(DISK)?;
        for left in abandoned(disk, PREFIX) {
            fs::remove_dir_all(&left).with_context(|| left.display().to_string())?;
        }
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(disk).context(DISK)?;
        Ok(Self { dir, owns_text })
    }

    /// Runs it once, so that its text is in the page cache for each run that counts, and charged to none of them.
    pub fn warm(&self, program: &Program) -> Result<()> {
        if self.owns_text {
            return Ok(());
        }
        let mut command = self.shell(program.script);
        let output = command.stdin(Stdio::null()).output().context(program.script)?;
        ensure!(output.status.success(), "{}: {}", program.script, output.status);
        Ok(())
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
        if let Some((_, script)) = program.prepare {
            let status = self.shell(script).stdin(Stdio::null()).status().context(script)?;
            ensure!(status.success(), "{script}: {:?}, {:?}", status.code(), status.signal());
        }
        // What is dirty could not be dropped from the cache.
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        File::open(self.dir.path()).and_then(|dir| Ok(syncfs(dir)?)).context("syncfs")
    }

    /// Before a run: nothing in `out`, nothing that is yet to be written, and in the page cache nothing of what the program
    /// reads. What is there already would be charged to nobody.
    pub fn refresh(&self, program: &Program) -> Result<()> {
        self.clear()?;
        self.sync()?;
        let made = program.prepare.map(|(made, _)| made);
        let inputs = program.inputs.iter().map(|input| input.name()).chain(made);
        let inputs = inputs.map(|name| self.dir.path().join(name));
        inputs.into_iter().try_for_each(|path| forget(&path))?;
        program.files().try_for_each(|path| {
            if self.owns_text {
                // As long as nobody else runs it; the kernel keeps what is mapped.
                return forget(&path);
            }
            // The host may have paged it out meanwhile (DAMON), and the run would be charged for it.
            fs::read(&path).map(drop).with_context(|| path.display().to_string())
        })
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

/// Has the kernel drop this file from the page cache, or those in this folder, and no others.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    if !file.metadata()?.is_dir() {
        return fadvise(&file, 0, None, Advice::DontNeed).context("posix_fadvise");
    }
    let mut entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    entries.try_for_each(|entry| forget(&entry?.path()))
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
