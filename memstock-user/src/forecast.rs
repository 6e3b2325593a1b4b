//! What limits would do: what a run needs, and what is said of it.

pub mod headroom;
pub mod measure;
pub mod verdict;
