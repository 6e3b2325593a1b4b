//! `memstock verify`: runs COMMAND once under a limit, and compares with what a recording predicted.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use memstock_common::stat::PageCounterStat;

use super::beside::attend;
use super::rehearse::{code, refuse_empty, what_if};
use super::run::{run_alone, with_signals};
use super::signals::Signals;
use crate::cli::config::Settings;
use crate::cli::{Limit, Run, Verify};
use crate::exit::{Failure, SIGNALED, SUCCESS};
use crate::forecast::rehearse::{Rehearsal, SLOW};
use crate::forecast::verdict::Verdict;
use crate::host::launch::{self, Ended};
use crate::host::memory::{Happened, Limited};
use crate::host::protect::Protection;
use crate::host::{self, page_size};
use crate::recording::{self, Recording};
use crate::view::show::verify::{Outcome, write};

/// Runs COMMAND, prints prediction and outcome; returns the exit code of the outcome, else COMMAND's.
///
/// # Errors
/// The recording cannot be read, COMMAND cannot be started, or the limit cannot be set. Nothing that was made is left
/// behind.
pub fn verify(args: &Verify) -> Result<u8> {
    let recording = recording::read(&args.file)?;
    host::require_privilege()?;
    let what_if = what_if(args.what_if, &recording);
    let rehearsal = Rehearsal::new(&recording, what_if);
    refuse_empty(&args.file, &rehearsal)?;
    let name = format!("memstock-verify-{}", std::process::id());
    let ran = with_signals(false, async |signals| {
        match Limited::make(&name, args.limit, what_if.swap)? {
            Some(limited) => below(args, &limited, signals).await.map(Some),
            None => by_ourselves(args, what_if.swap, &name, signals).await,
        }
    })?;
    // A signal came before COMMAND was started.
    let Some((ended, happened)) = ran else { return Ok(SUCCESS) };
    let is_same = is_of(&recording, &args.command);
    let outcome = outcome(is_same.then_some(&recording), ended, happened);
    let predicted = rehearsal.judge(args.limit);
    // A reader that went away does not change how COMMAND ended.
    let _ = write(&mut io::stderr().lock(), &predicted, &outcome);
    Ok(match code([outcome.verdict].into_iter()) {
        _ if outcome.failed_by_itself() => outcome.code,
        SUCCESS => outcome.code,
        judged => judged,
    })
}

/// Runs COMMAND under the kernel's own limit.
async fn below(
    args: &Verify,
    limited: &Limited,
    signals: &mut Signals,
) -> Result<(Ended, Happened)> {
    let (command, command_args) = args.command.split_first().context("there is no COMMAND")?;
    let procs = limited.procs()?;
    let mut child = launch::start(command, command_args, procs, &Protection::default())?;
    let ended = attend(&mut child, signals).await?;
    Ok((ended, limited.happened()?))
}

/// Runs COMMAND under a limit of memstock's.
async fn by_ourselves(
    args: &Verify,
    swap: u64,
    name: &str,
    signals: &mut Signals,
) -> Result<Option<(Ended, Happened)>> {
    let limit = |bytes: u64| vec![Limit { cgroup: None, nr_pages: Some(bytes / page_size()) }];
    let with_swap = args.limit.saturating_add(swap);
    let run = Run {
        is_measured: true,
        new: Some(PathBuf::from(name)),
        limits: limit(args.limit),
        memsw_limits: if host::has_swap()? { limit(with_swap) } else { Vec::new() },
        settings: Settings { no_adopt: true, ..Settings::default() },
        events_bytes: crate::journal::MAX_BYTES,
        command: args.command.clone(),
        ..Run::default()
    };
    let outcome = run_alone(&run, signals, &mut ()).await?;
    let Some(ended) = outcome.command else { return Ok(None) };
    let home = outcome.home.context("COMMAND had no cgroup")?;
    let cgroup = outcome.sample.cgroups.iter().find(|cgroup| cgroup.name.id == home.id);
    let cgroup =
        cgroup.ok_or_else(|| Failure::Cgroup.error("the cgroup of COMMAND was removed"))?;
    let get = |stat| cgroup.memory.get(stat);
    let hits = get(PageCounterStat::Failcnt).unwrap_or(0);
    // The enforcer's report of the kill that ended COMMAND may come too late.
    let is_killed = hits > 0 && launch::exit_code_of(ended.status) == SIGNALED + KILL;
    Ok(Some((
        ended,
        Happened {
            hits,
            kills: outcome.kills.max(is_killed.into()),
            peak: get(PageCounterStat::Watermark).map(|nr_pages| nr_pages * page_size()),
        },
    )))
}

