//! `memstock record`: records COMMAND in a tracked cgroup of its own, or a running cgroup.
//!
//! Without a running engine, it starts one for the recording alone; otherwise it records from the running one.

mod output;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use self::output::Output;
use super::beside::{attend, require_tracked, wait_until_tracked};
use super::run::{RunObserver, run_alone, with_signals};
use super::signals::Signals;
use super::watch::GRACE;
use super::{attached, path_of_name};
use crate::cli::config::Settings;
use crate::cli::{Record, Run};
use crate::daemon::record::{Ending, Recorder, Subject, Summary};
use crate::engine::pins::Pins;
use crate::exit::{Failure, SUCCESS, printable};
use crate::host;
use crate::host::cgroup::Cgroup;
use crate::host::launch::{self, Ended};
use crate::host::protect::Protection;
use crate::host::workload::Resolver;
use crate::model::size::human;

/// Records; returns COMMAND's exit code.
///
/// # Errors
/// COMMAND cannot be started; the host, a cgroup or the kernel does not allow it; or the file cannot be created.
/// Nothing is left behind then but what was recorded, and an earlier recording stays as it was.
pub fn record(mut args: Record) -> Result<u8> {
    host::require_privilege()?;
    path_of_name(&args.named, &mut args.cgroup)?;
    let args = &args;
    let mut recording =
        Recording { args, output: Output::create(&args.output)?, recorder: None, summary: None };
    let told = with_signals(false, async |signals| {
        if Pins::on(host::BPFFS.as_ref()).exist() {
            beside(&mut recording, signals).await
        } else {
            alone(&mut recording, signals).await
        }
    });
    // A complete recording is reported and kept, whatever failed after its end.
    let ended = recording.say_end();
    let code = told?;
    let is_cut = ended?.is_some_and(|summary| summary.failed.is_some());
    // Without COMMAND, a recording cut short is a failure; with COMMAND, its exit code comes first.
    if is_cut && args.command.is_empty() { Ok(Failure::Other.code()) } else { Ok(code) }
}

/// A recording, from its beginning to its end.
struct Recording<'a> {
    args: &'a Record,
    output: Output,
    recorder: Option<Recorder>,
    summary: Option<Result<Summary>>,
}

impl Recording<'_> {
    /// Prints what was recorded and where it is, if the recording has ended.
    fn say_end(&mut self) -> Result<Option<Summary>> {
        let Some(summary) = self.summary.take().transpose()? else { return Ok(None) };
        let kept = self.output.keep();
        let path = self.output.leave();
        eprintln!("{}", line(&summary, &path, self.args.charges));
        for warning in &summary.warnings {
            log::warn!("{}", printable(warning));
        }
        kept.map(|()| Some(summary))
    }
}

impl RunObserver for Recording<'_> {
    fn begin(&mut self, pins: &Pins, home: &Cgroup) -> Result<Option<Arc<Notify>>> {
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        let command = self.args.command.iter().map(text).collect();
        let charges = self.args.charges;
        let name = Resolver::name_of(home);
        let subject = Subject { cgroup: home.clone(), name, command, charges };
        let recorder = Recorder::start(pins, subject, self.output.file()?)?;
        // With COMMAND, the recording ends when COMMAND does.
        let gone = self.args.command.is_empty().then(|| recorder.gone());
        self.recorder = Some(recorder);
        Ok(gone)
    }

    fn launched(&mut self) {
        // COMMAND runs and is not ended for this; it is tried again at the end.
        if let Err(error) = self.output.keep() {
            log::warn!("the recording still has its temporary name: {error:#}");
        }
    }

    fn end(&mut self, command: Option<&Ended>) {
        let ending = command.map(|ended| Ending {
            code: Some(launch::exit_code_of(ended.status).into()),
            read_bytes: Some(ended.read_bytes),
        });
        let recorder = self.recorder.take();
        self.summary = recorder.map(|recorder| recorder.finish(ending.unwrap_or_default()));
    }
}

/// The path of COMMAND's cgroup, below the one that was named.
fn own_name(above: Option<&Path>) -> PathBuf {
    above.unwrap_or(Path::new("/")).join(format!("memstock-{}", std::process::id()))
}

