//! The help of every verb, as the binary prints it, is kept in `tests/help`, so that it changes only on purpose.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;
use memstock::cli::Cli;

const WIDTH: usize = 100;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help")
}

/// The verbs that are not hidden.
fn verbs() -> Vec<String> {
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    shown.map(|verb| verb.get_name().to_owned()).collect()
}

fn help(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memstock"));
    // The output must not depend on the terminal that runs the test.
    let output = command
        .args(args)
        .env("COLUMNS", WIDTH.to_string())
        .output()
        .expect("the binary can be started");
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("help is text");
    // clap indents the empty line before the values of an argument.
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Every page of help, with the name of its file.
fn pages() -> Vec<(String, String)> {
    let short = ("memstock-h.txt".into(), help(&["-h"]));
    let long = ("memstock.txt".into(), help(&["--help"]));
    let of_verb = |verb: String| (format!("memstock-{verb}.txt"), help(&[&verb, "--help"]));
    [short, long].into_iter().chain(verbs().into_iter().map(of_verb)).collect()
}

#[test]
fn help_is_as_it_was() {
    let bless = std::env::var_os("MEMSTOCK_BLESS").is_some();
    let mut expected = BTreeSet::new();
    let mut changed = Vec::new();
    for (name, text) in pages() {
        let file = folder().join(&name);
        if bless {
            fs::write(&file, &text).unwrap();
        } else if fs::read_to_string(&file).ok().as_ref() != Some(&text) {
            changed.push(format!("{name} should be:\n{text}"));
        }
        expected.insert(OsString::from(name));
    }
    for entry in fs::read_dir(folder()).unwrap().map(Result::unwrap) {
        if expected.contains(&entry.file_name()) {
            continue;
        }
        if bless {
            fs::remove_file(entry.path()).unwrap();
        } else {
            changed.push(format!("{} belongs to no verb", entry.path().display()));
        }
    }
    let remedy =
        "if this change is intended: `MEMSTOCK_BLESS=1 cargo test -p memstock --test help`";
    assert!(changed.is_empty(), "{}\n{remedy}", changed.join("\n"));
}

#[test]
fn help_fits_a_terminal() {
    for (name, text) in pages() {
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{name}: {line}");
            assert!(!line.contains('\u{1b}'), "{name}: {line:?}");
        }
    }
}

/// Hidden ones too: whoever finds them must be able to learn what they do.
#[test]
fn every_verb_and_flag_says_what_it_does() {
    let mut command = Cli::command();
    command.build();
    let mut mute = Vec::new();
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        if verb.get_about().is_none() {
            mute.push(verb.get_name().to_owned());
        }
        for flag in verb.get_arguments().filter(|flag| flag.get_help().is_none()) {
            mute.push(format!("{} {flag}", verb.get_name()));
        }
    }
    assert!(mute.is_empty(), "without help: {}", mute.join(", "));
}
