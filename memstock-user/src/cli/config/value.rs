//! Owns how a value of the file is read: TOML's types to ours, with an error that says which type is expected.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::model::size::parse_size;

/// A key of the file: what `T` gets from it.
pub struct Key<T> {
    /// Its name.
    pub name: &'static str,
    /// Reads its value, or says what is wrong with it.
    pub read: fn(&mut T, &DeValue<'_>) -> Result<(), String>,
}

pub fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| expected("true or false", value))
}

pub fn number(value: &DeValue<'_>, range: RangeInclusive<u32>) -> Result<u32, String> {
    let what = || format!("a number in {}..={}", range.start(), range.end());
    let integer = value.as_integer().ok_or_else(|| expected(&what(), value))?;
    let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("{} is expected, not {integer}", what()))
}

/// Pages, or none for no limit; a number is bytes.
pub fn size(value: &DeValue<'_>) -> Result<Option<u64>, String> {
    let parsed = match value {
        DeValue::String(text) => parse_size(text),
        DeValue::Integer(integer) => match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(bytes) => parse_size(&bytes.to_string()),
            Err(_) => return Err(format!("{integer} is not a number of bytes")),
        },
        value => return Err(expected("a size such as \"512M\" or \"max\"", value)),
    };
    parsed.map_err(|error| error.to_string())
}

pub fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    match value.as_str() {
        None => Err(expected("a path in quotation marks", value)),
        Some("") => Err("an empty path names no cgroup".into()),
        Some(text) if text.contains('\0') => Err("a path has no NUL in it".into()),
        Some(text) => Ok(text.into()),
    }
}

pub fn expected(what: &str, value: &DeValue<'_>) -> String {
    let found = value.type_str();
    let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{what} is expected, not {article} {found}")
}
