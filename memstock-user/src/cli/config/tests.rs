//! The text alone: keys, mistakes and their positions; and how a file is merged with flags.

use super::*;
use crate::host::workload::Kind;
use proptest::prelude::*;

/// The mistake in a text, as printed after the name of the file.
fn mistake(text: impl AsRef<[u8]>) -> String {
    let (at, what) = parse(text.as_ref()).unwrap_err();
    let (line, column) = place(&String::from_utf8_lossy(text.as_ref()), at);
    format!("{line}:{column}: {what}")
}

#[test]
fn all_keys_are_read() {
    let text = "\
        batch = 64\nslots = 0x2\nmax-cgroups = 2000\nmemsw = true\nobserve = true\noom-group = true\nno-adopt = true\n\
        no-drain = true\nmetrics = 9464\nkernel-stock = true\n\
        [[cgroup]]\npath = '/a b'\nmemory = \"1M\"\nmemsw = 2_097_152\n\
        [[cgroup]]\npath = \"/c\"\nmemory = \"max\"\nmemsw = 0xffff_ffff_ffff_ffff\n";
    let settings = parse(text.as_bytes()).unwrap();
    let [a, c] = &settings.cgroups[..] else { panic!("{settings:?}") };
    let limit = |of: &Option<Spanned<Size>>| of.as_ref().map(|size| size.get_ref().0);
    let pages = |bytes: u64| Some(Some(bytes / rustix::param::page_size() as u64));
    assert_eq!(a.path().unwrap().get_ref(), Path::new("/a b"));
    assert_eq!((limit(&a.memory), limit(&a.memsw)), (pages(1 << 20), pages(2 << 20)));
    assert_eq!((limit(&c.memory), limit(&c.memsw)), (Some(None), Some(None)));
    let at = |of: &Option<Spanned<Size>>| of.as_ref().map(|size| place(text, size.span().start));
    assert_eq!(
        (place(text, c.path().unwrap().span().start), at(&c.memory)),
        ((16, 8), Some((17, 10)))
    );
    let expected = Settings {
        batch: Some(64),
        slots: Some(2),
        max_cgroups: Some(2000),
        memsw: true,
        observe: true,
        oom_group: true,
        no_adopt: true,
        no_drain: true,
        metrics: Some("127.0.0.1:9464".parse().unwrap()),
        kernel_stock: true,
        cgroups: settings.cgroups.clone(),
    };
    assert_eq!(settings, expected);
    assert_eq!(parse(b"").unwrap(), Settings::default());
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_key() {
    let not_a_size = "is not a size: give a number of bytes with an optional suffix K, M, G, T, P or \
                      E, or \"max\"";
    for (text, expected) in [
        (
            "btch = 1",
            "1:1: unknown field `btch`, expected one of `batch`, `slots`, `max-cgroups`, `memsw`, \
             `observe`, `oom-group`, `no-adopt`, `no-drain`, `metrics`, `kernel-stock`, \
             `cgroup`",
        ),
        ("\n\n  batch = 5000", "3:11: not a number in 1..=1024, in `batch`"),
        (
            "batch = true",
            "1:9: invalid type: boolean `true`, expected a number or a string, in `batch`",
        ),
        ("slots = 65", "1:9: not a number in 1..=64, in `slots`"),
        ("[[cgroup]]\npath = '/a'\nmemory = -1", "3:10: a negative number, in `cgroup.memory`"),
        ("max-cgroups = 16385", "1:15: not a number in 1..=16384, in `max-cgroups`"),
        ("observe = 1", "1:11: invalid type: integer `1`, expected a boolean, in `observe`"),
        (
            "[cgroup]\npath = '/a'",
            "1:1: invalid type: map, expected [[cgroup]] in two brackets, in `cgroup`",
        ),
        (
            "[[cgroup]]\nmemory = '1M'",
            "1:1: a cgroup needs one of `path`, `container`, `pod`, `unit`, in `cgroup`",
        ),
        (
            "[[cgroup]]\npath = 7",
            "2:8: invalid type: integer `7`, expected path string, in `cgroup.path`",
        ),
        (
            "[[cgroup]]\npath = '/a'\nmemory = '12Q'",
            &format!("3:10: \"12Q\" {not_a_size}, in `cgroup.memory`"),
        ),
        (
            "[[cgroup]]\npath = '/é'\nmemory = '1M'; limit = '1M'",
            "3:14: unexpected key or value, expected newline, `#`",
        ),
        (
            "[[cgroup]]\npath = '/é'\nlimit = '1M'",
            "3:1: unknown field `limit`, expected one of `path`, `container`, `pod`, `unit`, `memory`, `memsw`, in `cgroup`",
        ),
        ("batch = 1\nbatch = 2", "2:1: duplicate key"),
    ] {
        assert_eq!(mistake(text), expected, "{text:?}");
    }
    let binary = "2:2: a byte that is not UTF-8: a configuration is text in TOML";
    assert_eq!(mistake(b"#\n\xc3\xa9\xff"), binary);
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
        ("large", "is larger than 1 MiB, the most that is read"),
    ] {
        assert_eq!(read(&at(name)), Err(what.to_owned()));
    }
    assert_eq!(read(&at("full")).map(|text| text.len()), Ok(1 << 20));
}

