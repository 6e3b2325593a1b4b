//! By what events of the kernel faults are seen.

use std::fmt;

/// By what faults are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The kernel's tracepoints for them, which x86 and riscv have.
    #[default]
    Tracepoints,
    /// perf's software event, one on each CPU.
    Perf,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tracepoints, Self::Perf];

    /// As people see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoints => "tracepoints",
            Self::Perf => "perf",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
