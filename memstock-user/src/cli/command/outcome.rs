//! What a run leaves when it is over.

use crate::exit::SUCCESS;
use crate::host::cgroup::Cgroup;
use crate::host::launch::{self, Ended};
use crate::model::Sample;

/// What is left.
pub struct Outcome {
    /// How COMMAND ended, when there was one.
    pub command: Option<Ended>,
    /// What the engine had then.
    pub sample: Sample,
    /// The cgroup that COMMAND was started in.
    pub home: Option<Cgroup>,
    /// How often the enforcer killed, as far as that was heard of.
    pub kills: u64,
}

impl Outcome {
    /// The exit code: COMMAND's, if there was one.
    pub fn code(&self) -> u8 {
        self.command.map_or(SUCCESS, |command| launch::exit_code_of(command.status))
    }
}
