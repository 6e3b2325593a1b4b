//! `memstock man`: prints a manual page, or writes all of them.

use std::fs;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

use super::closed_pipe_is_success;
use crate::cli::Man;
use crate::cli::manual;
use crate::exit::{Failure, SUCCESS, printable};

/// Prints the page of memstock or of a verb, or writes all of them to a folder.
///
/// # Errors
/// There is no such verb; the folder or standard output cannot be written.
pub fn man(args: &Man) -> Result<u8> {
    let pages = manual::pages().context("cannot render the manual")?;
    if let Some(dir) = &args.dir {
        for page in &pages {
            let file = dir.join(page.file_name());
            fs::write(&file, &page.text)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        return Ok(SUCCESS);
    }
    let page = pages.iter().find(|page| page.verb == args.verb).ok_or_else(|| {
        let verb = printable(args.verb.as_deref().unwrap_or_default());
        Failure::Usage.error(format!("there is no verb {verb}: see \"memstock --help\""))
    })?;
    closed_pipe_is_success(io::stdout().lock().write_all(&page.text))
}
