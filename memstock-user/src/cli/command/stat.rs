//! `memstock stat`: runs COMMAND in a tracked cgroup of its own, and reports what it used.
//!
//! Without a running engine, it starts one for COMMAND alone. Otherwise it uses the running one, whose daemon tracks
//! every cgroup created below a tracked one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::beside::{attend, require_tracked, wait_until_tracked};
use super::run::{run_alone, with_signals};
use super::signals::Signals;
use super::{attached, path_of_name};
use crate::cli::config::Settings;
use crate::cli::{Run, Stat};
use crate::engine::kernel_stock::KernelStock;
use crate::engine::pins::Pins;
use crate::engine::sample::{Paths, sample};
use crate::exit::{Classify as _, Failure, SUCCESS};
use crate::forecast::measure::{Measured, Work};
use crate::host::cgroup::{Cgroup, display};
use crate::host::launch::{self, Ended};
use crate::host::protect::Protection;
use crate::host::{self, page_size};
use crate::model::Sample;
use crate::view::show::stat::{Report, document, write};

/// Measures COMMAND and writes the report; returns COMMAND's exit code.
///
/// # Errors
/// COMMAND cannot be started; the host, a cgroup or the kernel does not allow it; or the report cannot be written.
/// Nothing that was made is left behind.
pub fn stat(mut args: Stat) -> Result<u8> {
    host::require_privilege()?;
    path_of_name(&args.named, &mut args.cgroup)?;
    let args = &args;
    let output = args.output.as_deref().map(Output::open).transpose()?;
    let kernel = args.kernel_stock.then(KernelStock::watch).transpose()?;
    let kernel = kernel.as_ref();
    let (runs, code) = with_signals(false, async |signals| repeat(args, kernel, signals).await)?;
    let Some(report) = Report::new(&args.command, &runs, code) else { return Ok(code) };
    match output {
        Some(output) => output.write(args, &report)?,
        None => {
            // A reader that went away does not change how COMMAND ended.
            let _ = print(&mut io::stderr().lock(), args, &report);
        }
    }
    Ok(code)
}

fn print(out: &mut dyn Write, args: &Stat, report: &Report) -> io::Result<()> {
    if args.json { writeln!(out, "{:#}", document(report)) } else { write(out, report) }
}

/// The file of `--output`, opened before COMMAND is started: afterwards it would be too late to report an error. A new
/// file is removed if no report is written.
struct Output {
    path: PathBuf,
    file: File,
    is_new: bool,
    is_written: bool,
}

impl Output {
    fn open(path: &Path) -> Result<Self> {
        let is_new = !path.exists();
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("cannot write {}", display(path)))?;
        Ok(Self { path: path.into(), file, is_new, is_written: false })
    }

    fn write(mut self, args: &Stat, report: &Report) -> Result<()> {
        let mut text = Vec::new();
        let written = print(&mut text, args, report);
        // Truncated only now, so that a failed run does not lose the former report. What is not a regular file has no
        // length.
        let _ = self.file.set_len(0);
        let written = written.and_then(|()| self.file.write_all(&text));
        written.with_context(|| format!("cannot write {}", display(&self.path)))?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_new && !self.is_written {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// All runs, up to the first that fails; and the exit code of the last.
async fn repeat(
    args: &Stat,
    kernel: Option<&KernelStock>,
    signals: &mut Signals,
) -> Result<(Vec<Measured>, u8)> {
    let mut runs = Vec::<Measured>::new();
    for _ in 0..args.repeat {
        let Some(run) = once(args, kernel, signals).await? else { break };
        ensure!(
            runs.last().is_none_or(|last| last.is_own_engine == run.is_own_engine),
            "an engine was started or ended between two runs, which cannot be compared: try again"
        );
        let code = launch::exit_code_of(run.ended.status);
        runs.push(run);
        if code != SUCCESS {
            return Ok((runs, code));
        }
    }
    Ok((runs, SUCCESS))
}

/// One run; none if a signal came before COMMAND was started.
async fn once(
    args: &Stat,
    kernel: Option<&KernelStock>,
    signals: &mut Signals,
) -> Result<Option<Measured>> {
    let name = format!("memstock-{}", std::process::id());
    let name = args.cgroup.as_deref().unwrap_or(Path::new("/")).join(name);
    if Pins::on(host::BPFFS.as_ref()).exist() {
        beside(args, kernel, signals, &name).await.map(Some)
    } else {
        alone(args, kernel, signals, name).await
    }
}

/// Measures with an engine of its own.
async fn alone(
    args: &Stat,
    kernel: Option<&KernelStock>,
    signals: &mut Signals,
    name: PathBuf,
) -> Result<Option<Measured>> {
    let run = Run {
        is_measured: true,
        new: Some(name),
        settings: Settings {
            batch: args.batch,
            slots: args.slots,
            // There is no limit to enforce, and nothing in a new cgroup to adopt.
            observe: true,
            no_adopt: true,
            ..Settings::default()
        },
        events_bytes: crate::journal::MAX_BYTES,
        command: args.command.clone(),
        ..Run::default()
    };
    let outcome = run_alone(&run, signals, &mut ()).await?;
    let Some(ended) = outcome.command else { return Ok(None) };
    let cgroup = outcome.home.context("COMMAND had no cgroup")?;
    measured(kernel, None, &outcome.sample, &cgroup, ended).map(Some)
}

/// Measures below a cgroup that the running engine tracks.
async fn beside(
    args: &Stat,
    kernel: Option<&KernelStock>,
    signals: &mut Signals,
    name: &Path,
) -> Result<Measured> {
    let (engine, mount) = attached()?;
    let above = args.cgroup.as_deref();
    require_tracked(above, args.batch.is_some() || args.slots.is_some(), &engine, &mount)?;
    let cgroup = mount.create(name)?;
    let home = cgroup.cgroup().clone();
    wait_until_tracked(&engine, &home).await?;
    let mut paths = Paths::default();
    let before = sample(&engine, &mount, &mut paths)?;
    let (command, command_args) = args.command.split_first().context("there is no COMMAND")?;
    let mut child = launch::start(command, command_args, home.procs()?, &Protection::default())?;
    let ended = attend(&mut child, signals).await?;
    let after = sample(&engine, &mount, &mut paths)?;
    if !engine.pins().exist() {
        log::warn!(
            "the engine ended before COMMAND: what happened afterwards is not in the figures"
        );
    }
    let measured = measured(kernel, Some(&before), &after, &home, ended)?;
    cgroup.remove()?;
    Ok(measured)
}

fn measured(
    kernel: Option<&KernelStock>,
    before: Option<&Sample>,
    after: &Sample,
    cgroup: &Cgroup,
    ended: Ended,
) -> Result<Measured> {
    let ids: Vec<_> = after.ids_below(cgroup.id).into_iter().collect();
    let kernel = kernel.map(|kernel| kernel.charges(Some(&ids))).transpose()?;
    let kernel = kernel.flatten();
    let work = Work { before, after, cgroup_id: cgroup.id, ended, kernel };
    let figures = work
        .figures(page_size())
        .classify(Failure::Cgroup, || format!("{} was not measured", display(&cgroup.path)))?;
    Ok(Measured {
        cgroup: cgroup.path.clone(),
        is_own_engine: before.is_none(),
        batch: after.batch,
        ended,
        figures,
        loss: work.loss(),
    })
}
