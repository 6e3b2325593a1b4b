//! `memstock rehearse`: shows what limits would do to a recorded run.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Result;

use super::closed_pipe_is_success;
use crate::cli::{Rehearse, Swap, WhatIfArgs};
use crate::exit::{Failure, OOM, SLOW, SUCCESS};
use crate::forecast::recommend::{Advice, Goal};
use crate::forecast::rehearse::{Rehearsal, WhatIf, page_size};
use crate::forecast::verdict::Verdict;
use crate::host::cgroup::display;
use crate::recording::{self, Recording};
use crate::view::show::rehearse::{Judged, document, write};

/// Prints a row for each limit; returns the exit code.
///
/// # Errors
/// The recording cannot be read, or standard output cannot be written.
pub fn rehearse(args: &Rehearse) -> Result<u8> {
    let recording = recording::read(&args.file)?;
    let what_if = what_if(args.what_if, &recording);
    let plain = Rehearsal::new(&recording, what_if);
    refuse_empty(&args.file, &plain)?;
    let high = WhatIf { is_high: true, ..what_if };
    let high = args.high.then(|| Rehearsal::new(&recording, high));
    let rehearsal = high.as_ref().unwrap_or(&plain);
    let rows = match args.limits.as_slice() {
        [] => Judged::table(rehearsal),
        limits => limits.iter().map(|&limit| rehearsal.judge(limit)).collect(),
    };
    let advice = Advice::of(std::slice::from_ref(&plain), Goal::default());
    let judged = Judged { rehearsal, rows, advice };
    let mut out = io::stdout().lock();
    let printed =
        if args.json { writeln!(out, "{:#}", document(&judged)) } else { write(&mut out, &judged) };
    closed_pipe_is_success(printed)?;
    let asked = if args.limits.is_empty() { &[] } else { judged.rows.as_slice() };
    Ok(code(asked.iter().map(|row| row.verdict)))
}

/// Refuses a recording of nothing, which any limit would fit.
pub(super) fn refuse_empty(file: &Path, rehearsal: &Rehearsal<'_>) -> Result<()> {
    if rehearsal.peaks().usage > 0 {
        return Ok(());
    }
    Err(Failure::Other.error(format!(
        "{} is of a cgroup in which nothing was charged: record it while it works",
        display(file)
    )))
}

/// The exit code of the worst of these verdicts.
pub(super) fn code(verdicts: impl Iterator<Item = Verdict>) -> u8 {
    match verdicts.min() {
        Some(Verdict::Oom | Verdict::Near) => OOM,
        Some(Verdict::Slow) => SLOW,
        Some(Verdict::Reclaims | Verdict::Fits) | None => SUCCESS,
    }
}

/// The assumptions of the command line, for this recording.
pub(super) fn what_if(asked: WhatIfArgs, recording: &Recording) -> WhatIf {
    let swap = match asked.swap {
        Swap::Host => recording.header.swap.saturating_mul(page_size(recording)),
        Swap::Bytes(bytes) => bytes,
    };
    WhatIf { swap, is_high: false, kernel: asked.kernel }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides() {
        use Verdict::{Fits, Oom, Reclaims, Slow};
        for (verdicts, expected) in [
            (&[][..], SUCCESS),
            (&[Fits, Reclaims], SUCCESS),
            (&[Slow, Fits], SLOW),
            (&[Fits, Oom, Slow], OOM),
        ] {
            assert_eq!(code(verdicts.iter().copied()), expected, "{verdicts:?}");
        }
    }
}
