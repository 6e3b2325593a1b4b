//! `memstock top`: the live view, or plain samples where there is no terminal for one.

use std::env;
use std::io::{self, IsTerminal as _};

use anyhow::Result;

use super::{attached, closed_pipe_is_success, target};
use crate::cli::{Top, When};
use crate::view::top::live::{self, Options};
use crate::view::top::plain;
use crate::view::top::source::Source;

/// Shows the engine until it is told to end.
///
/// # Errors
/// No engine is running, or it ends, or it cannot be read.
pub fn top(args: &Top) -> Result<u8> {
    let (engine, mount) = attached()?;
    let only = target(&engine, &mount, args.cgroup.as_deref(), &args.named)?;
    let only = only.map(|(cgroup, _)| cgroup.id);
    let source = Source::new(engine, mount, only)?;
    let colour = match args.color {
        When::Auto => env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        When::Always => true,
        When::Never => false,
    };
    let options = Options { delay: args.delay, readings: args.iterations, colour };
    if args.batch_mode || !io::stdout().is_terminal() || is_dumb() {
        return closed_pipe_is_success(plain::run(source, &options)?);
    }
    live::run(source, &options)
}

/// Whether the terminal cannot move its cursor.
fn is_dumb() -> bool {
    env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}
