//! What `memstock run` does about what it is told: each file is a part of it, or what one works on.

pub mod hotplug;
pub mod loss;
pub(crate) mod parts;
pub(crate) mod reparent;
pub(crate) mod swapped;
pub(crate) mod sweep;
pub mod tree;
pub(crate) mod work;
