//! The text alone: keys, mistakes and their places, garbage; and how a file goes together with flags.

use super::*;
use crate::cli::Batch;
use crate::exit::{Faults, exit_code};
use proptest::prelude::*;

/// The mistakes that show in the text alone, as they read after the name of the file.
fn mistakes(text: impl AsRef<[u8]>) -> Vec<String> {
    let (_, mut mistakes) = parse::parse(text.as_ref());
    mistakes.sort();
    mistakes.iter().map(ToString::to_string).collect()
}

fn lines(error: &anyhow::Error) -> Vec<String> {
    assert_eq!(exit_code(error), 2);
    error.downcast_ref::<Faults>().unwrap().lines.clone()
}

#[test]
fn all_keys_are_read() {
    let text = "\
        batch = 64\nslots = 0x2\nmax-cgroups = 2000\nmemsw = true\nobserve = true\noom-group = true\nno-adopt = true\n\
        no-drain = true\nmetrics = 9464\n\
        [[cgroup]]\npath = '/a b'\nmemory = \"1M\"\nmemsw = 2_097_152\n\
        [[cgroup]]\npath = \"/c\"\nmemory = \"max\"\n";
    let (config, mistakes) = parse::parse(text.as_bytes());
    assert_eq!(mistakes, []);
    let settings = Settings {
        batch: Some(Batch::Pages(64)),
        slots: Some(2),
        max_cgroups: Some(2000),
        memsw: true,
        observe: true,
        oom_group: true,
        no_adopt: true,
        no_drain: true,
        metrics: Some("127.0.0.1:9464".parse().unwrap()),
    };
    assert_eq!(config.settings, settings);
    let pages = |bytes: u64| Some(Some(bytes / rustix::param::page_size() as u64));
    let [a, c] = &config.cgroups[..] else { panic!("{config:?}") };
    assert_eq!(
        (a.path.to_str(), a.memory, a.memsw),
        (Some("/a b"), pages(1 << 20), pages(2 << 20))
    );
    assert_eq!((c.memory, c.memsw), (Some(None), None));
    assert_eq!((c.places.path, c.places.memory.line), (Place { line: 15, column: 8 }, 16));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    const KNOWN: &str = "batch, slots, max-cgroups, memsw, observe, oom-group, no-adopt, no-drain, metrics and [[cgroup]]";
    let unknown = format!("1:1: unknown key \"btch\": known are {KNOWN}");
    let not_a_size = "is not a size: give a number of bytes with an optional suffix K, M, G, T, P or \
                      E, or \"max\"";
    for (text, expected) in [
        ("btch = 1", unknown.as_str()),
        ("batch = 0", "1:9: batch: a number in 1..=1024 is expected, not 0"),
        ("\n\n  batch = 5000", "3:11: batch: a number in 1..=1024 is expected, not 5000"),
        ("batch = '32'", "1:9: batch: a number in 1..=1024 is expected, not a string"),
        ("slots = 3", "1:9: slots: 3 is not a power of two"),
        ("slots = -1", "1:9: slots: a number in 1..=64 is expected, not -1"),
        ("max-cgroups = 16385", "1:15: max-cgroups: a number in 1..=16384 is expected, not 16385"),
        ("observe = 1", "1:11: observe: true or false is expected, not an integer"),
        ("cgroup = '/a'", "1:10: [[cgroup]] is expected, not a string"),
        ("cgroup = ['/a']", "1:11: a table of [[cgroup]] is expected, not a string"),
        ("[cgroup]\npath = '/a'", "1:1: write [[cgroup]], in two brackets: there may be several"),
        ("[[cgroup]]\nmemory = '1M'", "1:1: a [[cgroup]] without its path"),
        ("[[cgroup]]\npath = ''", "2:8: path: an empty path names no cgroup"),
        ("[[cgroup]]\npath = \"/a\\u0000\"", "2:8: path: a path has no NUL in it"),
        (
            "[[cgroup]]\npath = 7",
            "2:8: path: a path in quotation marks is expected, not an integer",
        ),
        ("[[cgroup]]\npath = '/a'\nmemory = '12Q'", &format!("3:10: memory: \"12Q\" {not_a_size}")),
        ("[[cgroup]]\npath = '/a'\nmemory = -1", "3:10: memory: -1 is not a number of bytes"),
        (
            "[[cgroup]]\npath = '/a'\nmemory = 1.5",
            "3:10: memory: a size such as \"512M\" or \"max\" is expected, not a float",
        ),
        (
            "[[cgroup]]\npath = '/é'\nlimit = '1M'",
            "3:1: unknown key \"limit\" of a [[cgroup]]: known are path, memory, memsw",
        ),
        ("a\0b", "1:2: a NUL byte: a configuration is text in TOML"),
    ] {
        assert_eq!(mistakes(text), [expected], "{text:?}");
    }
    let binary = "2:2: a byte that is not UTF-8: a configuration is text in TOML";
    assert_eq!(mistakes(b"#\n\xc3\xa9\xff"), [binary]);
    assert_eq!(mistakes(""), Vec::<String>::new());
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let text = "batch = 0\nnonsense\n[[cgroup]]\npath = 3\nmemory = '1X'\nbatch = 1\n\
                [[cgroup]]\npath = '/a'\npath = '/b'\n";
    let found = mistakes(text);
    let places: Vec<_> = found.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(places, ["1", "2", "4", "5", "6", "9"], "{found:#?}");
    assert!(found[1].contains("expected"), "{found:#?}");
    assert!(found[5].contains("duplicate"), "{found:#?}");

    // A path that cannot be read is no path that is missing, and the rest is looked at on the host.
    let (config, found) = parse::parse(b"[[cgroup]]\npath '/a'\n[[cgroup]]\npath = '/b'\n");
    assert_eq!((found.len(), config.cgroups.len()), (1, 2), "{found:#?}");

    // What follows a header that cannot be read may be anybody's.
    let found = mistakes("batch = 0\n[[cgroup]\npath = 3\nmemory = '1X'\n");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[1].starts_with("2:"), "{found:#?}");
}