/// Whether this command was recorded: how long another took, or a service was recorded, says nothing about it.
fn is_of(recording: &Recording, command: &[OsString]) -> bool {
    let words = command.iter().map(|word| word.to_string_lossy());
    recording.header.command.iter().map(String::as_str).eq(words.collect::<Vec<_>>().iter())
}

/// The verdict on what happened, by the same rules as for recordings; `recording` is that of the same command.
fn outcome(recording: Option<&Recording>, ended: Ended, happened: Happened) -> Outcome {
    let end = recording.and_then(|recording| recording.end.as_ref());
    let before = end.map(|end| end.at.as_secs_f64()).filter(|&seconds| seconds > 0.0);
    // A killed run was cut short: its time says nothing.
    let before = before.filter(|_| happened.kills == 0);
    let slowdown = before.map(|before| ended.wall.as_secs_f64() / before - 1.0);
    let verdict = match (happened.kills, happened.hits) {
        (1.., _) => Verdict::Oom,
        (0, 0) => Verdict::Fits,
        _ if slowdown.is_some_and(|part| part >= SLOW) => Verdict::Slow,
        _ => Verdict::Reclaims,
    };
    let before = end.and_then(|end| end.read_bytes);
    let reread = before.map(|before| ended.read_bytes.saturating_sub(before));
    Outcome {
        verdict,
        slowdown,
        reread,
        peak: happened.peak,
        kills: happened.kills,
        code: launch::exit_code_of(ended.status),
        recorded_code: end.and_then(|end| end.code),
        is_same: recording.is_some(),
    }
}

/// SIGKILL.
const KILL: u8 = 9;

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::*;
    use crate::recording::{End, Header};

    #[test]
    fn what_happened_is_judged_by_the_same_rules() {
        let recording = Recording {
            header: Header { command: vec!["x".into()], ..Header::default() },
            end: Some(End { at: Duration::from_secs(10), ..End::default() }),
            ..Recording::default()
        };
        let ended = |seconds| Ended {
            status: ExitStatus::from_raw(0),
            wall: Duration::from_secs(seconds),
            user: Duration::ZERO,
            system: Duration::ZERO,
            max_rss: None,
            read_bytes: 0,
        };
        let happened = |hits, kills| Happened { hits, kills, ..Happened::default() };
        for (seconds, hits, kills, verdict) in [
            (10, 0, 0, Verdict::Fits),
            (20, 0, 0, Verdict::Fits),
            (10, 5, 0, Verdict::Reclaims),
            (11, 5, 0, Verdict::Slow),
            (11, 5, 1, Verdict::Oom),
        ] {
            let judged = outcome(Some(&recording), ended(seconds), happened(hits, kills)).verdict;
            assert_eq!(judged, verdict, "{seconds} {hits} {kills}");
        }
        assert_eq!(outcome(None, ended(99), happened(1, 0)).verdict, Verdict::Reclaims);
        let of = |words: &[&str]| {
            is_of(&recording, &words.iter().map(OsString::from).collect::<Vec<_>>())
        };
        assert_eq!(
            [of(&["x"]), of(&["x", "-v"]), of(&["y"]), of(&[])],
            [true, false, false, false]
        );
        let service = Recording::default();
        assert!(!is_of(&service, &["x".into()]));
    }
}
