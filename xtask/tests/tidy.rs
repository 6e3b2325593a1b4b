//! Repository policy as ordinary tests: what no linter checks.

use std::fs;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

const LONGEST: usize = 350;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Every text file that is not ignored, with its path below the root.
fn files() -> Vec<(PathBuf, String)> {
    let walk = WalkBuilder::new(root())
        .hidden(false)
        .require_git(false)
        .parents(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    let paths = walk
        .map(|entry| entry.expect("a readable directory").into_path())
        .filter(|path| path.is_file());
    let text = |path: PathBuf| {
        let text = String::from_utf8(fs::read(&path).expect("a readable file")).ok()?;
        Some((path.strip_prefix(root()).expect("a path below the root").to_owned(), text))
    };
    paths.filter_map(text).collect()
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let mut files = files();
    files.retain(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(files.len() > 10, "the walk has lost its way: {} files", files.len());
    files
}

/// Fails with one line for each offence.
fn check(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// `path:line` of every line that `bad` finds.
fn lines(files: &[(PathBuf, String)], bad: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| bad(line)) {
            found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
        }
    }
    found
}

#[test]
fn rust_files_are_short() {
    let long = |(path, text): &(PathBuf, String)| {
        let count = text.lines().count();
        (count > LONGEST).then(|| format!("{}: {count} lines", path.display()))
    };
    let found: Vec<_> = rust_files().iter().filter_map(long).collect();
    check("a Rust file has at most 350 lines; split it by what it owns", &found);
}

#[test]
fn rust_files_say_what_they_own() {
    let mute = |(path, text): &(PathBuf, String)| {
        (!text.starts_with("//!")).then(|| path.display().to_string())
    };
    let found: Vec<_> = rust_files().iter().filter_map(mute).collect();
    check("a Rust file begins with `//!` and what it owns", &found);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not offend.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let found = lines(&rust_files(), |line| marks.iter().any(|mark| line.contains(mark)));
    check("do it now, or write down in the docs why not", &found);
}

#[test]
fn no_line_ends_in_blanks() {
    let licence = |path: &Path| path.to_string_lossy().starts_with("LICENSE");
    let mut files = files();
    files.retain(|(path, _)| !licence(path) && path.extension().is_none_or(|kind| kind != "snap"));
    check("blanks at the end of a line", &lines(&files, |line| line.ends_with([' ', '\t', '\r'])));
}

#[test]
fn no_path_of_one_machine() {
    let homes = [concat!("/ro", "ot"), concat!("/wo", "rk"), concat!("/home", "/")];
    let names_one = |line: &str| {
        homes.iter().any(|home| {
            line.match_indices(home).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + home.len()..].chars().next();
                let starts =
                    before.is_none_or(|c| !(c.is_alphanumeric() || "_-./}{)>*".contains(c)));
                let ends = home.ends_with('/') || after == Some('/');
                starts && ends
            })
        })
    };
    check("a path that exists on one machine only", &lines(&files(), names_one));
}
