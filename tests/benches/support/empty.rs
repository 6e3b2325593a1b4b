//! Attaches the empty program, the baseline of what any program on a tracepoint costs.

use anyhow::{Context as _, Result};
use aya::programs::RawTracePoint;
use aya::programs::links::FdLink;

/// Attaches it; dropping the link detaches it.
pub fn attach_empty(empty: &mut RawTracePoint, tracepoint: &str) -> Result<FdLink> {
    let id = empty
        .attach(tracepoint)
        .with_context(|| format!("cannot attach to the tracepoint {tracepoint}"))?;
    Ok(empty.take_link(id)?.into())
}
