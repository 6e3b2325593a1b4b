//! memstock's user half: loads the kernel half, reads its maps and shows them.
//!
//! Data flows one way: `engine` (maps, pins, control programs) → `sample` and `event` (decode) →
//! `model` → `show` (table, JSON, summary). `command` holds one file a verb of the command line,
//! `cli` the flags, `exit` the exit codes. `host`, `mountinfo`, `cgroup`, `launch` and `lock` deal with the
//! machine; none of them touches BPF.

pub mod cgroup;
pub mod cli;
pub mod command;
pub mod engine;
pub mod event;
pub mod exit;
pub mod host;
pub mod launch;
pub mod lock;
pub mod model;
mod mountinfo;
pub mod sample;
pub mod show;
pub mod size;
