//! Takes memory as fast as it can, which is what limits are for.

use std::fs::File;
use std::io::{Read as _, Write as _, stdin};
use std::path::Path;

use anyhow::{Context, Result};

use super::cpus::pin;
use super::lines::send;
use super::pages::Mapping;
use super::signal;
use crate::PAGE;

/// Writes `nr_pages` to `file` if given, else touches as many fresh pages. Then prints `done`, and holds
/// them until standard input ends.
///
/// # Errors
/// When the CPU is not there, or the file cannot be written.
pub fn run(nr_pages: usize, file: Option<&Path>, cpu: Option<u32>, catch_term: bool) -> Result<()> {
    if catch_term {
        signal::catch().context("catching signals")?;
    }
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    let mapping = Mapping::new(nr_pages).context("mapping memory")?;
    let mut written = file.map(File::create_new).transpose().context("making the file")?;
    match &mut written {
        None => mapping.touch(),
        Some(file) => {
            let page = vec![1; usize::try_from(PAGE)?];
            (0..nr_pages).try_for_each(|_| file.write_all(&page)).context("writing the file")?;
        }
    }
    send(b"done\n")?;
    // What it reads does not matter.
    stdin().read_to_end(&mut Vec::new()).context("waiting for the end of standard input")?;
    drop(mapping);
    Ok(())
}
