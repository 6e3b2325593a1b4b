//! `memstock run --config`: a file has the effect of the flags, a bad one none at all, and SIGHUP has it read
//! again.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use memstock_tests::cgroup::{PREFIX, mount};
use memstock_tests::engine::Event;
use memstock_tests::hog::Wish;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::show::Cgroup;
use memstock_tests::{Engine, PAGE, TestCgroup, events, leftovers, live, lru};
use rustix::process::Signal;
use tempfile::TempDir;

const USAGE: i32 = 2;

/// A configuration file of a test.
struct File {
    dir: TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: impl AsRef<[u8]>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = Self { path: dir.path().join("memstock.toml"), dir };
        file.write(text)?;
        Ok(file)
    }

    fn write(&self, text: impl AsRef<[u8]>) -> Result<()> {
        fs::write(&self.path, text).context("the configuration")
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }
}

fn entry(cgroup: &TestCgroup, more: &str) -> String {
    format!("[[cgroup]]\npath = \"{}\"\n{more}\n", cgroup.path())
}

fn start(file: &File) -> Result<Engine> {
    Engine::start(["--config", file.path()])
}

/// Sends SIGHUP, and gives what was told of it: the changes, and what sums up.
fn reload(engine: &mut Engine) -> Result<(Vec<Event>, Event)> {
    let is_end = |event: &Event| ["config-reloaded", "config-refused"].contains(&&*event.kind);
    let before = engine.events()?.len();
    engine.process().signal(Signal::HUP)?;
    try_poll_until(SOON, "the news of a reload", || {
        ensure!(engine.process().ended()?.is_none(), "the daemon has ended");
        let mut events = engine.events()?.split_off(before);
        let Some(end) = events.iter().position(is_end) else { return Ok(None) };
        let sum = events.swap_remove(end);
        events.retain(|event| event.kind == "config-changed");
        Ok(Some((events, sum)))
    })
}

/// Those of a change that every one has.
fn parts(event: &Event) -> [&str; 5] {
    ["cgroup", "key", "from", "to", "outcome"].map(|key| event.field(key))
}

fn left_nothing() -> Result<()> {
    let left = leftovers::pins_and_lock();
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(())
}

fn limits(engine: &Engine, cgroup: &TestCgroup) -> Result<[Option<u64>; 2]> {
    let show = engine.show()?;
    let Cgroup { memory, memsw, .. } = show.cgroup(cgroup.path())?;
    Ok([memory.limit, memsw.limit])
}

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
        let file = File::new(text)?;
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
        let by_file = look(start(&file)?)?;
        let (small, large) = (format!("{}=1M", b.path()), format!("{}=2M", a.path()));
        let memsw = format!("{}=2M", b.path());
        let flags = [
            ["--cgroup", a.path(), "--cgroup", b.path(), "--cgroup", c.path()],
            ["--batch", "16", "--slots", "2", "--limit", &small],
            ["--limit", &large, "--memsw-limit", &memsw, "--memsw", "--observe"],
        ];
        let by_flags = look(Engine::start(flags.concat())?)?;
        ensure!(by_file == by_flags, "file:  {by_file}\nflags: {by_flags}");

        // Flags win, and cgroups of both are tracked.
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
        let missing = format!("[[cgroup]]\npath = '/{PREFIX}no-such'\n");
        let spelled = format!("[[cgroup]]\npath = '{dir}/./'\n");
        for (text, expected) in [
            ("memmory = 1\n".to_owned() + &in_top(""), vec![":1:1: unknown key \"memmory\""]),
            (in_top("memory = '12Q'"), vec![":3:10: memory: \"12Q\" is not a size"]),
            (in_top("") + &in_top(""), vec![":5:8: ", " again: line 2 has it"]),
            (in_top("") + &spelled, vec![":5:8: ", " again: line 2 has it"]),
            (
                in_below("memory = '2M'") + &in_top("memory = '1M'"),
                vec![":3:10: memory: 2.0MiB is above the limit of", "(1.0MiB, line 6)"],
            ),
            (
                in_top("memsw = '1M'\nmemory = '2M'"),
                vec![":3:9: memsw: ", "less (1.0MiB)", "alone (2.0MiB)"],
            ),
            (missing, vec![":2:8: no cgroup /", "no-such"]),
            ("[[cgroup]]\npath = '/'\n".to_owned(), vec![":2:8: the root cgroup"]),
            (in_top("kernel-cgroup = '/no/such'"), vec![":3:17: "]),
            (String::new(), vec![": nothing to track: add a [[cgroup]]"]),
            ("# nothing\n".to_owned(), vec![": nothing to track"]),
            ("\u{0}\u{1}\u{2}\u{1b}[31m".to_owned(), vec![":1:1: a NUL byte"]),
        ] {
            let file = File::new(&text)?;
            refused(&file, 1, &expected).with_context(|| text.clone())?;
        }
        refused(&File::new(b"\x7fELF\xff\xfe\x00")?, 1, &[":1:5: a byte that is not UTF-8"])?;
        refused(&File::new(vec![b'#'; 10 << 20])?, 1, &["is larger than 1 MiB"])?;
        let file = File::new("")?;
        refused(&File { path: file.dir.path().join("none"), ..file }, 1, &["No such file"])?;
        let file = File::new("")?;
        refused(&File { path: file.dir.path().into(), ..file }, 1, &["is a directory"])?;

        // All of them at once, in the order of the file.
        let text = format!("batch = 0\n{}nonsense\n", in_top("memory = '1X'\nmemsw = true"));
        let expected = [":1:9: batch", ":4:10: memory", ":5:9: memsw"];
        refused(&File::new(text.replace("nonsense", "limit = 1"))?, 4, &expected)
    })
}

