//! Repository policy as ordinary tests: what no linter checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

const LONGEST: usize = 350;

/// The layers of the user half, from the one that uses nobody. `exit` is everybody's.
const LAYERS: [&str; 11] = [
    "host",
    "model",
    "recording",
    "engine",
    "forecast",
    "journal",
    "audit",
    "enforce",
    "daemon",
    "view",
    "cli",
];

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

/// Modules of the user half, as `engine::load` or `engine`, and those that each uses, with the file that does.
fn uses() -> BTreeMap<String, BTreeMap<String, String>> {
    let files: Vec<_> = rust_files()
        .into_iter()
        .filter_map(|(path, text)| {
            let inside = path.strip_prefix("memstock-user/src").ok()?.with_extension("");
            let mut names: Vec<_> =
                inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            names.pop_if(|name| name == "mod");
            // What tests use is no arrow.
            let code = text.split("#[cfg(test)]\nmod tests").next()?;
            let code: Vec<_> =
                code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            (!names.iter().any(|name| name == "tests")).then(|| (path, names, code.join("\n")))
        })
        .collect();
    let modules: BTreeSet<_> = files.iter().map(|(_, names, _)| short(names)).collect();
    let mut uses = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (path, names, code) in &files {
        for (at, _) in code.match_indices("crate::") {
            let used = named(&code[at + "crate::".len()..], &modules);
            uses.entry(short(names)).or_default().insert(used, path.display().to_string());
        }
        for (at, _) in code.match_indices("super::") {
            // Behind another `super::` it is a part of that.
            if code[..at].ends_with("super::") || names.len() < 2 {
                continue;
            }
            let (mut rest, mut above) = (&code[at..], &names[..]);
            while let Some(more) = rest.strip_prefix("super::") {
                (rest, above) = (more, above.split_last().map_or(&[][..], |(_, above)| above));
            }
            let used = named(&[&above.join("::"), "::", rest].concat(), &modules);
            uses.entry(short(names)).or_default().insert(used, path.display().to_string());
        }
    }
    uses.values_mut().for_each(|used| used.retain(|name, _| !name.is_empty()));
    uses.iter_mut().for_each(|(name, used)| drop(used.remove(name)));
    uses
}

/// A module and the one in it.
fn short(names: &[String]) -> String {
    names[..names.len().min(2)].join("::")
}

/// The module that a path begins with.
fn named(path: &str, modules: &BTreeSet<String>) -> String {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = path.split("::").map(|word| word.split(|c| !is_name(c)).next().unwrap_or(word));
    let first = names.next().unwrap_or_default().to_owned();
    let both = names.next().map(|second| format!("{first}::{second}"));
    both.filter(|both| modules.contains(both)).unwrap_or(first)
}

#[test]
fn arrows_point_down() {
    let layer = |module: &str| {
        let first = module.split("::").next().unwrap_or(module);
        LAYERS.iter().position(|&layer| layer == first)
    };
    let mut files = rust_files();
    files.retain(|(path, _)| path.starts_with("memstock-user/src"));
    check(
        "a path of the crate a line, so that it can be read here",
        &lines(&files, |line| line.contains("use crate::{")),
    );
    let uses = uses();
    assert!(uses.len() > 50, "the walk has lost its way: {} modules", uses.len());
    let mut found = Vec::new();
    for (module, used) in &uses {
        let own = layer(module);
        let is_up = |other: &str| own.zip(layer(other)).is_some_and(|(own, other)| other > own);
        let up = used.iter().filter(|(other, _)| is_up(other));
        found.extend(up.map(|(other, path)| format!("{path}: {module} uses {other}")));
        let first = module.split("::").next().unwrap_or(module);
        if own.is_none() && !["lib", "main", "exit"].contains(&first) {
            found.push(format!("{module} is in no layer"));
        }
    }
    check("a module uses only those of its own layer and of those below", &found);
}

#[test]
fn modules_go_round_in_no_circle() {
    let mut uses = uses();
    // Whoever uses nobody that is left, or is used by nobody, is in no circle.
    loop {
        let left: BTreeSet<_> = uses.keys().cloned().collect();
        uses.values_mut().for_each(|used| used.retain(|name, _| left.contains(name)));
        let used: BTreeSet<_> = uses.values().flat_map(BTreeMap::keys).cloned().collect();
        uses.retain(|name, uses| !uses.is_empty() && used.contains(name));
        if uses.len() == left.len() {
            break;
        }
    }
    let found: Vec<_> = uses
        .iter()
        .flat_map(|(module, used)| used.keys().map(move |other| format!("{module} uses {other}")))
        .collect();
    check("modules that use each other, by whatever way, are one", &found);
}
