//! Faults on command, and never otherwise: one line in, one line out.
//!
//! | command | what it does | reply |
//! |---|---|---|
//! | `touch N` | touches N fresh pages once, keeps them | `ok minflt=M`, the faults of the touching |
//! | `drop` | gives all of them back | `ok` |
//! | `map N` | maps N fresh pages, touches each once, keeps them | `ok minflt=M` |
//! | `unmap` | unmaps all of those | `ok` |
//! | `spin N` | makes N rounds of mapping, touching and unmapping 64 pages | `ok minflt=M` |
//! | `churn` | makes such rounds until the next line comes | `ok` at once |
//! | `stop` | nothing; ends `churn` | `ok rounds=R minflt=M` |
//! | `spawn N` | runs `true` N times, one after the other | `ok` |
//! | `faults` | nothing | `ok minflt=M`, all faults of the process |
//! | `exit` | ends | `ok` |
//!
//! Handling a command other than `spawn` costs **no fault at all** (the test `live::workload` checks that): the
//! program locks everything it has into memory before it serves, and allocates nothing
//! afterwards. So the faults between two replies are exactly those that were asked for. So are the
//! pages of `touch`, whose page tables exist already; `map` and the rounds need some of their own.

use std::io::{Cursor, Write};
use std::process::Command;
use std::str::SplitWhitespace;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::stdio::stdin;

use super::arena::Arena;
use super::cpus::pin;
use super::lines::{Lines, send};
use super::pages::{Mapping, faults, round};

/// Pages of a round of `spin` and `churn`.
pub const ROUND_PAGES: usize = 64;
/// Maximum of `map` commands between two `unmap`s.
const MAX_MAPPINGS: usize = 65536;
/// Maximum of pages touched between two `drop`s.
const MAX_TOUCHED: usize = 65536;

const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Serves until `exit` or the end of standard input.
///
/// # Errors
/// When the CPU is not there, memory cannot be locked, or a pipe breaks.
pub fn serve(cpu: Option<u32>) -> Result<()> {
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    let mappings = Vec::with_capacity(MAX_MAPPINGS);
    let mut lines = Lines::new();
    // Text, stack, heap and the vector's spare capacity: everything that a command may need.
    mlockall(MlockAllFlags::CURRENT).context("locking the workload into memory")?;
    let arena = Arena::new(MAX_TOUCHED).context("mapping memory to touch")?;
    let mut server = Server { arena, mappings, rounds: 0, churned: 0 };
    while let Some(line) = lines.next()? {
        let mut reply = Cursor::new([0_u8; 256]);
        let go_on = server.handle(line, &mut reply);
        let length = usize::try_from(reply.position())?;
        send(&reply.get_ref()[..length])?;
        match go_on {
            Next::Wait => {}
            Next::Churn => server.churn()?,
            Next::Exit => break,
        }
    }
    Ok(())
}

enum Next {
    Wait,
    Churn,
    Exit,
}

struct Server {
    arena: Arena,
    mappings: Vec<Mapping>,
    rounds: u64,
    churned: u64,
}

impl Server {
    /// Executes the command in `line` and writes its reply to `reply`.
    fn handle(&mut self, line: &str, reply: &mut Cursor<[u8; 256]>) -> Next {
        let mut words = line.split_whitespace();
        let (next, said) = match words.next() {
            Some("touch") => (Next::Wait, self.touch(&mut words, reply)),
            Some("map") => (Next::Wait, self.map(&mut words, reply)),
            Some("spin") => (Next::Wait, spin(&mut words, reply)),
            Some("spawn") => (Next::Wait, spawn(&mut words, reply)),
            Some("drop") => {
                let said = match self.arena.clear() {
                    Ok(()) => writeln!(reply, "ok"),
                    Err(error) => writeln!(reply, "error: giving back: {error}"),
                };
                (Next::Wait, said)
            }
            Some("unmap") => {
                self.mappings.clear();
                (Next::Wait, writeln!(reply, "ok"))
            }
            Some("faults") => (Next::Wait, writeln!(reply, "ok minflt={}", faults())),
            Some("stop") => {
                let said = writeln!(reply, "ok rounds={} minflt={}", self.rounds, self.churned);
                (self.rounds, self.churned) = (0, 0);
                (Next::Wait, said)
            }
            Some("churn") => (Next::Churn, writeln!(reply, "ok")),
            Some("exit") => (Next::Exit, writeln!(reply, "ok")),
            _ => (Next::Wait, writeln!(reply, "error: no such command")),
        };
        // A reply is far shorter than its buffer.
        debug_assert!(said.is_ok());
        next
    }

