//! Text to model: every mistake that shows in the file alone. Asks nothing of the host.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::entry::{Entry, FIELDS};
use super::mistake::{Mistake, Place};
use super::settings::SETTINGS;
use super::value::expected;

/// The key of the cgroups.
const CGROUP: &str = "cgroup";

/// What the file says as far as it can be understood, and all that is wrong with it.
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
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut parser = Parser { lines, mistakes: Vec::new() };
    let config = parser.config(root.get_ref());
    let is_whole = errors.is_empty();
    let Parser { lines, mut mistakes } = parser;
    let mut wrong = BTreeSet::new();
    let syntax: Vec<_> = errors
        .iter()
        .map(|error| {
            let place = lines.place(error.span().map_or(0, |span| span.start));
            wrong.insert(place.line);
            Mistake::at(place, one_line(error.message()))
        })
        .collect();
    // What the parser made of a line that it could not read says nothing.
    mistakes.retain(|mistake| mistake.place.is_none_or(|place| !wrong.contains(&place.line)));
    mistakes.extend(syntax);
    (if is_whole { config } else { Config::default() }, mistakes)
}

/// The library puts what it expected on a line of its own.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

struct Parser<'a> {
    lines: Lines<'a>,
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
        if !table.contains_key("path") {
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

    /// Of a byte of the text, or of its end.
    fn place(&self, at: usize) -> Place {
        let line = self.starts.partition_point(|&start| start <= at);
        let start = self.starts[line - 1];
        let before = self.text.get(start..at).map_or(0, |before| before.chars().count());
        Place { line, column: before + 1 }
    }
}
