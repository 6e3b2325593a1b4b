//! `memstock run --config`: a file has the same effect as flags, and a bad file has none.

use std::fs;

use anyhow::{Context, Result, ensure};
use memstock_tests::cgroup::{PREFIX, mount};
use memstock_tests::config::{ConfigFile, entry, limits};
use memstock_tests::poll::SOON;
use memstock_tests::process::memstock;
use memstock_tests::{Engine, TestCgroup, leftovers, live};

const USAGE: i32 = 2;

#[test]
fn a_file_does_what_the_flags_do() -> Result<()> {
    live(|| {
        let (a, c) = (TestCgroup::new()?, TestCgroup::new()?);
        let b = a.child("b")?;
        let text = format!(
            "batch = 16\nslots = 2\nmemsw = true\nobserve = true\n{}{}{}",
            entry(&b, "memory = '1M'\nmemsw = 0x200000"),
            entry(&a, "memory = '2M'"),
            entry(&c, ""),
        );
        let file = ConfigFile::new(text)?;
        let look = |engine: Engine| -> Result<String> {
            let show = engine.show()?;
            let seen: Vec<_> = [&a, &b, &c]
                .map(|cgroup| show.cgroup(cgroup.path()))
                .into_iter()
                .map(|cgroup| {
                    cgroup.map(|it| (it.id, it.parent_id, it.memory.limit, it.memsw.limit))
                })
                .collect::<Result<_>>()?;
            engine.stop()?;
            Ok(format!("{seen:?} {} {}", show.batch, show.cpus[0].slots.len()))
        };
        let by_file = look(file.start()?)?;
        let (small, large) = (format!("{}=1M", b.path()), format!("{}=2M", a.path()));
        let memsw = format!("{}=2M", b.path());
        let flags = [
            ["--cgroup", a.path(), "--cgroup", b.path(), "--cgroup", c.path()],
            ["--batch", "16", "--slots", "2", "--limit", &small],
            ["--limit", &large, "--memsw-limit", &memsw, "--memsw", "--observe"],
        ];
        let by_flags = look(Engine::start(flags.concat())?)?;
        ensure!(by_file == by_flags, "file:  {by_file}\nflags: {by_flags}");

        // Flags override the file, and cgroups of both are tracked.
        file.write(format!("batch = 16\n{}", entry(&a, "memory = '2M'")))?;
        let limit = format!("{}=3M", a.path());
        let args =
            ["--config", file.path(), "--batch", "8", "--cgroup", c.path(), "--limit", &limit];
        let engine = Engine::start(args)?;
        ensure!(engine.show()?.batch == 8, "{:?}", engine.show()?);
        engine.show()?.cgroup(c.path())?;
        ensure!(limits(&engine, &a)?[0] == Some(3 << 20), "{:?}", limits(&engine, &a)?);
        engine.stop().map(drop)
    })
}

