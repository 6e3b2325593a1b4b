//! Empty on purpose: `memstock-user` depends on this target so that cargo rebuilds the BPF object
//! when one of this crate's dependencies changes. The programs are in `main.rs`.
#![no_std]
