//! Empty on purpose: `memstock-user` depends on this target so that cargo rebuilds the BPF object when a dependency of
//! this crate changes. The programs are in `main.rs`.
#![no_std]