/// So many lines that have `words`, twice: by `run`, which leaves everything as it was, and by `--check`.
fn refused(file: &File, lines: usize, words: &[&str]) -> Result<()> {
    let before = leftovers::find()?;
    for more in [&[][..], &["--check"]] {
        let args = [&["run", "--config", file.path()], more].concat();
        let finished = memstock(&args)?.finish(SOON)?;
        ensure!(finished.code() == USAGE && finished.stdout.is_empty(), "{finished:?}");
        ensure!(finished.stderr.lines().count() == lines, "{finished:?}");
        let is_said = |line: &str| line.starts_with("memstock: ") && line.contains(file.path());
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
        let file = File::new(entry(&cgroup, "memory = '1M'"))?;
        let finished = memstock(["run", "--config", file.path(), "--check"])?.finish(SOON)?;
        let expected = format!("{}: no mistakes; cgroups: 1, limits: 1\n", file.path());
        ensure!(finished.code() == 0 && finished.stdout == expected, "{finished:?}");
        left_nothing()?;
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
        // Every key that stands there as a comment, too, but those that this host may not know.
        let text: String = text
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .filter(|line| !line.starts_with("kernel-cgroup"))
            .map(|line| format!("{line}\n"))
            .collect();
        let text = text
            .replace("/system.slice/web.service/tasks", tasks.path())
            .replace("/system.slice/web.service", web.path())
            .replace("/system.slice/worker.service", worker.path());
        let file = File::new(text)?;
        let engine = start(&file)?;
        ensure!(limits(&engine, &web)?[0] == Some(2 << 30), "{:?}", limits(&engine, &web)?);
        engine.show()?.cgroup(worker.path())?;
        engine.stop().map(drop)
    })
}