#[test]
fn flags_win_over_the_file() {
    use clap::Parser as _;
    let args = ["memstock", "run", "--batch", "8", "--cgroup", "/f", "--limit", "/a=1M"];
    let cli = crate::cli::Cli::try_parse_from(args).unwrap();
    let crate::cli::Verb::Run(flags) = cli.verb else { panic!("{cli:?}") };
    let text = "batch = 64\nslots = 4\nobserve = true\n\
                [[cgroup]]\npath = '/a'\nmemory = '2M'\n";
    let run = below(&parse(text.as_bytes()).unwrap(), &flags, &[]);
    let Settings { batch, slots, observe, memsw, .. } = run.settings;
    assert_eq!((batch, slots, observe, memsw), (Some(8), Some(4), true, false));
    assert_eq!(run.cgroups, [Path::new("/f"), Path::new("/a")]);
    let limits: Vec<_> = run.limits.iter().map(|limit| limit.nr_pages.unwrap()).collect();
    let pages = |bytes: u64| bytes / rustix::param::page_size() as u64;
    assert_eq!(limits, [pages(2 << 20), pages(1 << 20)], "the last one holds");
}

#[test]
fn names_are_paths_where_they_are_known() {
    let flags = Run::default();
    let text = "[[cgroup]]\ncontainer = 'shop/*/api'\nmemory = '1M'\n\
                [[cgroup]]\nunit = 'nginx'\n\
                [[cgroup]]\npath = '/b'\nmemory = '2M'\n";
    let settings = parse(text.as_bytes()).unwrap();
    assert!(settings.has_names() && !Settings::default().has_names());
    let api = |path: &str, pod: &str| {
        let name = format!("shop/{pod}/api");
        let [pod, namespace, container] = [pod, "shop", "api"].map(|name| Some(name.to_owned()));
        let workload = Workload { kind: Kind::Container, name, pod, namespace, container };
        (Cgroup { path: path.into(), dir: path.into(), id: 1 }, workload)
    };
    let found = [api("/a", "web-0"), api("/b", "web-1")];
    let run = below(&settings, &flags, &found);
    assert_eq!(run.cgroups, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(run.by_name.iter().collect::<Vec<_>>(), [Path::new("/a"), Path::new("/b")]);
    let limits: Vec<_> =
        run.limits.iter().map(|limit| (limit.cgroup.as_deref(), limit.nr_pages)).collect();
    let pages = |bytes: u64| Some(bytes / rustix::param::page_size() as u64);
    let [a, b] = ["/a", "/b"].map(|path| Some(Path::new(path)));
    // The last one wins: the one named by its path.
    assert_eq!(limits, [(a, pages(1 << 20)), (b, pages(1 << 20)), (b, pages(2 << 20))]);
    assert_eq!(below(&settings, &flags, &[]).cgroups, [Path::new("/b")]);
}

#[test]
fn only_some_settings_change_while_it_runs() {
    let old = Settings { batch: Some(32), ..Settings::default() };
    let new = Settings { batch: Some(64), observe: true, ..Settings::default() };
    let changes: Vec<_> = old.changes(&new).collect();
    let [batch, observe] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((&*batch.0, &*batch.1, &*batch.2), ("batch", "32", "64"));
    assert_eq!((&*observe.0, &*observe.1, &*observe.2), ("observe", "false", "true"));
    assert_eq!(new.while_running(&old), Settings { observe: true, ..old });
}

proptest! {
    #[test]
    fn what_is_wrong_is_one_line(
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
        let text = parts.concat();
        if let Err((at, what)) = parse(text.as_bytes()) {
            assert!(at <= text.len() && !what.contains('\n'), "{what:?}");
        }
    }
}
