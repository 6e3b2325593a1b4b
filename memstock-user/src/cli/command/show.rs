//! `memstock show`: one sample of the running engine.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};

use super::{attached, closed_pipe_is_success, target};
use crate::cli::Show;
use crate::engine::sample::{Paths, sample};
use crate::host::page_size;
use crate::host::workload::Resolver;
use crate::journal::degraded;
use crate::model::Sample;
use crate::view::show::{json, pretty, table};

/// Prints one sample.
///
/// # Errors
/// No engine is running, or it cannot be read.
pub fn show(args: &Show) -> Result<u8> {
    let (engine, mount) = attached()?;
    // Paths and sample are not freed: the process is about to end.
    let mut paths = ManuallyDrop::new(Paths::default());
    let sample = Sample { degraded: degraded::read(), ..sample(&engine, &mount, &mut paths)? };
    let mut sample = ManuallyDrop::new(sample);
    if let Some((cgroup, _)) = target(&engine, &mount, args.cgroup.as_deref(), &args.named)? {
        sample.keep_below(cgroup.id);
    }
    let mut resolver = Resolver::default();
    sample.ask_names(mount.dir(), &mut resolver);
    for warning in resolver.warnings() {
        log::warn!("{warning}");
    }
    // With many cgroups the output is megabytes, which std would also search for the ends of lines.
    let out = io::stdout().as_fd().try_clone_to_owned().context("cannot open standard output")?;
    let mut out = BufWriter::with_capacity(1 << 16, File::from(out));
    let written = if args.json {
        let document = json::document(&sample, page_size());
        pretty::write(&mut out, &document).and_then(|()| writeln!(out))
    } else {
        table::write(&mut out, &sample, page_size())
    };
    closed_pipe_is_success(written.and_then(|()| out.flush()))
}
