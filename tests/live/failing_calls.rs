//! Any system call of the daemon may fail, including those that run control programs of the kernel half: the engine,
//! its limits and its counts stay, the daemon goes on or the next one adopts, and the failure is reported.
//!
//! strace makes calls fail in an unmodified daemon. `MEMSTOCK_LOAD=10000` makes a thousand fail instead of ten.

use anyhow::{Context as _, Result, ensure};
use memstock_tests::busy::Busy;
use memstock_tests::hotplug::can_go_offline;
use memstock_tests::live::name;
use memstock_tests::random::Random;
use memstock_tests::skip::skip;
use memstock_tests::strace::{self, Failing, Strace};
use memstock_tests::{leftovers, live, scaled};

/// Calls to make fail.
const TIMES: u32 = 10;
/// Tries before one must have failed: half of them do.
const MOST_IN_VAIN: u32 = 40;

/// Calls whose failure need not be reported, and a part of their strace line.
const UNTOLD: [(&str, &str); 31] = [
    // In a debug build `std` checks that what it closes is open.
    ("fcntl", "F_GETFD"),
    // `std` reads a file's size in order to allocate a buffer.
    ("statx", "AT_EMPTY_PATH"),
    ("newfstatat", "AT_EMPTY_PATH"),
    // A path that does not exist may lead through a link, and is looked up again.
    ("statx", "/memstock-test-"),
    // A cgroup is looked up several times, since one that is being made cannot be found either.
    ("open_by_handle_at", ""),
    ("name_to_handle_at", ""),
    ("readlinkat", "/proc/self/fd/"),
    ("open", "O_DIRECTORY"),
    ("fstatfs", ""),
    // These affect one client's connection.
    ("epoll_ctl", ""),
    ("recvfrom", ""),
    ("shutdown", ""),
    ("writev", ""),
    // A process that cannot be read counts as gone until the next time.
    ("getdents64", ""),
    ("pidfd_open", ""),
    ("openat", "/stat\""),
    ("read", "/stat>"),
    // Losses are read again at the next tick.
    ("openat", "/proc/self/fdinfo/"),
    ("read", "/fdinfo/"),
    // A watch ends with its cgroup, and a thread works without a name.
    ("inotify_rm_watch", ""),
    ("prctl", "PR_SET_NAME"),
    // The owner of a cgroup is needed only for its name; without it, it has a path.
    ("statx", "/unified/\""),
    // Cgroups below the full one: what is missed now is found by the next scan.
    ("openat", "/full\", O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY"),
    // Whether anything freed memory lazily: if unknown, it looks.
    ("openat", "/proc/vmstat"),
    ("read", "/proc/vmstat>"),
    // A hash map's seed has a fallback.
    ("getrandom", "GRND_INSECURE"),
    // At the start of a thread: robust locks, which it does not use, a signal stack, which it does not need, and the
    // number of malloc arenas.
    ("set_robust_list", ""),
    ("sigaltstack", ""),
    ("sched_getaffinity", ""),
    // Standard error is where it would be reported; the event stream has the event.
    ("write", "(2<"),
    // A signal handler notifies the runtime, and cannot report anything else.
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
        // The chosen call may not occur again, so go on until one has failed.
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
                untold.extend(all.inspect(|line| eprintln!("not reported: {line}")));
            }
        }
        eprintln!("{failed} calls failed, {deaths} daemons died");
        ensure!(untold.is_empty(), "not reported: {untold:#?}");
        if !can_go_offline(1) {
            skip(&name(), "CPU 1 cannot go offline");
        }
        busy.engine.audit_at_rest::<&str>(&[])?;
        busy.engine.stop()?;
        leftovers::nothing_held()
    })
}
