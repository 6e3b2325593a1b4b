//! `memstock report`: draws what limits would do to a recorded run.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::rehearse::{refuse_empty, what_if};
use crate::cli;
use crate::exit::{Failure, SUCCESS};
use crate::forecast::recommend::{Advice, Goal};
use crate::forecast::rehearse::Rehearsal;
use crate::host::cgroup::display;
use crate::recording;
use crate::view::report::Report;

/// Writes the files that were asked for.
///
/// # Errors
/// The recording cannot be read, a picture cannot be drawn, or a file cannot be written.
pub fn report(args: &cli::Report) -> Result<u8> {
    let recording = recording::read(&args.file)?;
    for file in [&args.html, &args.svg].into_iter().flatten() {
        refuse_same(file, &args.file)?;
    }
    if let (Some(html), Some(svg)) = (&args.html, &args.svg) {
        refuse_same(html, svg)?;
    }
    let rehearsal = Rehearsal::new(&recording, what_if(args.what_if, &recording));
    refuse_empty(&args.file, &rehearsal)?;
    let advice = Advice::of(std::slice::from_ref(&rehearsal), Goal::default());
    let report = Report::of(&rehearsal, advice);
    if let Some(file) = &args.html {
        write(file, &report.html()?)?;
    }
    if let Some(file) = &args.svg {
        // Links to nothing may have been to the same file.
        args.html.iter().try_for_each(|html| refuse_same(file, html))?;
        write(file, &report.svg()?)?;
    }
    Ok(SUCCESS)
}

/// Refuses to write over a file that is read, or written as well, by whatever name.
fn refuse_same(file: &Path, other: &Path) -> Result<()> {
    let id = |path: &Path| {
        let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some((found.dev(), found.ino()))
    };
    if id(file).is_some_and(|it| id(other) == Some(it)) {
        let [file, other] = [file, other].map(display);
        return Err(Failure::Usage.error(format!("{file} and {other} are the same file")));
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", display(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_not_written_twice_nor_over_the_recording() {
        let dir = tempfile::tempdir().unwrap();
        let [data, link, new, hard] =
            ["data", "link", "new", "hard"].map(|name| dir.path().join(name));
        fs::write(&data, "recorded").unwrap();
        fs::hard_link(&data, &hard).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        for (file, other) in [(&data, &data), (&link, &data), (&hard, &data)] {
            let refused = refuse_same(file, other).unwrap_err();
            assert_eq!(crate::exit::exit_code(&refused), 2, "{refused:#}");
        }
        refuse_same(&new, &data).unwrap();
        refuse_same(&dir.path().join("none/new"), &new).unwrap();
        refuse_same(Path::new("/dev/null"), Path::new("/dev/null")).unwrap();
    }
}