/// Records with an engine of its own.
async fn alone(recording: &mut Recording<'_>, signals: &mut Signals) -> Result<u8> {
    let Record { seconds, cgroup, command, .. } = recording.args;
    let has_command = !command.is_empty();
    let run = Run {
        is_measured: true,
        new: has_command.then(|| own_name(cgroup.as_deref())),
        cgroups: cgroup.iter().filter(|_| !has_command).cloned().collect(),
        seconds: *seconds,
        settings: Settings {
            // There is no limit to enforce, and nothing in a new cgroup to adopt.
            observe: true,
            no_adopt: has_command,
            ..Settings::default()
        },
        events_bytes: crate::journal::MAX_BYTES,
        command: command.clone(),
        ..Run::default()
    };
    run_alone(&run, signals, recording).await.map(|outcome| outcome.code())
}

/// Records from a running engine.
async fn beside(recording: &mut Recording<'_>, signals: &mut Signals) -> Result<u8> {
    let (engine, mount) = attached()?;
    let args = recording.args;
    let above = require_tracked(args.cgroup.as_deref(), false, &engine, &mount)?;
    let limit = args.seconds.map_or(Duration::MAX, Duration::from_secs);
    let Some((command, command_args)) = args.command.split_first() else {
        let gone = recording.begin(engine.pins(), &above)?;
        recording.launched();
        tokio::select! {
            _ = signals.any() => {}
            () = sleep(limit) => {}
            () = async { match gone { Some(gone) => gone.notified().await, None => std::future::pending().await } } => {}
        }
        recording.end(None);
        warn_of_end(engine.pins());
        return Ok(SUCCESS);
    };
    let cgroup = mount.create(own_name(args.cgroup.as_deref()))?;
    let home = cgroup.cgroup().clone();
    wait_until_tracked(&engine, &home).await?;
    recording.begin(engine.pins(), &home)?;
    let mut child = launch::start(command, command_args, home.procs()?, &Protection::default())?;
    recording.launched();
    let ended = match timeout(limit, attend(&mut child, signals)).await {
        Ok(ended) => ended?,
        Err(_) => child.terminate(GRACE).await.context("cannot end COMMAND")?,
    };
    recording.end(Some(&ended));
    warn_of_end(engine.pins());
    cgroup.remove()?;
    Ok(launch::exit_code_of(ended.status))
}

fn warn_of_end(pins: &Pins) {
    if !pins.exist() {
        log::warn!("the engine ended before the recording: what happened afterwards is not in it");
    }
}

/// The closing line.
fn line(summary: &Summary, path: &Path, charges: bool) -> String {
    let Summary { at, tasks, lost, bytes, failed, .. } = summary;
    let lost = match lost.as_slice() {
        [] => "nothing lost".to_owned(),
        all => {
            let all = all.iter().map(|(name, count)| match (*count, name.as_str()) {
                (1, "records" | "samples" | "charges") => {
                    format!("1 {}", name.trim_end_matches('s'))
                }
                _ => format!("{count} {name}"),
            });
            format!("lost: {}", all.collect::<Vec<_>>().join(", "))
        }
    };
    let path = printable(&path.to_string_lossy());
    let verb = if charges { "replay" } else { "rehearse" };
    let next = if path == "memstock.data" {
        format!("memstock {verb}")
    } else {
        format!("memstock {verb} {path}")
    };
    let what = match failed {
        Some(failed) => failed.clone(),
        None => lost,
    };
    let task = if *tasks == 1 { "task" } else { "tasks" };
    format!(
        "memstock: {:.1} s, {tasks} {task}, {what}; written to {path} ({}). Next: {next}",
        at.as_secs_f64(),
        human(*bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_what_there_is_and_what_is_next() {
        let summary = Summary {
            at: Duration::from_millis(41_230),
            tasks: 1204,
            bytes: 1_900_000,
            ..Summary::default()
        };
        assert_eq!(
            line(&summary, Path::new("memstock.data"), false),
            "memstock: 41.2 s, 1204 tasks, nothing lost; written to memstock.data (1.8MiB). Next: memstock rehearse"
        );
        let lost = vec![("records".to_owned(), 7), ("samples".to_owned(), 1)];
        let lost = Summary { lost, tasks: 1, bytes: 12, ..summary.clone() };
        assert_eq!(
            line(&lost, Path::new("a\nb"), false),
            "memstock: 41.2 s, 1 task, lost: 7 records, 1 sample; written to a\\x0ab (12B). Next: memstock rehearse a\\x0ab"
        );
        let full = Summary { failed: Some("the recording ends at 1.0 s: full".into()), ..summary };
        assert!(
            line(&full, Path::new("x"), false)
                .contains("tasks, the recording ends at 1.0 s: full; written")
        );
    }
}
