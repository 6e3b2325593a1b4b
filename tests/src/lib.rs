//! The harness of the live tests, and the workload they watch.
//!
//! A live test drives the `memstock` binary against the real kernel and compares what it shows
//! with the kernel's own figures. The harness owns what a test puts into the host (cgroups,
//! tasks, a running engine, a CPU taken offline) and takes it out again on `Drop`. It knows memstock
//! by its command line and its JSON. Tests and benches use memstock as a library only where no command
//! shows what they need, or not fast enough.

pub mod audit;
pub mod bench;
pub mod binaries;
pub mod bpf;
pub mod browser;
pub mod busy;
pub mod cgroup;
pub mod config;
pub mod container;
pub mod cri;
pub mod dialogue;
pub mod engine;
pub mod events;
pub mod examples;
pub mod exposition;
pub mod free_lists;
pub mod growing;
pub mod hog;
pub mod holder;
pub mod hotplug;
pub mod http;
pub mod interrupts;
pub mod kernel_cgroup;
pub mod kpages;
pub mod kubernetes;
pub mod leftovers;
pub mod live;
pub mod load;
pub mod lru;
pub mod measured;
pub mod migrations;
pub mod orphan;
pub mod poll;
pub mod process;
pub mod prometheus;
pub mod random;
pub mod refusal;
pub mod release;
pub mod resident;
pub mod scale;
pub mod show;
pub mod skip;
pub mod slow_disk;
pub mod strace;
pub mod systemd;
pub mod task;
pub mod throttle;
pub mod tmux;
pub mod top;
pub mod workload;

pub use cgroup::TestCgroup;
pub use engine::Engine;
pub use hog::Hog;
pub use holder::Holder;
pub use kernel_cgroup::KernelCgroup;
pub use live::live;
pub use migrations::Migrations;
pub use poll::poll_until;
pub use refusal::refusal;
pub use release::release;
pub use resident::Resident;
pub use scale::scaled;
pub use show::Show;
pub use task::Task;

/// Bytes in a page. The workload maps pages of this size; other page sizes are not supported.
pub const PAGE: u64 = 4096;
