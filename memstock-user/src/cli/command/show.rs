//! `memstock show`: one sample of the running engine.

use std::io::{self, BufWriter, Write as _};

use anyhow::Result;

use super::{attached, closed_pipe_is_success, target};
use crate::cli::Show;
use crate::engine::sample::{Paths, sample};
use crate::host::page_size;
use crate::host::workload::Resolver;
use crate::journal::degraded;
use crate::model::Sample;
use crate::view::show::{json, table};

/// Prints one sample.
///
/// # Errors
/// No engine is running, or it cannot be read.
pub fn show(args: &Show) -> Result<u8> {
    let (engine, mount) = attached()?;
    let mut sample =
        Sample { degraded: degraded::read(), ..sample(&engine, &mount, &mut Paths::default())? };
    if let Some((cgroup, _)) = target(&engine, &mount, args.cgroup.as_deref(), &args.named)? {
        sample.keep_below(cgroup.id);
    }
    let mut resolver = Resolver::default();
    sample.ask_names(mount.dir(), &mut resolver);
    for warning in resolver.warnings() {
        log::warn!("{warning}");
    }
    // With many cgroups the output is megabytes, of which white space would be two fifths.
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let written = if args.json {
        let document = json::document(&sample, page_size());
        serde_json::to_writer(&mut out, &document)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        table::write(&mut out, &sample, page_size())
    };
    closed_pipe_is_success(written.and_then(|()| out.flush()))
}
