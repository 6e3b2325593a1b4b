//! How much `cargo xtask test --vm` runs, and in which guests.

use std::ffi::OsString;

use super::{Cgroups, Guest, Preempt, Work, boot, build, matrix, prepare};
use crate::exec;
use crate::setup::BpfToolchain;
use crate::test::tally::Tally;

/// How much runs in guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Extent {
    /// On the oldest kernel: what its verifier says, and what a host with few CPUs and no fentry cannot run.
    Short,
    /// Every live test, on the oldest kernel.
    One,
    /// Every live test in every guest.
    Matrix,
}

impl Extent {
    /// Whether every live test is among it.
    pub fn is_all(self) -> bool {
        self != Self::Short
    }

    fn guests(self) -> Vec<Guest> {
        match self {
            Self::Short | Self::One => {
                vec![Guest::of("6.1", 4, Cgroups::V2, Preempt::Voluntary)]
            }
            Self::Matrix => matrix::guests(),
        }
    }

    fn work(self) -> Work {
        // As with `cargo xtask vm`.
        let work = Work { patience: 10, load: 5, ..Work::default() };
        match self {
            // The host's tests have built that already.
            Self::Short => {
                let tests = ["verifier", "kernel_stock", "many_cpus"];
                Work { dev: true, load: 2, tests: tests.map(str::to_owned).into(), ..work }
            }
            Self::One | Self::Matrix => work,
        }
    }
}

/// What the guests say, into `tally`. One that does not come up is a failure and not the end.
pub fn guests(
    tally: &mut Tally,
    bpf: &BpfToolchain,
    extent: Extent,
    bless: bool,
    args: &[OsString],
) {
    let work = Work { bless, args: args.to_vec(), ..extent.work() };
    if let Err(error) = prepare().and_then(|()| build(bpf, &work)) {
        tally.broken("vm", &error);
        return;
    }
    for guest in extent.guests() {
        let mut one = Tally::default();
        if let Err(error) = boot(&mut one, bpf, &guest, &work) {
            one.broken("vm", &error);
        }
        exec::say("Guest", format_args!("{guest}: {}", one.closing()));
        tally.add(&guest.to_string(), one);
    }
}
