//! The outcome of a run.

use crate::exit::SUCCESS;
use crate::host::cgroup::Cgroup;
use crate::host::launch::{self, Ended};
use crate::model::Sample;

/// The outcome of a run.
pub struct Outcome {
    /// How COMMAND ended, when there was one.
    pub command: Option<Ended>,
    /// The last sample of the engine.
    pub sample: Sample,
    /// The cgroup that COMMAND was started in.
    pub home: Option<Cgroup>,
    /// How many kills the enforcer reported.
    pub kills: u64,
}

impl Outcome {
    /// The exit code: COMMAND's, if there was one.
    pub fn code(&self) -> u8 {
        self.command.map_or(SUCCESS, |command| launch::exit_code_of(command.status))
    }
}