    fn touch(
        &mut self,
        words: &mut SplitWhitespace<'_>,
        reply: &mut impl Write,
    ) -> std::io::Result<()> {
        let Some(nr_pages) = count(words) else {
            return writeln!(reply, "error: touch how many pages?");
        };
        let before = faults();
        if !self.arena.touch(nr_pages) {
            return writeln!(reply, "error: more than {MAX_TOUCHED} pages; drop first");
        }
        writeln!(reply, "ok minflt={}", faults() - before)
    }

    fn map(
        &mut self,
        words: &mut SplitWhitespace<'_>,
        reply: &mut impl Write,
    ) -> std::io::Result<()> {
        let Some(nr_pages) = count(words) else {
            return writeln!(reply, "error: map how many pages?");
        };
        if self.mappings.len() == self.mappings.capacity() {
            return writeln!(reply, "error: more than {MAX_MAPPINGS} mappings; unmap first");
        }
        match Mapping::new(nr_pages) {
            Err(error) => writeln!(reply, "error: mapping {nr_pages} pages: {error}"),
            Ok(mapping) => {
                let before = faults();
                mapping.touch();
                let touched = faults() - before;
                self.mappings.push(mapping);
                writeln!(reply, "ok minflt={touched}")
            }
        }
    }

    /// Makes rounds until there is something to read. Polling costs no fault.
    fn churn(&mut self) -> Result<()> {
        let input = stdin();
        let before = faults();
        let mut fds = [PollFd::new(&input, PollFlags::IN)];
        loop {
            round(ROUND_PAGES).context("a round of churning")?;
            self.rounds += 1;
            if poll(&mut fds, Some(&ZERO)).context("looking at standard input")? > 0 {
                self.churned = faults() - before;
                return Ok(());
            }
        }
    }
}

/// Without a `pre_exec`, std starts the child by `vfork`: the parent has no copy-on-write faults, so the child is the
/// last to fault on this CPU.
fn spawn(words: &mut SplitWhitespace<'_>, reply: &mut impl Write) -> std::io::Result<()> {
    let Some(children) = count(words) else {
        return writeln!(reply, "error: spawn how many children?");
    };
    for _ in 0..children {
        match Command::new("true").status() {
            Ok(status) if status.success() => {}
            Ok(status) => return writeln!(reply, "error: true: {status}"),
            Err(error) => return writeln!(reply, "error: true: {error}"),
        }
    }
    writeln!(reply, "ok")
}

fn spin(words: &mut SplitWhitespace<'_>, reply: &mut impl Write) -> std::io::Result<()> {
    let Some(rounds) = count(words) else {
        return writeln!(reply, "error: spin how many rounds?");
    };
    let before = faults();
    for _ in 0..rounds {
        if let Err(error) = round(ROUND_PAGES) {
            return writeln!(reply, "error: mapping {ROUND_PAGES} pages: {error}");
        }
    }
    writeln!(reply, "ok minflt={}", faults() - before)
}

fn count(words: &mut SplitWhitespace<'_>) -> Option<usize> {
    words.next().and_then(|word| word.parse().ok()).filter(|count| *count > 0)
}