#[test]
fn a_file_is_read_again() -> Result<()> {
    live(|| {
        let (a, b) = (TestCgroup::new()?, TestCgroup::new()?);
        let (path_a, path_b) = (a.path(), b.path());
        let file = File::new(entry(&a, "memory = '2M'"))?;
        let mut engine = start(&file)?;

        let (changes, sum) = reload(&mut engine)?;
        ensure!(changes.is_empty() && sum.field("done") == "0", "{changes:?} {sum:?}");

        // One is changed, one added with one below it, and a setting cannot be had.
        let below = b.child("below")?;
        file.write(format!(
            "batch = 64\noom-group = true\n{}{}",
            entry(&a, "memory = '3M'"),
            entry(&b, "memory = '4M'"),
        ))?;
        let (changes, sum) = reload(&mut engine)?;
        let changes: Vec<_> = changes.iter().map(parts).collect();
        let expected = [
            ["", "batch", "32", "64", "needs-restart"],
            ["", "oom-group", "false", "true", "done"],
            [path_a, "memory", "2097152", "3145728", "done"],
            [path_b, "cgroup", "absent", "named", "done"],
        ];
        ensure!(changes == expected, "{changes:#?}");
        ensure!((sum.field("done"), sum.field("needs_restart")) == ("3", "1"), "{sum:?}");
        ensure!(limits(&engine, &a)?[0] == Some(3 << 20), "{:?}", limits(&engine, &a)?);
        ensure!(limits(&engine, &b)?[0] == Some(4 << 20), "{:?}", limits(&engine, &b)?);
        engine.show()?.cgroup(below.path())?;
        Wish::pages(64).start(&below)?.has_all()?;
        ensure!(
            engine.show()?.cgroup(below.path())?.faults > 0,
            "nothing is charged below the new one"
        );

        // A mistake changes nothing.
        file.write(format!("batch = x\n{}", entry(&a, "memory = '1M'")))?;
        let (changes, sum) = reload(&mut engine)?;
        ensure!(changes.is_empty() && sum.kind == "config-refused", "{changes:?} {sum:?}");
        ensure!(sum.field("mistakes") == "1", "{sum:?}");
        let said = format!("memstock: {}:1:9: ", file.path());
        ensure!(engine.stderr()?.contains(&said), "no {said}");
        ensure!(limits(&engine, &a)?[0] == Some(3 << 20), "{:?}", limits(&engine, &a)?);

        // One is named no more: its limit goes, and it stays. The batch is told of again, as it is not had.
        memstock(["limit", path_a, "--memory", "5M"])?.finish(SOON)?;
        file.write(format!("batch = 64\n{}", entry(&a, "memory = '3M'")))?;
        let (changes, _) = reload(&mut engine)?;
        let changes: Vec<_> = changes.iter().map(parts).collect();
        let expected = [
            ["", "batch", "32", "64", "needs-restart"],
            ["", "oom-group", "true", "false", "done"],
            [path_b, "cgroup", "named", "absent", "done"],
            [path_b, "memory", "4194304", "max", "done"],
            // Somebody has changed it meanwhile.
            [path_a, "memory", "5242880", "3145728", "done"],
        ];
        ensure!(changes == expected, "{changes:#?}");
        ensure!(limits(&engine, &b)?[0].is_none(), "{:?}", limits(&engine, &b)?);

        // The stream has them all.
        let kinds = ["config-changed", "config-reloaded", "config-refused"];
        let counts = kinds
            .map(|kind| events::read().map(|all| all.iter().filter(|r| r.kind() == kind).count()));
        let counts = counts.into_iter().collect::<Result<Vec<_>>>()?;
        ensure!(counts == [9, 3, 1], "{counts:?}");
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

#[test]
fn a_limit_below_the_usage_is_refused_and_tried_again() -> Result<()> {
    live(|| {
        let (a, b) = (TestCgroup::new()?, TestCgroup::new()?);
        let file = File::new(entry(&a, "") + &entry(&b, ""))?;
        let mut engine = start(&file)?;
        let mut hog = Wish::pages(2048).start(&a)?;
        hog.has_all()?;
        // Where there is swap, its memory would be paged out.
        let text = format!("memory = {}", 512 * PAGE);
        file.write(entry(&a, &text) + &entry(&b, &text))?;
        let may_page_out = fs::read_to_string("/proc/swaps")?.lines().count() > 1;
        let (changes, sum) = reload(&mut engine)?;
        let outcomes: Vec<_> =
            changes.iter().map(|it| (it.field("cgroup"), it.field("outcome"))).collect();
        let refused = if may_page_out { "done" } else { "refused" };
        ensure!(outcomes == [(a.path(), refused), (b.path(), "done")], "{changes:?}");
        if !may_page_out {
            ensure!(sum.field("refused") == "1" && sum.field("done") == "1", "{sum:?}");
            ensure!(limits(&engine, &a)?[0].is_none(), "{:?}", limits(&engine, &a)?);
            ensure!(engine.stderr()?.contains("is busy"), "no reason is given");
        }
        ensure!(hog.lives(), "the hog was killed");
        drop(hog);
        lru::drain()?;
        // Its memory is gone: what was refused is done, and nothing else.
        let (changes, _) = reload(&mut engine)?;
        if !may_page_out {
            let changes: Vec<_> = changes.iter().map(parts).collect();
            ensure!(changes == [[a.path(), "memory", "max", "2097152", "done"]], "{changes:?}");
        }
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

#[test]
fn observing_ends_with_a_reload() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let limited = entry(&cgroup, "memory = '1M'");
        let file = File::new(format!("observe = true\n{limited}"))?;
        let mut engine = start(&file)?;
        let mut hog = Wish::pages(512).start(&cgroup)?;
        hog.has_all()?;
        ensure!(hog.lives(), "it was only to be observed");
        drop(hog);
        file.write(&limited)?;
        let (changes, _) = reload(&mut engine)?;
        let changes: Vec<_> = changes.iter().map(parts).collect();
        ensure!(changes == [["", "observe", "true", "false", "done"]], "{changes:?}");
        Wish::pages(512).start(&cgroup)?.was_killed()?;
        engine.stop().map(drop)
    })
}

#[test]
fn without_a_file_the_terminal_that_goes_ends_it() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
        engine.process().signal(Signal::HUP)?;
        let finished = engine.process().wait(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        left_nothing()
    })
}
