//! Owns how mistakes of the file read: one line each, with the place, and not more lines than people read.

use std::fmt;
use std::path::Path;

use crate::exit::{Failure, Faults};
use crate::host::cgroup::display;

/// Lines of one file: of garbage every byte is a mistake.
pub const MOST: usize = 20;

/// Where in the file, both from 1; the column in characters.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

/// Something that is wrong.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Mistake {
    /// Where; none if it is the file itself.
    pub place: Option<Place>,
    /// What.
    pub what: String,
}

impl Mistake {
    /// At this place.
    pub fn at(place: Place, what: impl Into<String>) -> Self {
        Self { place: Some(place), what: what.into() }
    }

    /// Of the file as a whole.
    pub fn of_file(what: impl Into<String>) -> Self {
        Self { place: None, what: what.into() }
    }
}

/// The end of `FILE:3:1: what` and of `FILE: what`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.what)
    }
}

/// The error that has a line for each mistake, in the order of the file.
pub fn refuse(file: &Path, mut mistakes: Vec<Mistake>) -> anyhow::Error {
    mistakes.sort();
    mistakes.dedup();
    let file = display(file);
    let more = mistakes.len().saturating_sub(MOST);
    let mut lines: Vec<_> =
        mistakes.iter().take(MOST).map(|mistake| format!("{file}:{mistake}")).collect();
    if more > 0 {
        lines.push(format!("{file}: and {more} more mistakes"));
    }
    Faults { kind: Failure::Usage, lines }.into()
}
