//! memstock's user half: loads the kernel half, reads its maps and shows them.
//!
//! Data flows one way: `engine` (maps, pins, control programs) → `sample` and `event` (decode) →
//! `model` → `show` (table, JSON, summary). `command` holds one file a verb of the command line,
//! `cli` the flags, `manual` the pages made of them, `config` the file that stands for some, `exit` the exit codes.
//! `host`, `mountinfo`, `cgroup`, `launch`, `lock`, `protect` and `notify` deal with the machine; none of them touches BPF.
//!
//! `top` is the live view: `sample` again and again, with rates, on a terminal.
//!
//! `tree`, `drains` and `hotplug` are what the daemon does about what it is told.
//! Events: `event` (decode), `tree` and `loss` → `journal` (the stream that others read).
//!
//! `needed` is what of a usage the kernel could not take back, `verdict` what a limit would do, `ratio` what counts
//! are divided by. `headroom` is what a sample says of limits; `metrics` serves samples, and how sound they are, over HTTP.
//!
//! Pages: `pages` reads what the kernel says of them, `kernel_cgroup` puts it beside what memstock says,
//! `adoption` and `audit` act on the difference, `sweep` finds those that were freed unseen, `reparent` gives away those of
//! removed cgroups; `pace` keeps both from taking a CPU.

pub mod adoption;
pub mod audit;
pub mod bench;
pub mod cgroup;
pub mod cli;
pub mod command;
pub mod config;
pub mod doctor;
pub mod drains;
pub mod enforce;
pub mod engine;
pub mod event;
pub mod exit;
pub mod headroom;
pub mod host;
pub mod hotplug;
pub mod journal;
pub mod kernel_cgroup;
pub mod launch;
pub mod lock;
pub mod loss;
pub mod manual;
pub mod mapping;
pub mod measure;
pub mod metrics;
pub mod model;
mod mountinfo;
mod names;
pub mod needed;
pub mod notify;
mod pace;
pub mod pages;
mod parts;
pub mod process;
pub mod protect;
pub mod ratio;
mod reparent;
pub mod sample;
pub mod show;
pub mod size;
mod swapped;
mod sweep;
pub mod top;
pub mod tree;
pub mod verdict;
mod work;
