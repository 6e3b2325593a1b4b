//! A running engine: `memstock run` in the background, queried through the other verbs.

use std::ffi::OsStr;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::cgroup::TestCgroup;
use crate::hog::size;
use crate::leftovers;
use crate::poll::{SOON, try_poll_until};
use crate::process::{Finished, Process, Program, memstock};
use crate::show::{Drained, Show};

/// A `memstock run` that answers queries. Stopped on `Drop`.
#[derive(Debug)]
pub struct Engine {
    run: Process,
    /// Whether `Drop` need not print its standard error.
    heard: bool,
}

impl Engine {
    /// Starts `memstock run` with these arguments, and waits until `memstock show` answers. It charges only what is
    /// allocated from then on, and drains only when the test asks for it (or when the kernel starts to reclaim).
    ///
    /// # Errors
    /// As [`start_adopting`](Self::start_adopting).
    pub fn start<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Self> {
        let args: Vec<A> = args.into_iter().collect();
        let all = ["--no-adopt", "--no-drain"]
            .map(OsStr::new)
            .into_iter()
            .chain(args.iter().map(AsRef::as_ref));
        Self::start_adopting(all)
    }

    /// As [`start`](Self::start), with a limit of `nr_pages` for each of these cgroups.
    ///
    /// # Errors
    /// As [`start_adopting`](Self::start_adopting).
    pub fn limited(nr_pages: u64, cgroups: &[&TestCgroup]) -> Result<Self> {
        let limit = |cgroup: &&TestCgroup| format!("{}={}", cgroup.path(), size(nr_pages));
        let args = cgroups.iter().flat_map(|cgroup| {
            ["--cgroup".to_owned(), cgroup.path().to_owned(), "--limit".to_owned(), limit(cgroup)]
        });
        Self::start(args)
    }

    /// Starts `memstock run` with these arguments, and waits until `memstock show` answers.
    ///
    /// # Errors
    /// When it ends at once or does not answer in time. Includes its standard error.
    pub fn start_adopting<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Self> {
        Self::of(memstock_run(args)?)
    }

    /// As [`start`](Self::start) for this cgroup, but as if the kernel had no page-fault tracepoints.
    ///
    /// # Errors
    /// As [`start_adopting`](Self::start_adopting).
    pub fn without_faults(cgroup: &TestCgroup, args: &[&str]) -> Result<Self> {
        // `engine/faults.rs` reads it.
        Self::as_if("MEMSTOCK_NO_FAULT_TRACEPOINTS", cgroup, args)
    }

    /// As [`start`](Self::start) for this cgroup, but as if the kernel preempted BPF programs.
    ///
    /// # Errors
    /// As [`start_adopting`](Self::start_adopting).
    pub fn looking_again(cgroup: &TestCgroup) -> Result<Self> {
        // `engine/again.rs` reads it.
        Self::as_if("MEMSTOCK_AS_IF_PREEMPTED", cgroup, &[])
    }

    fn as_if(variable: &str, cgroup: &TestCgroup, args: &[&str]) -> Result<Self> {
        let all = [&["--no-adopt", "--no-drain", "--cgroup", cgroup.path()], args].concat();
        Self::of(memstock_run(all)?.env(variable, "1"))
    }

    fn of(run: Program) -> Result<Self> {
        let mut engine = Self { run: run.start()?, heard: false };
        engine.wait_until_ready()?;
        Ok(engine)
    }

