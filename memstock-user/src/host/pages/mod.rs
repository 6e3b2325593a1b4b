//! Owns what the user half reads from the kernel about physical pages: the layout of its structures, the number of page
//! frames, what each frame is used for, and who maps it. Must not load programs or open maps, and changes nothing on
//! the host.
//!
//! A page is named by its page frame number (pfn): its physical address divided by the page size. All this needs a
//! 64-bit kernel, `CONFIG_PROC_PAGE_MONITOR`, and CAP_SYS_ADMIN in the first user namespace. What is read is a
//! snapshot: a page can have another use by the time its word is looked at.

mod btf;
mod cached;
mod gfp;
mod kind;
mod kpage;
mod layout;
mod pagemap;
mod span;
mod stocks;
mod words;

pub use cached::Cached;
pub use kind::Kind;
pub use kpage::KernelPages;
pub use layout::{Layout, names_tracepoint};
pub use pagemap::{Mapped, mapped_pages, own_pfn};
pub use span::{end_pfn, huge_page_pages};
pub use stocks::kernel_stocks;