#[test]
fn a_bad_file_does_nothing() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let below = top.child("below")?;
        let dir = mount()?.join(&top.path()[1..]).display().to_string();
        let (in_top, in_below) = (|more| entry(&top, more), |more| entry(&below, more));
        let up = format!("[[cgroup]]\npath = '/{PREFIX}no-such/../it'\n");
        let spelled = format!("[[cgroup]]\npath = '{dir}/./'\n");
        for (text, expected) in [
            (
                "memmory = 1\n".to_owned() + &in_top(""),
                vec![":1:1: unknown field `memmory`", "`cgroup`"],
            ),
            (in_top("memory = '12Q'"), vec![":3:10: \"12Q\" is not a size", "`cgroup.memory`"]),
            (in_top("") + &in_top(""), vec![":5:8: ", " again: first named in line 2"]),
            (in_top("") + &spelled, vec![":5:8: ", " again: first named in line 2"]),
            (
                in_below("memory = '2M'") + &in_top("memory = '1M'"),
                vec![":3:10: memory: 2.0MiB is above the limit of", "(1.0MiB, line 6)"],
            ),
            (
                in_top("memsw = '1M'\nmemory = '2M'"),
                vec![":3:9: memsw: ", "less (1.0MiB)", "alone (2.0MiB)"],
            ),
            (up, vec![":2:8: /", "\"..\" is not allowed"]),
            ("[[cgroup]]\npath = '/'\n".to_owned(), vec![":2:8: the root cgroup"]),
            (String::new(), vec![": nothing to track: add a [[cgroup]]"]),
            ("# nothing\n".to_owned(), vec![": nothing to track"]),
            ("\u{0}\u{1}\u{2}\u{1b}[31m".to_owned(), vec![":1:5: key with no value"]),
        ] {
            let file = ConfigFile::new(&text)?;
            refused(file.path(), 1, &expected).with_context(|| text.clone())?;
        }
        refused(
            ConfigFile::new(b"\x7fELF\xff\xfe\x00")?.path(),
            1,
            &[":1:5: a byte that is not UTF-8"],
        )?;
        refused(ConfigFile::new(vec![b'#'; 10 << 20])?.path(), 1, &["is larger than 1 MiB"])?;
        let dir = ConfigFile::new("")?;
        let dir = dir.dir().to_str().context("a path")?;
        refused(&format!("{dir}/none"), 1, &["No such file"])?;
        refused(dir, 1, &["is a directory"])?;

        // Reports one error in the text at a time, but all errors that only the host shows, in the file's order.
        let text = format!("batch = 0\n{}", in_top("x = 1\nmemory = '1X'"));
        refused(ConfigFile::new(text)?.path(), 1, &[":1:9: ", "`batch`"])?;
        let limits = in_top("memsw = '1M'\nmemory = '2M'");
        let text = format!("{limits}[[cgroup]]\npath = '/no/../such'\n");
        let expected = [":3:9: memsw: ", ":6:8: /no/../such: \"..\" is not allowed"];
        refused(ConfigFile::new(text)?.path(), 2, &expected)
    })
}

/// Checks that `run`, which changes nothing, and `--check` refuse the file with so many lines that contain `words`.
fn refused(path: &str, lines: usize, words: &[&str]) -> Result<()> {
    let before = leftovers::find()?;
    for more in [&[][..], &["--check"]] {
        let args = [&["run", "--config", path], more].concat();
        let finished = memstock(&args)?.finish(SOON)?;
        ensure!(finished.code() == USAGE && finished.stdout.is_empty(), "{finished:?}");
        ensure!(finished.stderr.lines().count() == lines, "{finished:?}");
        let is_said = |line: &str| line.starts_with("memstock: ") && line.contains(path);
        ensure!(finished.stderr.lines().all(is_said), "{finished:?}");
        ensure!(words.iter().all(|word| finished.stderr.contains(word)), "{words:?}: {finished:?}");
        let is_harmless = |c: char| c == '\n' || !c.is_control();
        ensure!(finished.stderr.chars().all(is_harmless), "{finished:?}");
    }
    ensure!(before == leftovers::find()?, "left behind");
    Ok(())
}

#[test]
fn a_sound_file_is_checked_only() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let file = ConfigFile::new(entry(&cgroup, "memory = '1M'"))?;
        let finished = memstock(["run", "--config", file.path(), "--check"])?.finish(SOON)?;
        let expected = format!("{}: no mistakes; cgroups: 1, limits: 1\n", file.path());
        ensure!(finished.code() == 0 && finished.stdout == expected, "{finished:?}");
        leftovers::nothing_held()?;
        let finished = memstock(["run", "--check"])?.finish(SOON)?;
        ensure!(finished.code() == USAGE && finished.stderr.contains("--config"), "{finished:?}");
        Ok(())
    })
}

#[test]
fn the_example_runs() -> Result<()> {
    live(|| {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/memstock.toml");
        let text = fs::read_to_string(example).context("contrib/memstock.toml")?;
        let (web, worker) = (TestCgroup::new()?, TestCgroup::new()?);
        let tasks = web.child("tasks")?;
        // Includes every key that is commented out.
        let text: String = text
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let text = text
            .replace("/system.slice/web.service/tasks", tasks.path())
            .replace("/system.slice/web.service", web.path())
            .replace("/system.slice/worker.service", worker.path());
        let file = ConfigFile::new(text)?;
        let engine = file.start()?;
        ensure!(limits(&engine, &web)?[0] == Some(2 << 30), "{:?}", limits(&engine, &web)?);
        engine.show()?.cgroup(worker.path())?;
        engine.stop().map(drop)
    })
}
