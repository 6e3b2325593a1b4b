//! Text to model: every mistake that shows in the file alone. Asks nothing of the host.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::entry::{Entry, FIELDS};
use super::mistake::{MOST, Mistake, Place};
use super::settings::SETTINGS;
use super::value::expected;

/// The key of the cgroups.
const CGROUP: &str = "cgroup";

/// What the file says as far as it can be understood, and all that is wrong with it. With a mistake the former is
/// good for finding more of them, and no more.
pub fn parse(bytes: &[u8]) -> (Config, Vec<Mistake>) {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let place = Lines::of(valid).place(valid.len());
            let what = "a byte that is not UTF-8: a configuration is text in TOML";
            return (Config::default(), vec![Mistake::at(place, what)]);
        }
    };
    let lines = Lines::of(text);
    if let Some(at) = text.find('\0') {
        let what = "a NUL byte: a configuration is text in TOML";
        return (Config::default(), vec![Mistake::at(lines.place(at), what)]);
    }
    let Readable { text, mut mistakes, header } = readable(text, &lines);
    let is_whole = mistakes.is_empty();
    let (root, _) = DeTable::parse_recoverable(&text);
    let mut parser = Parser { lines, is_whole, mistakes: Vec::new() };
    let config = parser.config(root.get_ref());
    // Whose keys follow a header that cannot be read is not known.
    let is_sure = |place: Place| header.is_none_or(|header| place.line < header);
    mistakes
        .extend(parser.mistakes.into_iter().filter(|mistake| mistake.place.is_none_or(is_sure)));
    (if header.is_none() { config } else { Config::default() }, mistakes)
}

/// A text without the lines that are not TOML.
struct Readable {
    text: String,
    /// What is wrong with those.
    mistakes: Vec<Mistake>,
    /// The first of them that is a header.
    header: Option<usize>,
}

/// Leaves out what is not TOML line by line: the library stops at the first thing that it cannot get over, and
/// people want to hear of all that is wrong.
fn readable(text: &str, lines: &Lines<'_>) -> Readable {
    let mut readable = Readable { text: text.to_owned(), mistakes: Vec::new(), header: None };
    while readable.header.is_none() && readable.mistakes.len() <= MOST {
        let (_, errors) = DeTable::parse_recoverable(&readable.text);
        let mut is_less = false;
        for error in &errors {
            let place = lines.place(error.span().map_or(0, |span| span.start));
            readable.mistakes.push(Mistake::at(place, one_line(error.message())));
            let line = lines.range(place.line);
            let is_header = text[line.clone()].trim_start().starts_with('[');
            readable.header = readable.header.or(is_header.then_some(place.line));
            // As long as it was, so that all others keep their places.
            if readable.text[line.clone()].contains(|c: char| !c.is_whitespace()) {
                let blanks = " ".repeat(line.len());
                readable.text.replace_range(line, &blanks);
                is_less = true;
            }
        }
        if !is_less {
            break;
        }
    }
    readable
}

/// The library puts what it expected on a line of its own.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

struct Parser<'a> {
    lines: Lines<'a>,
    /// Whether nothing was left out.
    is_whole: bool,
    mistakes: Vec<Mistake>,
}

impl Parser<'_> {
    fn config(&mut self, root: &DeTable<'_>) -> Config {
        let mut config = Config::default();
        for (name, value) in root {
            let key = name.get_ref().as_ref();
            if key == CGROUP {
                config.cgroups = self.cgroups(value);
            } else if let Some(setting) = SETTINGS.iter().find(|it| it.key.name == key) {
                let read = (setting.key.read)(&mut config.settings, value.get_ref());
                self.note(value, read.map_err(|what| format!("{key}: {what}")));
            } else {
                let known = SETTINGS.iter().map(|it| it.key.name).collect::<Vec<_>>().join(", ");
                let what = format!("unknown key {key:?}: known are {known} and [[{CGROUP}]]");
                self.note(name, Err(what));
            }
        }
        config
    }

    fn cgroups(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<Entry> {
        let Some(array) = value.get_ref().as_array() else {
            let what = match value.get_ref() {
                DeValue::Table(_) => {
                    format!("write [[{CGROUP}]], in two brackets: there may be several")
                }
                other => expected(&format!("[[{CGROUP}]]"), other),
            };
            self.note(value, Err(what));
            return Vec::new();
        };
        array.iter().filter_map(|entry| self.cgroup(entry)).collect()
    }

    fn cgroup(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Entry> {
        let Some(table) = value.get_ref().as_table() else {
            self.note(value, Err(expected(&format!("a table of [[{CGROUP}]]"), value.get_ref())));
            return None;
        };
        let mut entry = Entry::default();
        entry.places.path = self.place(value);
        for (name, value) in table {
            let key = name.get_ref().as_ref();
            if let Some(field) = FIELDS.iter().find(|it| it.key.name == key) {
                *(field.place)(&mut entry.places) = self.place(value);
                let read = (field.key.read)(&mut entry, value.get_ref());
                self.note(value, read.map_err(|what| format!("{key}: {what}")));
            } else {
                let known = FIELDS.iter().map(|it| it.key.name).collect::<Vec<_>>().join(", ");
                let what = format!("unknown key {key:?} of a [[{CGROUP}]]: known are {known}");
                self.note(name, Err(what));
            }
        }
        // It may be what was left out.
        if self.is_whole && !table.contains_key("path") {
            self.note(value, Err(format!("a [[{CGROUP}]] without its path")));
        }
        Some(entry)
    }

    fn place<T>(&self, of: &Spanned<T>) -> Place {
        self.lines.place(of.span().start)
    }

    fn note<T>(&mut self, of: &Spanned<T>, read: Result<(), String>) {
        if let Err(what) = read {
            let place = self.place(of);
            self.mistakes.push(Mistake::at(place, what));
        }
    }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The bytes of a line, without its end.
    fn range(&self, line: usize) -> Range<usize> {
        let next = self.starts.get(line).map_or(self.text.len(), |next| next - 1);
        self.starts[line - 1]..next
    }

    /// Of a byte of the text, or of its end.
    fn place(&self, at: usize) -> Place {
        let line = self.starts.partition_point(|&start| start <= at);
        let start = self.starts[line - 1];
        let before = self.text.get(start..at).map_or(0, |before| before.chars().count());
        Place { line, column: before + 1 }
    }
}
