//! Owns the file of `memstock run --config`: what it may say, and how it goes together with the command line.
//! Must not change anything on the host: what the file says becomes flags that were not given.
//!
//! Text → model (`parse`, keys in `settings` and `entry`) → the model beside this host (`check`). All that is
//! wrong is found at once, each with its place, and nothing is done before that.

mod check;
mod entry;
mod mistake;
mod parse;
pub mod settings;
mod value;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Result;

pub use self::entry::Entry;
pub use self::mistake::{Mistake, Place, refuse};
pub use self::settings::Settings;
use crate::cli::{Limit, Run};
use crate::host::cgroup::{CgroupMount, display};

/// The largest file that is read, in bytes: room for 16,384 cgroups with short names.
const MAX_BYTES: u64 = 1 << 20;

/// What a file says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// Of the run.
    pub settings: Settings,
    /// Its cgroups, as they stand in the file.
    pub cgroups: Vec<Entry>,
}

/// The command line with what its `--config` says, if it has one.
///
/// # Errors
/// [`Failure::Usage`](crate::exit::Failure::Usage), a line for each mistake of the file.
pub fn with_file(args: &Run, mount: &CgroupMount) -> Result<Run> {
    let Some(file) = &args.config else { return Ok(args.clone()) };
    let config = load(file, mount, args)?;
    let mut run = config.below(args);
    let (awaited, there) = run
        .cgroups
        .into_iter()
        .partition(|path| !args.cgroups.contains(path) && mount.absent(path).is_some());
    (run.awaited, run.cgroups) = (awaited, there);
    Ok(run)
}

/// Reads a file and finds all that is wrong with it, on this host and with this command line.
///
/// # Errors
/// As [`with_file`].
pub fn load(file: &Path, mount: &CgroupMount, args: &Run) -> Result<Config> {
    let text = read(file).map_err(|what| refuse(file, vec![Mistake::of_file(what)]))?;
    let (config, mut mistakes) = parse::parse(&text);
    mistakes.extend(check::check(&config, mount));
    let is_enough = !args.cgroups.is_empty() || args.new.is_some() || !args.command.is_empty();
    if mistakes.is_empty() && config.cgroups.is_empty() && !is_enough {
        mistakes.push(Mistake::of_file("nothing to track: add a [[cgroup]] with its path"));
    }
    if mistakes.is_empty() { Ok(config) } else { Err(refuse(file, mistakes)) }
}

/// What is in the file, or why it cannot be read.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    // A FIFO without a writer would have it wait here.
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let opened = File::options().read(true).custom_flags(flags).open(file).map_err(cannot)?;
    let kind = opened.metadata().map_err(cannot)?.file_type();
    if !kind.is_file() {
        let what = if kind.is_dir() { "a directory" } else { "not a regular file" };
        return Err(format!("is {what}: name a TOML file"));
    }
    let mut text = Vec::new();
    opened.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {} MiB, which no configuration is", MAX_BYTES >> 20));
    }
    Ok(text)
}

/// What `--check` has to say of a file that is sound here. Needs no privilege.
///
/// # Errors
/// As [`with_file`].
pub fn summary(args: &Run) -> Result<String> {
    let Some(file) = &args.config else { return Ok(String::new()) };
    let mount = CgroupMount::find()?;
    let config = load(file, &mount, args)?;
    let absent: Vec<_> = config.cgroups.iter().filter_map(|it| mount.absent(&it.path)).collect();
    let limits = config.cgroups.iter().flat_map(|entry| [entry.memory, entry.memsw]).flatten();
    let (cgroups, limits) = (config.cgroups.len(), limits.count());
    let mut text = format!("{}: no mistakes; cgroups: {cgroups}, limits: {limits}", display(file));
    for path in absent {
        text.push_str(&format!("\nno cgroup {} yet", display(&path)));
    }
    Ok(text)
}

impl Config {
    /// The flags, with the file for those that were not given. Cgroups of both are tracked; a limit given as a
    /// flag for one of them wins.
    pub fn below(&self, flags: &Run) -> Run {
        let mut run = flags.clone();
        self.settings.below(&mut run);
        run.cgroups.extend(self.cgroups.iter().map(|entry| entry.path.clone()));
        // The last one for a cgroup holds.
        let limits = |of: fn(&Entry) -> Option<Option<u64>>| {
            self.cgroups.iter().filter_map(move |entry| {
                Some(Limit { cgroup: Some(entry.path.clone()), nr_pages: of(entry)? })
            })
        };
        run.limits.splice(0..0, limits(|entry| entry.memory));
        run.memsw_limits.splice(0..0, limits(|entry| entry.memsw));
        run
    }
}

#[cfg(test)]
mod tests;
