//! What `memstock run` does in the background. Each file is a part of that, or what the parts use.

pub mod hotplug;
pub mod loss;
pub(crate) mod parts;
pub mod record;
pub(crate) mod reparent;
pub(crate) mod swapped;
pub(crate) mod sweep;
pub mod tree;
pub(crate) mod work;
