//! Formats a record as one line for people, `event: KIND key=value …`, with the names of the JSON form. Owns the
//! quoting; `record` owns the contents.
//!
//! A value with white space or a quotation mark is quoted, and quotation marks within become `\x22`. So a line can be
//! split at the white space outside quotation marks, whatever a cgroup or a task is called.

use std::fmt;

use serde_json::{Map, Value};

use super::record::{Entry, Record};
use crate::exit::printable;

/// Stands for the path of a cgroup that has none.
const REMOVED: &str = "removed";

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seq={} time={}", self.record, self.seq, self.time)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A record is a struct of integers and strings, so it has a JSON form.
        let Ok(Value::Object(fields)) = serde_json::to_value(self) else { return Err(fmt::Error) };
        let kind = fields.get("kind").and_then(Value::as_str).ok_or(fmt::Error)?;
        write!(f, "event: {kind}")?;
        for (key, value) in fields.iter().filter(|(key, _)| *key != "kind") {
            write!(f, " {key}={}", quoted(&text(value)))?;
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "all".into(),
        Value::String(text) => printable(text),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Object(parts) => named(parts),
        value => value.to_string(),
    }
}

/// A cgroup by its path, after its name if it has one; a CPU's pages as `CPU:PAGES`.
fn named(parts: &Map<String, Value>) -> String {
    let name = parts.get("name").and_then(|name| name["name"].as_str());
    match (parts.get("path"), parts.get("cpu"), parts.get("nr_pages")) {
        (Some(Value::String(path)), ..) => match name {
            Some(name) => format!("{} ({})", printable(name), printable(path)),
            None => printable(path),
        },
        (None, Some(cpu), Some(nr_pages)) => format!("{cpu}:{nr_pages}"),
        _ => format!("({REMOVED}, id {})", parts.get("id").unwrap_or(&Value::Null)),
    }
}

fn quoted(value: &str) -> String {
    if value.is_empty() || value.contains(|c: char| c.is_whitespace() || c == '"') {
        format!("\"{}\"", value.replace('"', "\\x22"))
    } else {
        value.to_owned()
    }
}
