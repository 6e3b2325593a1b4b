//! `memstock audit`: proves conservation, compares with the kernel, repairs.

use std::io::{self, Write as _};

use anyhow::Result;

use super::{attached, closed_pipe_is_success};
use crate::audit::audit as run_audit;
use crate::cli::Audit;
use crate::exit::Failure;
use crate::view::show;

/// Audits, repairs if asked to, and prints what it found.
///
/// # Errors
/// No engine is running, it cannot be read, or (after printing) something does not add up.
pub fn audit(args: &Audit) -> Result<u8> {
    let (engine, mount) = attached()?;
    let found = run_audit(&engine, &mount, &args.kernel_cgroups, args.repair)?;
    let mut out = io::stdout().lock();
    let code = closed_pipe_is_success(if args.json {
        writeln!(out, "{:#}", show::audit::document(&found))
    } else {
        show::audit::write(&mut out, &found)
    })?;
    if found.is_off() {
        return Err(Failure::Other.error(
            "the pages do not add up to what is charged (see drift and ownerless above): this is a \
             bug in memstock, please report it; \"memstock stop\" and \"memstock run\" start afresh",
        ));
    }
    Ok(code)
}
