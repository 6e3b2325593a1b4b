//! Predicts what limits would do to a run. From a recording, `timeline` derives what was needed when, and `uses` how
//! the page cache was used; `curve`, `lru`, `mapped` and `high` compute the cost of a limit, and `rehearse` judges.
//! `replay` predicts the effect of other batches and slots.

pub mod assume;
pub mod headroom;
pub mod measure;
pub mod recommend;
pub mod rehearse;
pub mod replay;
pub mod timeline;
pub mod verdict;
mod writes;

mod curve;
mod high;
mod history;
mod lru;
mod mapped;
mod uses;
