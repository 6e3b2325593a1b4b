//! What `memstock run` does in the background: one file for each part, and what they share.

pub mod hotplug;
pub mod loss;
pub(crate) mod parts;
pub mod record;
pub(crate) mod reparent;
pub(crate) mod sweep;
pub mod tree;
pub(crate) mod work;
