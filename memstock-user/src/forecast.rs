//! What limits would do: what a run needs, and what is said of it. From a recording, `timeline` has what was needed when,
//! and `uses` what was used of the page cache; `curve`, `lru`, `mapped` and `high` say what either costs at a limit, and
//! `rehearse` judges; `replay` says what other batches and slots would.

pub mod assume;
pub mod headroom;
pub mod measure;
pub mod recommend;
pub mod rehearse;
pub mod replay;
pub mod timeline;
pub mod verdict;

mod curve;
mod high;
mod history;
mod lru;
mod mapped;
mod uses;
