//! The kernel's owner of each page, exact and without delay: `/proc/kpagecgroup`, page by page.
//!
//! A census reads one number for each page of the machine, which takes about half a second for
//! 24 GiB, however many cgroups it counts.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

/// Pages read at a time.
const CHUNK: usize = 65536;

/// Bits of `/proc/kpageflags` (Documentation/admin-guide/mm/pagemap.rst). A page of a program
/// or of the page cache has at least one of them; a page table or a kernel stack has none:
/// `UPTODATE`, `DIRTY`, `LRU`, `MMAP`, `ANON`, `SWAPBACKED`.
const USER: u64 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 11 | 1 << 12 | 1 << 14;

/// Set on every page of a large folio but the first.
const COMPOUND_TAIL: u64 = 1 << 16;

/// The pages of a cgroup, without its descendants. Slab pages have no cgroup: only their objects do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Memory of programs and page cache.
    pub user: u64,
    /// Page tables, stacks, pipes and other kernel pages.
    pub kernel: u64,
}

/// The pages of several cgroups at one time (if they do not change while it is taken).
#[derive(Debug)]
pub struct Census(HashMap<u64, Pages>);

impl Census {
    /// Counts the pages of the cgroups with these inodes ([`crate::KernelCgroup::inode`]).
    ///
    /// # Errors
    /// When the kernel does not have these files, or they cannot be read.
    pub fn take(inodes: &[u64]) -> Result<Self> {
        let owners = File::open("/proc/kpagecgroup").context("/proc/kpagecgroup")?;
        let flags = File::open("/proc/kpageflags").context("/proc/kpageflags")?;
        let mut found: HashMap<u64, Pages> =
            inodes.iter().map(|inode| (*inode, Pages::default())).collect();
        // For millions of other cgroups' pages, a range check is cheaper than a look-up. The cgroups of one test have
        // neighbouring inodes.
        let first = inodes.iter().copied().min().unwrap_or(u64::MAX);
        let last = inodes.iter().copied().max().unwrap_or(0);
        // The owner of the page before, if it is one of `inodes`.
        let mut before = 0;
        let (mut owner, mut flag) = (vec![0; CHUNK * 8], vec![0; CHUNK * 8]);
        for offset in (0..).step_by(CHUNK * 8) {
            let length = owners.read_at(&mut owner, offset).context("/proc/kpagecgroup")?;
            if length == 0 {
                break;
            }
            let mut flags_read = false;
            for (page, inode) in owner[..length].as_chunks().0.iter().enumerate() {
                let mut inode = u64::from_ne_bytes(*inode);
                // On Linux 6.1 only the head of a large folio has an owner.
                let may_be_tail = inode == 0 && before != 0;
                if may_be_tail {
                    inode = before;
                }
                before = 0;
                if inode < first || inode > last {
                    continue;
                }
                let Some(Pages { user, kernel }) = found.get_mut(&inode) else {
                    continue;
                };
                // Most chunks have no page of ours, and their flags are not needed.
                if !flags_read {
                    flags.read_exact_at(&mut flag[..length], offset).context("/proc/kpageflags")?;
                    flags_read = true;
                }
                let flags = u64::from_ne_bytes(flag.as_chunks().0[page]);
                if may_be_tail && flags & COMPOUND_TAIL == 0 {
                    continue;
                }
                before = inode;
                let is_user = flags & USER != 0;
                *(if is_user { user } else { kernel }) += 1;
            }
        }
        Ok(Self(found))
    }

    /// The pages of one of the counted cgroups.
    pub fn of(&self, inode: u64) -> Pages {
        self.0.get(&inode).copied().unwrap_or_default()
    }
}
