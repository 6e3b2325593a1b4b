//! How much `cargo xtask test --vm` runs, and in which guests.

use std::ffi::OsString;

use super::{Cgroups, Guest, Preempt, Work, boot, build, matrix, prepare};
use crate::exec;
use crate::setup::BpfToolchain;
use crate::test::tally::Tally;

/// Which tests run in which guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Extent {
    /// On the oldest kernel, tests of its verifier and those that a host with few CPUs and no fentry cannot run.
    Short,
    /// Every live test, on the oldest kernel.
    One,
    /// Every live test in every guest.
    Matrix,
}

impl Extent {
    /// Whether every live test runs.
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
        // The defaults of `cargo xtask vm`.
        let work = Work { patience: 10, load: 5, ..Work::default() };
        match self {
            // The debug build, which the host's tests have made already.
            Self::Short => {
                let tests = ["verifier", "kernel_stock", "many_cpus"];
                Work { dev: true, load: 2, tests: tests.map(str::to_owned).into(), ..work }
            }
            Self::One | Self::Matrix => work,
        }
    }
}

/// Runs the tests in the guests, and adds the results to `tally`. A guest that does not boot counts as a failure, and
/// the next one runs.
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
