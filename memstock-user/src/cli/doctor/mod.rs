//! Owns what memstock needs or can use of a host: `facility` declares each facility once, `probe` looks for it with the
//! same functions as `run`, and this file judges the findings. Changes nothing: what a probe attaches or mounts is gone
//! when it is done.

mod bpf;
mod facility;
mod probe;
pub mod show;
mod system;

pub use facility::{Facility, Need, facilities};
pub use probe::{Host, Probe};

use serde::Serialize;

use crate::exit::{Failure, SUCCESS};

/// Whether the host has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum State {
    /// The host has it.
    Found,
    /// The host lacks it.
    Absent,
    /// It could not be determined.
    Unknown,
}

impl State {
    /// As printed.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is there.
    pub state: State,
    /// What exactly was found, or why not.
    pub detail: String,
    /// What the kernel said about each program that it refused.
    pub said: Vec<String>,
    /// If even root cannot tell: the command to run first.
    pub first: Option<String>,
}

impl Finding {
    pub(crate) fn new(state: State, detail: impl Into<String>) -> Self {
        Self { state, detail: detail.into(), said: Vec::new(), first: None }
    }

    pub(crate) fn found(detail: impl Into<String>) -> Self {
        Self::new(State::Found, detail)
    }

    pub(crate) fn absent(detail: impl Into<String>) -> Self {
        Self::new(State::Absent, detail)
    }

    pub(crate) fn unknown(detail: impl Into<String>) -> Self {
        Self::new(State::Unknown, detail)
    }

    /// Unknown until `command` has been run.
    pub(crate) fn unknown_before(detail: impl Into<String>, command: impl Into<String>) -> Self {
        Self { first: Some(command.into()), ..Self::unknown(detail) }
    }
}

/// A facility and what was found.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The facility.
    pub facility: Facility,
    /// Whether it is there.
    pub finding: Finding,
}

impl Answer {
    /// What to do about it: one command or kernel setting; none if nothing is wrong.
    pub fn remedy(&self) -> Option<&str> {
        match self.finding.state {
            State::Found => None,
            State::Absent => Some(self.facility.remedy),
            State::Unknown => Some(self.finding.first.as_deref().unwrap_or(LOOK_AS_ROOT)),
        }
    }

    fn is_missing(&self, state: State) -> bool {
        self.facility.need == Need::Required && self.finding.state == state
    }
}

/// Finds out what is unknown for want of privilege.
const LOOK_AS_ROOT: &str = "sudo memstock doctor";

/// What was found on this host.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// In the order of the declarations.
    pub answers: Vec<Answer>,
    /// The state of a running engine.
    pub engine: String,
}

impl Diagnosis {
    /// Runs every probe.
    pub fn make() -> Self {
        let mut host = Host::new();
        let answer = |facility: Facility| {
            let finding = facility.probe.ask(&mut host);
            Answer { facility, finding }
        };
        let answers = facilities().into_iter().map(answer).collect();
        Self { answers, engine: system::engine() }
    }

    /// The required facilities that were not found.
    pub fn missing(&self) -> impl Iterator<Item = &Answer> {
        self.answers
            .iter()
            .filter(|answer| answer.is_missing(State::Absent) || answer.is_missing(State::Unknown))
    }

    /// 0 if everything required is found; [`Failure::Host`] if the host lacks any of it; [`Failure::Permission`] if
    /// only privilege is missing, or hides the rest.
    pub fn exit_code(&self) -> u8 {
        let lacks = |answer: &&Answer| {
            answer.finding.state == State::Absent && !answer.facility.probe.is_privilege()
        };
        if self.missing().next().is_none() {
            SUCCESS
        } else if self.missing().any(|answer| lacks(&answer)) || self.is_privileged() {
            Failure::Host.code()
        } else {
            Failure::Permission.code()
        }
    }

    fn is_privileged(&self) -> bool {
        self.missing().all(|answer| !answer.facility.probe.is_privilege())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(states: impl Fn(&Facility) -> State) -> Diagnosis {
        let answer = |facility: Facility| {
            let finding = Finding::new(states(&facility), "");
            Answer { facility, finding }
        };
        let answers = facilities().into_iter().map(answer).collect();
        Diagnosis { answers, engine: String::new() }
    }

    #[test]
    fn the_exit_code_is_that_of_what_is_missing() {
        let code = |states: &dyn Fn(&Facility) -> State| diagnosis(states).exit_code();
        assert_eq!(code(&|_| State::Found), 0);
        let optional = |facility: &Facility| match facility.need {
            Need::Required => State::Found,
            Need::Optional => State::Absent,
        };
        assert_eq!(code(&optional), 0);
        assert_eq!(code(&|_| State::Absent), 121);
        // Without privilege nothing is known.
        let unprivileged = |facility: &Facility| {
            if facility.probe.is_privilege() { State::Absent } else { State::Unknown }
        };
        assert_eq!(code(&unprivileged), 120);
        let without_btf = |facility: &Facility| match facility.name.as_str() {
            "btf" => State::Absent,
            _ => unprivileged(facility),
        };
        assert_eq!(code(&without_btf), 121);
        // What even root cannot determine counts as absent.
        let unknown = |facility: &Facility| match facility.name.as_str() {
            "btf" => State::Unknown,
            _ => State::Found,
        };
        assert_eq!(code(&unknown), 121);
    }

    #[test]
    fn this_host_has_what_is_required() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let diagnosis = Diagnosis::make();
        let missing: Vec<_> =
            diagnosis.missing().map(|answer| (&answer.facility.name, &answer.finding)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(diagnosis.exit_code(), 0);
    }
}
