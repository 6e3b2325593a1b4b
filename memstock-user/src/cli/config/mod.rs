//! Owns the file of `memstock run --config`: reads it, finds its mistakes, and merges it into the command line, where
//! it fills in flags that were not given. Must not change anything on the host.
//!
//! serde reads the text into `settings` and stops at the first mistake; `check` then finds all mistakes in the cgroups
//! on this host. Nothing is applied before that.

mod check;
mod settings;
mod value;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use toml::Spanned;

pub use self::settings::{Entry, Settings};
pub use self::value::Size;
use crate::cli::{Limit, Run};
use crate::exit::{ExitErrors, Failure};
use crate::host::cgroup::{Cgroup, CgroupMount, display};
use crate::host::workload::find;
use crate::host::workload::{Resolver, Workload};

/// The largest file that is read, in bytes: room for 16,384 cgroups with short names.
const MAX_BYTES: u64 = 1 << 20;

/// The most mistakes reported of one file: people do not read more at once.
const MOST: usize = 20;

/// The position of a mistake in bytes, and what is wrong.
type Diagnostic = (usize, String);

/// The command line, merged with its `--config` file if it has one.
///
/// # Errors
/// [`Failure::Usage`], with a line for each mistake in the file.
pub fn with_file(args: &Run, mount: &CgroupMount) -> Result<Run> {
    let Some(file) = &args.config else { return Ok(args.clone()) };
    let settings = load(file, mount, args)?;
    let found = if settings.has_names() {
        let mut resolver = Resolver::default();
        let found = find::named(mount, &mut resolver)?;
        resolver.warnings().iter().for_each(|warning| log::warn!("{warning}"));
        found
    } else {
        Vec::new()
    };
    Ok(with_settings(args, settings, &found, mount))
}

/// The command line merged with its file, where these cgroups have names.
pub fn with_settings(
    args: &Run,
    settings: Settings,
    found: &[(Cgroup, Workload)],
    mount: &CgroupMount,
) -> Run {
    let mut run = below(&settings, args, found);
    run.file = settings;
    let (awaited, there) = run
        .cgroups
        .into_iter()
        .partition(|path| !args.cgroups.contains(path) && mount.absent(path).is_some());
    (run.awaited, run.cgroups) = (awaited, there);
    run
}

/// Reads a file and checks it, on this host and with this command line.
///
/// # Errors
/// As [`with_file`].
pub fn load(file: &Path, mount: &CgroupMount, args: &Run) -> Result<Settings> {
    let bytes = read(file).map_err(|what| refuse(file, vec![format!(" {what}")]))?;
    let text = String::from_utf8_lossy(&bytes);
    let line = |(at, what)| {
        let (line, column) = place(&text, at);
        format!("{line}:{column}: {what}")
    };
    let settings = parse(&bytes).map_err(|mistake| refuse(file, vec![line(mistake)]))?;
    let mut mistakes = check::check(&settings.cgroups, &text, mount);
    mistakes.sort();
    mistakes.truncate(MOST);
    let mut lines: Vec<_> = mistakes.into_iter().map(line).collect();
    let is_enough = !args.cgroups.is_empty() || args.new.is_some() || !args.command.is_empty();
    if settings.cgroups.is_empty() && !is_enough {
        lines.push(" nothing to track: add a [[cgroup]] with its path".to_owned());
    }
    if lines.is_empty() { Ok(settings) } else { Err(refuse(file, lines)) }
}

/// `FILE:LINE:COLUMN: what`, or `FILE: what` for the file as a whole.
fn refuse(file: &Path, mut lines: Vec<String>) -> anyhow::Error {
    for line in &mut lines {
        *line = format!("{}:{line}", display(file));
    }
    ExitErrors { kind: Failure::Usage, lines }.into()
}

/// The file's contents, or why it cannot be read.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    // Opening a FIFO without a writer would block.
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
        return Err(format!("is larger than {} MiB, the most that is read", MAX_BYTES >> 20));
    }
    Ok(text)
}

/// Parses the text, or returns its first mistake.
fn parse(bytes: &[u8]) -> Result<Settings, Diagnostic> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let what = "a byte that is not UTF-8: a configuration is text in TOML";
        (error.valid_up_to(), what.to_owned())
    })?;
    toml::from_str(text).map_err(|mut error| {
        // Otherwise the message shows the line, and not the key.
        error.set_input(None);
        let at = error.span().map_or(0, |span| span.start);
        (at, error.to_string().trim_end().replace('\n', ", "))
    })
}

/// Line and column of a byte, both from 1; the column in characters.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let column = before.chars().rev().take_while(|&c| c != '\n').count();
    (before.matches('\n').count() + 1, column + 1)
}

/// What `--check` prints about a file without mistakes. Needs no privilege.
///
/// # Errors
/// As [`with_file`].
pub fn summary(args: &Run) -> Result<String> {
    let Some(file) = &args.config else { return Ok(String::new()) };
    let mount = CgroupMount::find()?;
    let cgroups = load(file, &mount, args)?.cgroups;
    let limits = cgroups.iter().flat_map(|entry| [&entry.memory, &entry.memsw]).flatten().count();
    let mut text =
        format!("{}: no mistakes; cgroups: {}, limits: {limits}", display(file), cgroups.len());
    let paths = cgroups.iter().filter_map(|entry| entry.path());
    for path in paths.filter_map(|path| mount.absent(path.get_ref())) {
        text.push_str(&format!("\nno cgroup {} yet", display(&path)));
    }
    Ok(text)
}

/// The flags, with those not given taken from the file. Cgroups of both are tracked; a limit given as a flag wins.
fn below(file: &Settings, flags: &Run, found: &[(Cgroup, Workload)]) -> Run {
    let mut run = flags.clone();
    run.settings = flags.settings.or(file);
    let by_name = file.cgroups.iter().filter_map(|entry| Some((entry, entry.name()?)));
    let by_name = by_name.flat_map(|(entry, name)| {
        let are = found.iter().filter(|(_, workload)| name.is(workload));
        are.map(move |(cgroup, _)| (entry, &cgroup.path))
    });
    let by_path = file.cgroups.iter().filter_map(|entry| Some((entry, entry.path()?.get_ref())));
    // The last entry for a cgroup wins: a path is more specific than a name.
    let all: Vec<(&Entry, &PathBuf)> = by_name.clone().chain(by_path).collect();
    run.by_name = by_name.map(|(_, path)| path.clone()).collect();
    for (_, path) in &all {
        if !run.cgroups.contains(path) {
            run.cgroups.push((*path).clone());
        }
    }
    let limits = |of: fn(&Entry) -> &Option<Spanned<Size>>| {
        all.iter().filter_map(move |(entry, path)| {
            let &Size(nr_pages) = of(entry).as_ref()?.get_ref();
            Some(Limit { cgroup: Some((*path).clone()), nr_pages })
        })
    };
    run.limits.splice(0..0, limits(|entry| &entry.memory));
    run.memsw_limits.splice(0..0, limits(|entry| &entry.memsw));
    run
}

#[cfg(test)]
mod tests;
