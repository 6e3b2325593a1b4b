//! Owns the question what this host has of what memstock needs or can use: each facility is declared once, in
//! `facility`; `probe` asks the host, by the same functions that `run` asks; this file judges the answers.
//! Changes nothing: what is attached or mounted for a probe is gone when it is over.

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
    /// It has.
    Found,
    /// It has not.
    Absent,
    /// It could not be told.
    Unknown,
}

impl State {
    /// As people see it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What a probe has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is there.
    pub state: State,
    /// What exactly, or why not.
    pub detail: String,
    /// What the kernel said of what it refuses, a line each.
    pub said: Vec<String>,
    /// Of what is unknown even to root: the command after which it can be told.
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

    /// Unknown until `command` was given.
    pub(crate) fn unknown_before(detail: impl Into<String>, command: impl Into<String>) -> Self {
        Self { first: Some(command.into()), ..Self::unknown(detail) }
    }
}

/// A facility and what was found.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which.
    pub facility: Facility,
    /// Whether it is there.
    pub finding: Finding,
}

impl Answer {
    /// What to do about it: one command, or a setting of the kernel; none where nothing is wrong.
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

/// What tells more than can be told now.
const LOOK_AS_ROOT: &str = "sudo memstock doctor";

/// What was found on this host.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// In the order of the declarations.
    pub answers: Vec<Answer>,
    /// What is said of a running engine.
    pub engine: String,
}

impl Diagnosis {
    /// Asks for everything.
    pub fn make() -> Self {
        let mut host = Host::new();
        let answer = |facility: Facility| {
            let finding = facility.probe.ask(&mut host);
            Answer { facility, finding }
        };
        let answers = facilities().into_iter().map(answer).collect();
        Self { answers, engine: system::engine() }
    }

    /// What is required and not found.
    pub fn missing(&self) -> impl Iterator<Item = &Answer> {
        self.answers
            .iter()
            .filter(|answer| answer.is_missing(State::Absent) || answer.is_missing(State::Unknown))
    }

    /// 0 if all that is required is found; that of a host that lacks something if it does; that of missing
    /// permission if that is all that is missing, or hides the rest.
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
        // What root cannot be told of is not there for memstock.
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
