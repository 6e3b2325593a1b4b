//! Probes of the kernel's BPF.

use std::fs;
use std::io;

use anyhow::Result;
use aya::programs::ProgramError;

use super::Finding;
use super::probe::Host;
use crate::engine::attach::has_tracepoint;
use crate::engine::learn::learn;
use crate::engine::load::verdicts;
use crate::engine::migrate;
use crate::engine::object::refused;
use crate::host::pages::{Layout, names_tracepoint};

pub(super) fn btf(host: &Host) -> Finding {
    host.of(Layout::read(), |layout| format!("struct page has {} bytes", layout.page_struct_size))
}

pub(super) fn bpf(host: &Host) -> Finding {
    match &host.probing {
        Ok(_) => Finding::found(""),
        Err(error) => host.failed(error),
    }
}

pub(super) fn tracepoint(host: &mut Host, name: &str) -> Finding {
    let attached = match &mut host.probing {
        Ok(probing) => has_tracepoint(probing, name),
        // BTF is second best: it can only say yes.
        Err(error) => {
            return match names_tracepoint(name) {
                Ok(true) => Finding::found("in BTF; not attached to"),
                _ => Finding::unknown(format!("{error:#}")),
            };
        }
    };
    match attached {
        Ok(true) => Finding::found(""),
        Ok(false) => Finding::absent("the kernel does not know it"),
        Err(error) => host.failed(&error),
    }
}

pub(super) fn migration(host: &Host) -> Finding {
    match migrate::try_it() {
        Ok(()) => Finding::found(""),
        // A kernel whose functions cannot be traced returns EPERM even to root.
        Err(error) if host.is_privileged => Finding::absent(format!("{error:#}")),
        Err(error) => host.failed(&error),
    }
}

pub(super) fn struct_pages(host: &Host) -> Finding {
    host.of(learn(), |pages| {
        format!("in one array at {:#x}, up to page frame {}", pages.base, pages.end_pfn)
    })
}

/// Loads them as `run` does; attaches and pins nothing.
pub(super) fn programs(host: &Host) -> Finding {
    judge(host, verdicts())
}

fn judge(host: &Host, verdicts: Result<Vec<(String, Result<(), ProgramError>)>>) -> Finding {
    let verdicts = match verdicts {
        Ok(verdicts) => verdicts,
        Err(error) => return host.failed(&error),
    };
    let nr = verdicts.len();
    let mut refusals = Vec::new();
    for (name, verdict) in verdicts {
        let Err(error) = verdict else { continue };
        let is_of_verifier = matches!(&error, ProgramError::LoadError { verifier_log, .. }
            if !verifier_log.to_string().is_empty());
        let refusal = refused(&name, error);
        // The verifier has not seen it: no privilege, no memory, or no bpf(2).
        if !is_of_verifier {
            return host.failed(&refusal);
        }
        refusals.push(format!("{refusal:#}"));
    }
    if refusals.is_empty() {
        return Finding::found(format!("{nr} accepted"));
    }
    let detail = format!("{} of {nr} refused", refusals.len());
    Finding { said: refusals, ..Finding::absent(detail) }
}

pub(super) fn lockdown(_: &Host) -> Finding {
    const FILE: &str = "/sys/kernel/security/lockdown";
    match fs::read_to_string(FILE) {
        Ok(text) => {
            let mode = text.split(['[', ']']).nth(1).unwrap_or("unreadable").to_owned();
            let detail = format!("the mode is {mode}");
            match mode.as_str() {
                "none" | "integrity" => Finding::found(detail),
                "confidentiality" => Finding::absent(detail),
                _ => Finding::unknown(detail),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match fs::read_dir("/sys/kernel/security").map(|mut entries| entries.next().is_some()) {
                Ok(true) => Finding::found("the kernel has no lockdown"),
                _ => Finding::unknown_before(
                    "securityfs is not mounted",
                    "mount -t securityfs securityfs /sys/kernel/security",
                ),
            }
        }
        Err(error) => Finding::unknown(format!("{FILE}: {error}")),
    }
}

pub(super) fn jit(_: &Host) -> Finding {
    const FILE: &str = "/proc/sys/net/core/bpf_jit_enable";
    match fs::read_to_string(FILE) {
        Ok(text) if text.trim() == "0" => Finding::absent("programs are interpreted"),
        Ok(text) => Finding::found(format!("net.core.bpf_jit_enable is {}", text.trim())),
        Err(error) => Finding::unknown(format!("{FILE}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::VerifierLog;

    use super::*;
    use crate::cli::doctor::State;

    #[test]
    fn what_the_verifier_says_of_each_program_is_told() {
        let host = Host::new();
        let refusal = |log: &str, code| ProgramError::LoadError {
            io_error: io::Error::from_raw_os_error(code),
            verifier_log: VerifierLog::new(log.to_owned()),
        };
        let judged = |verdicts: Vec<Result<(), ProgramError>>| {
            let named =
                verdicts.into_iter().enumerate().map(|(n, verdict)| (format!("p{n}"), verdict));
            judge(&host, Ok(named.collect()))
        };
        assert_eq!(judged(vec![Ok(()), Ok(())]), Finding::found("2 accepted"));
        let log = "0: (85) call 181\ninvalid func unknown#181\nprocessed 1 insns\n";
        let finding =
            judged(vec![Ok(()), Err(refusal(log, libc::EINVAL)), Err(refusal("no", libc::EACCES))]);
        assert_eq!((finding.state, &*finding.detail), (State::Absent, "2 of 3 refused"));
        let [first, second] = &finding.said[..] else { panic!("{finding:?}") };
        assert!(first.contains("p1") && first.contains("invalid func unknown#181"), "{first}");
        assert!(second.contains("p2") && second.contains("no"), "{second}");
        // The verifier has not seen it.
        let finding = judged(vec![Err(refusal("", libc::EPERM)), Ok(())]);
        assert_eq!((finding.state, finding.said.len()), (State::Unknown, 0));
    }
}
