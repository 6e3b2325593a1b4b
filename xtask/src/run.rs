//! `cargo xtask run`: builds memstock and replaces itself by it, so that memstock gets Ctrl-C and sets the exit code.
//! Where the kernel refuses BPF, memstock runs in a guest. Without arguments it is the demonstration, on a terminal
//! with `memstock top`.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::exec::{self, capture};
use crate::{build, demo, setup, vm};

/// Where memstock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here,
    Sudo,
    Guest,
}

/// Runs `memstock run` with `args`, or the demonstration; on this host in any case if the user `insists`.
pub fn run(insists: bool, args: &[OsString]) -> Result<()> {
    let refusal = memstock_tests::refusal();
    let has_sudo = !rustix::process::geteuid().is_root() && which::which("sudo").is_ok();
    let place = place(refusal.is_some(), insists, has_sudo, is_granted_to_sudo);
    if let (Place::Guest, Some(reason)) = (place, refusal) {
        exec::say(
            "BPF",
            format_args!("{reason}; so it runs in a guest (`--host` forces this host)"),
        );
    }
    let bpf = setup::ensure()?;
    // The profile of the tests, so that both share one build; the kernel half is always optimised.
    build::workspace(&bpf, false)?;
    let built = exec::target_dir().join("debug");
    if place == Place::Guest {
        return vm::show(&bpf, &arguments(args, vm::PROGRAMS.as_ref()));
    }
    let memstock = || {
        if place == Place::Sudo {
            let mut cmd = Command::new("sudo");
            cmd.arg(built.join("memstock"));
            cmd
        } else {
            Command::new(built.join("memstock"))
        }
    };
    if args.is_empty() && io::stdout().is_terminal() {
        return demo::in_place(memstock, &arguments(args, &built));
    }
    exec::replace(memstock().arg("run").args(arguments(args, &built)))
}

/// Where to run; `is_granted` asks whether the kernel grants sudo what it refuses us.
fn place(
    is_refused: bool,
    insists: bool,
    has_sudo: bool,
    is_granted: impl FnOnce() -> bool,
) -> Place {
    if is_refused && has_sudo && (insists || is_granted()) {
        Place::Sudo
    } else if is_refused && !insists {
        Place::Guest
    } else {
        // If BPF is refused here, memstock itself says what it needs.
        Place::Here
    }
}

/// `args`, or those of the demonstration, with the workload from the folder `programs`.
fn arguments(args: &[OsString], programs: &Path) -> Vec<OsString> {
    if !args.is_empty() {
        return args.to_vec();
    }
    let flags = ["--observe", "--limit", "96M", "--new", "memstock-demo", "--seconds", "10", "--"];
    let mut all: Vec<_> = flags.map(OsString::from).into();
    all.extend([programs.join("memstock-workload").into(), "demo".into()]);
    all
}

/// Whether sudo works without a password and the kernel grants root more than us, which in a container it may not.
fn is_granted_to_sudo() -> bool {
    let Ok(xtask) = env::current_exe() else { return false };
    capture(Command::new("sudo").arg("-n").arg(xtask).arg("refusal"))
        .is_ok_and(|said| said.is_empty())
}

/// The hidden verb by which `is_granted_to_sudo` asks.
pub fn refusal() -> Result<()> {
    if let Some(reason) = memstock_tests::refusal() {
        println!("{reason}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_for_who_has_no_other_way() {
        assert_eq!(place(false, false, true, || true), Place::Here);
        assert_eq!(place(true, false, false, || false), Place::Guest);
        // In a container where root has no more capabilities.
        assert_eq!(place(true, false, true, || false), Place::Guest);
        assert_eq!(place(true, false, true, || true), Place::Sudo);
        // sudo may ask for a password, and memstock itself reports a refusal.
        assert_eq!(place(true, true, true, || false), Place::Sudo);
        assert_eq!(place(true, true, false, || false), Place::Here);
    }

    #[test]
    fn without_arguments_the_workload_is_shown() {
        let words = arguments(&[], "/p".as_ref());
        assert!(words.contains(&"/p/memstock-workload".into()), "{words:?}");
        assert_eq!(arguments(&["--check".into()], "/p".as_ref()), ["--check"]);
    }
}
