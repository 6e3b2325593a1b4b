//! Any system call of the daemon may fail: the engine, its limits and what is counted stay, the daemon goes on or the next
//! one adopts, and what failed is told of. Control programs of the kernel half are run by such calls, too.
//!
//! strace has them fail in the daemon that is shipped. `MEMSTOCK_LOAD=10000` makes a thousand of the ten that a test run has.

use anyhow::{Context as _, Result, ensure};
use memstock_tests::busy::Busy;
use memstock_tests::hotplug::can_go_offline;
use memstock_tests::live::name;
use memstock_tests::random::Random;
use memstock_tests::skip::skip;
use memstock_tests::strace::{self, Failing, Strace};
use memstock_tests::{leftovers, live, scaled};

/// Calls that fail.
const TIMES: u32 = 10;
/// More of them until one has failed: half of them do.
const MOST_IN_VAIN: u32 = 40;

/// Whose failure need not be told of, and a part of how they are made.
const UNTOLD: [(&str, &str); 31] = [
    // In a debug build `std` asks whether what it closes is open.
    ("fcntl", "F_GETFD"),
    // `std` asks for the size of a file that it is about to read, to allocate as much.
    ("statx", "AT_EMPTY_PATH"),
    ("newfstatat", "AT_EMPTY_PATH"),
    // A path that is not there may lead through a link, and is looked up again.
    ("statx", "/memstock-test-"),
    // A cgroup is looked for several times, since one that is being made cannot be found either.
    ("open_by_handle_at", ""),
    ("name_to_handle_at", ""),
    ("readlinkat", "/proc/self/fd/"),
    ("open", "O_DIRECTORY"),
    ("fstatfs", ""),
    // One client's connection.
    ("epoll_ctl", ""),
    ("recvfrom", ""),
    ("shutdown", ""),
    ("writev", ""),
    // A process that cannot be asked is as good as gone: the next one is, and this one next time.
    ("getdents64", ""),
    ("pidfd_open", ""),
    ("openat", "/stat\""),
    ("read", "/stat>"),
    // What was lost is counted with the next tick, too.
    ("openat", "/proc/self/fdinfo/"),
    ("read", "/fdinfo/"),
    // A watch goes with its cgroup, and a thread works without a name.
    ("inotify_rm_watch", ""),
    ("prctl", "PR_SET_NAME"),
    // Whose a cgroup is, for its name: it has a path without.
    ("statx", "/unified/\""),
    // Who is below the full cgroup: whoever is not seen now is seen with the next look.
    ("openat", "/full\", O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY"),
    // Since when nobody freed memory lazily: not knowing, it looks.
    ("openat", "/proc/vmstat"),
    ("read", "/proc/vmstat>"),
    // A hash map's seed comes from elsewhere then.
    ("getrandom", "GRND_INSECURE"),
    // Of a thread that begins: locks that it does not have, a stack for signals that it does without, and how many arenas
    // malloc makes.
    ("set_robust_list", ""),
    ("sigaltstack", ""),
    ("sched_getaffinity", ""),
    // Standard error is where it would be told; the event stream has the event.
    ("write", "(2<"),
    // A signal handler tells the runtime of its signal, and can tell nobody else.
    ("sendto", "MSG_NOSIGNAL"),
];

fn is_untold(line: &str) -> bool {
    UNTOLD.iter().any(|(call, part)| {
        line.strip_prefix(call).is_some_and(|args| args.starts_with('(') && args.contains(part))
    })
}

#[test]
#[ignore = "long"]
fn nothing_is_lost_whatever_fails() -> Result<()> {
    live(|| {
        if !strace::is_there() {
            skip(&name(), "strace is not installed");
            return Ok(());
        }
        let mut random = Random::seeded()?;
        let mut busy = Busy::new()?;
        let seen = Strace::attach(busy.engine.daemon(), None)?;
        busy.stir(true)?;
        let calls = strace::counts(&seen.detach()?);
        eprintln!("{calls:?}");
        let (mut failed, mut deaths, mut untold) = (0, 0, Vec::new());
        // A call that is to fail may not be made again: it goes on until one has failed.
        for time in 0.. {
            if time >= scaled(TIMES) && failed > 0 {
                break;
            }
            ensure!(time < scaled(TIMES) + MOST_IN_VAIN, "nothing failed");
            let failing = Failing::any(&calls, &mut random)?;
            eprintln!("{time}: {failing:?}");
            let told = busy.told()?;
            let strace = Strace::attach(busy.engine.daemon(), Some(&failing))?;
            let stirred = busy.stir(time % 4 == 0);
            let injected: Vec<_> =
                strace.detach()?.into_iter().filter(|line| line.contains("(INJECTED)")).collect();
            let what = || format!("{time}: {failing:?}: {injected:#?}");
            stirred.with_context(what)?;
            let died = busy.check().with_context(what)?;
            let is_told = died || busy.told()? > told;
            failed += injected.len();
            deaths += u32::from(died);
            if died {
                eprintln!("died: {}", what());
            }
            if !is_told {
                let all = injected.into_iter().filter(|line| !is_untold(line));
                untold.extend(all.inspect(|line| eprintln!("not told of: {line}")));
            }
        }
        eprintln!("{failed} calls failed, {deaths} daemons died");
        ensure!(untold.is_empty(), "not told of: {untold:#?}");
        if !can_go_offline(1) {
            skip(&name(), "CPU 1 cannot go offline");
        }
        busy.engine.audit_at_rest::<&str>(&[])?;
        busy.engine.stop()?;
        leftovers::nothing_held()
    })
}