#[test]
fn files_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("large"), vec![b'#'; 10 << 20]).unwrap();
    std::fs::write(at("full"), vec![b'#'; 1 << 20]).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::RUSR).unwrap();
    for (name, what) in [
        ("missing", "cannot be read: No such file or directory (os error 2)"),
        (".", "is a directory: name a TOML file"),
        ("fifo", "is not a regular file: name a TOML file"),
        ("large", "is larger than 1 MiB, which no configuration is"),
    ] {
        assert_eq!(read(&at(name)), Err(what.to_owned()));
    }
    assert_eq!(read(&at("full")).map(|text| text.len()), Ok(1 << 20));
}

#[test]
fn not_more_lines_than_people_read() {
    let text: String = (0..100).map(|n| format!("key{n} = 1\n")).collect();
    let (_, mistakes) = parse::parse(text.as_bytes());
    assert_eq!(mistakes.len(), 100);
    let lines = lines(&refuse(Path::new("/x\n.toml"), mistakes));
    assert_eq!(lines.len(), 21);
    assert!(lines[0].starts_with("/x\\x0a.toml:1:1: unknown key \"key0\""), "{}", lines[0]);
    assert_eq!(lines[20], "/x\\x0a.toml: and 80 more mistakes");
}

#[test]
fn flags_win_over_the_file() {
    use clap::Parser as _;
    let args = ["memstock", "run", "--batch", "8", "--cgroup", "/f", "--limit", "/a=1M"];
    let cli = crate::cli::Cli::try_parse_from(args).unwrap();
    let crate::cli::Verb::Run(flags) = cli.verb else { panic!("{cli:?}") };
    let text = "batch = 64\nslots = 4\nobserve = true\n\
                [[cgroup]]\npath = '/a'\nmemory = '2M'\n";
    let run = parse::parse(text.as_bytes()).0.below(&flags);
    assert_eq!(
        (run.batch, run.slots, run.observe, run.memsw),
        (Some(Batch::Pages(8)), Some(4), true, false)
    );
    assert_eq!(run.cgroups, [Path::new("/f"), Path::new("/a")]);
    let limits: Vec<_> = run.limits.iter().map(|limit| limit.nr_pages.unwrap()).collect();
    let pages = |bytes: u64| bytes / rustix::param::page_size() as u64;
    assert_eq!(limits, [pages(2 << 20), pages(1 << 20)], "the last one holds");
}

#[test]
fn only_some_settings_change_while_it_runs() {
    let old = Settings { batch: Some(Batch::Pages(32)), ..Settings::default() };
    let new = Settings { batch: Some(Batch::Pages(64)), observe: true, ..Settings::default() };
    let changes: Vec<_> = old.changes(&new).collect();
    let [batch, observe] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((batch.0, &*batch.1, &*batch.2), ("batch", "32", "64"));
    assert_eq!((observe.0, &*observe.1, &*observe.2), ("observe", "false", "true"));
    let running = new.while_running(&old);
    assert_eq!(running, Settings { observe: true, ..old });
    assert_eq!(running.value("batch").as_deref(), Some("32"));
}

/// What comes out is a line each, whatever goes in.
fn check_lines(text: &[u8]) {
    let (_, mistakes) = parse::parse(text);
    for line in mistakes.iter().map(ToString::to_string) {
        let shown = crate::exit::printable(&line);
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(!line.contains('\n'), "{line:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it(text in prop::collection::vec(any::<u8>(), 0..400)) {
        check_lines(&text);
    }

    #[test]
    fn no_text_breaks_it(
        parts in prop::collection::vec(
            prop_oneof![
                Just("[[cgroup]]\n".to_owned()), Just("path".to_owned()), Just(" = ".to_owned()),
                Just("batch".to_owned()), Just("\"".to_owned()), Just("'''".to_owned()),
                Just("\n".to_owned()), Just("{".to_owned()), Just("[".to_owned()),
                Just("\\u00e9".to_owned()), any::<char>().prop_map(String::from), "[a-z0-9.]{1,4}",
            ],
            0..60,
        )
    ) {
        check_lines(parts.concat().as_bytes());
    }
}