    /// Kills the daemon with SIGKILL, if it runs. The kernel half goes on and can still be queried.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn kill(&mut self) -> Result<Finished> {
        self.run.signal(Signal::KILL)?;
        self.run.wait(SOON)
    }

    /// Starts a daemon with these arguments in place of one that was killed, and waits until it has adopted the
    /// engine.
    ///
    /// # Errors
    /// When it ends at once or does not adopt in time. Includes its standard error.
    pub fn adopt<A: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = A>) -> Result<()> {
        ensure!(self.run.ended()?.is_some(), "the daemon before it runs still");
        self.run = memstock_run(args)?.start()?;
        let adopted = try_poll_until(SOON, "the adoption of the engine", || {
            let is_adopted = self.events()?.iter().any(|event| event.kind == "engine-adopted");
            if let Some(status) = self.run.ended()? {
                bail!("memstock run ended with {status}");
            }
            Ok(is_adopted.then_some(()))
        });
        adopted
            .with_context(|| format!("its standard error: {}", self.stderr().unwrap_or_default()))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let ready = try_poll_until(SOON, "an answer of memstock show", || {
            if let Some(status) = self.run.ended()? {
                bail!("memstock run ended with {status}");
            }
            let answer = memstock(["show", "--json"])?.finish(SOON)?;
            Ok((answer.code() == 0).then_some(()))
        });
        ready.with_context(|| format!("its standard error: {}", self.stderr().unwrap_or_default()))
    }

    /// One sample.
    ///
    /// # Errors
    /// When `memstock show` fails.
    pub fn show(&self) -> Result<Show> {
        Show::parse(&answer(["show", "--json"].iter())?)
    }

    /// Runs `memstock drain --json` with these further arguments.
    ///
    /// # Errors
    /// When it fails.
    pub fn drain<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Drained> {
        let args: Vec<A> = args.into_iter().collect();
        let verb = ["drain", "--json"].map(OsStr::new);
        let all = verb.into_iter().chain(args.iter().map(AsRef::as_ref));
        Drained::parse(&answer(all)?)
    }

    /// The daemon's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.run
    }

    /// The daemon's process id.
    pub fn daemon(&self) -> u32 {
        self.run.id()
    }

    /// What the engine has written to its standard output so far: the tables.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stdout(&self) -> Result<String> {
        self.run.stdout()
    }

    /// What the engine has written to its standard error so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stderr(&self) -> Result<String> {
        self.run.stderr()
    }

    /// The `event:` lines on its standard error so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events(&self) -> Result<Vec<Event>> {
        Ok(Event::all(&self.stderr()?))
    }

    /// All events in the stream. Standard error has only the first of an event that occurs thousands of times.
    ///
    /// # Errors
    /// When `memstock events` does not end well.
    pub fn stream(&self) -> Result<Vec<Event>> {
        answer(["events"].into_iter()).map(|text| Event::all(&text))
    }

    /// The [`events`](Self::events) of one kind.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events_of(&self, kind: &str) -> Result<Vec<Event>> {
        Ok(self.events()?.into_iter().filter(|event| event.kind == kind).collect())
    }

    /// Waits for the kills and checks that they were `victims`, in this order. Returns their events.
    ///
    /// # Errors
    /// When others were killed, or too few in time.
    pub fn only_killed(&self, victims: &[u32]) -> Result<Vec<Event>> {
        let kills = try_poll_until(SOON, "the events of the kills", || {
            let kills = self.events_of("oom-kill")?;
            Ok((kills.len() >= victims.len()).then_some(kills))
        })?;
        let killed: Vec<u32> =
            kills.iter().map(|kill| kill.field("victim").parse()).collect::<Result<_, _>>()?;
        ensure!(killed == victims, "killed {killed:?}, not {victims:?}");
        Ok(kills)
    }

    /// Stops it with SIGTERM, waits for its end and checks that its pins are gone.
    ///
    /// # Errors
    /// When it does not end in time or leaves something behind.
    pub fn stop(mut self) -> Result<Finished> {
        self.run.signal(Signal::TERM)?;
        let finished = self.run.wait(SOON)?;
        let left = leftovers::pins_and_lock();
        ensure!(left.is_empty(), "the engine left behind: {}", left.join(", "));
        Ok(finished)
    }

    /// As [`stop`](Self::stop), for a bench, whose output nobody captures: does not print its standard error.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub fn end(mut self) -> Result<()> {
        self.heard = true;
        self.stop().map(drop)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Ok(None) = self.run.ended() {
            let ended = self.run.signal(Signal::TERM).and_then(|()| self.run.wait(SOON));
            if let Err(error) = ended {
                eprintln!("the engine does not stop: {error:#}");
            }
        }
        // libtest shows it only if the test fails.
        if !self.heard {
            eprintln!("memstock run said: {}", self.stderr().unwrap_or_default());
        }
        if !leftovers::pins_and_lock().is_empty()
            && let Err(error) = memstock(["stop"]).and_then(|stop| stop.finish(SOON))
        {
            eprintln!("memstock stop: {error:#}");
        }
    }
}

fn memstock_run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Program> {
    let args: Vec<A> = args.into_iter().collect();
    let verb = [OsStr::new("run")];
    memstock(verb.into_iter().chain(args.iter().map(AsRef::as_ref)))
}

/// Runs `memstock`, which must succeed, and returns its standard output.
fn answer<A: AsRef<OsStr>>(args: impl Iterator<Item = A>) -> Result<String> {
    // On a busy host a drain may have to repeat thousands of times.
    let finished = memstock(args)?.finish(3 * SOON)?;
    ensure!(finished.code() == 0, "memstock failed: {finished:?}");
    Ok(finished.stdout)
}

/// A line `event: KIND key=value …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Such as `limit-near` or `limit-hit`.
    pub kind: String,
    fields: Vec<(String, String)>,
}

impl Event {
    fn all(text: &str) -> Vec<Self> {
        text.lines().filter_map(|line| line.strip_prefix("event:")).map(Self::new).collect()
    }

    fn new(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let kind = words.next().unwrap_or_default().to_owned();
        let fields = words
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self { kind, fields }
    }

    /// The value of a field; empty when it is not there.
    pub fn field(&self, key: &str) -> &str {
        self.fields.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}
