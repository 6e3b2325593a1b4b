//! Owns the three files in `/proc` with one word for each page frame of the host. Must not interpret the words: `kind`
//! does that for the flags.

use super::words;
use crate::exit::{Classify as _, Failure};
use anyhow::Result;
use std::fs::File;
use std::io;

/// An array in `/proc` that is indexed by page frame number.
#[derive(Debug)]
pub struct KernelPages {
    file: File,
}

impl KernelPages {
    /// `/proc/kpagecgroup`: the inode number of the memory cgroup that the page is charged to, or of its nearest
    /// ancestor that still exists (`page_cgroup_ino` in mm/memcontrol.c); 0 for none. On cgroup v2 the inode number is
    /// the cgroup's id.
    ///
    /// `None` on kernels without `CONFIG_MEMCG`. With `cgroup_disable=memory` all words are 0.
    ///
    /// # Errors
    ///
    /// [`Failure::Permission`] or [`Failure::Host`] when it cannot be opened.
    pub fn cgroups() -> Result<Option<Self>> {
        match File::open("/proc/kpagecgroup") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened_as("/proc/kpagecgroup", opened).map(Some),
        }
    }

    /// `/proc/kpageflags`: what the page is used for, see [`Kind::of`](super::Kind::of).
    ///
    /// # Errors
    ///
    /// [`Failure::Permission`] or [`Failure::Host`] when it cannot be opened.
    pub fn flags() -> Result<Self> {
        opened_as("/proc/kpageflags", File::open("/proc/kpageflags"))
    }

    /// `/proc/kpagecount`: how many page table entries map the page; on some kernels, for a page of a larger
    /// allocation, the average over the allocation (`get_kpage_count`).
    ///
    /// # Errors
    ///
    /// [`Failure::Permission`] or [`Failure::Host`] when it cannot be opened.
    pub fn counts() -> Result<Self> {
        opened_as("/proc/kpagecount", File::open("/proc/kpagecount"))
    }

    /// Reads the words of the pages from `first_pfn` on into `out`; returns how many.
    ///
    /// There are fewer than asked for only at the end of the kernel's page frames. A frame without a page has the word
    /// 0, or `KPF_NOPAGE` in `/proc/kpageflags` of older kernels.
    ///
    /// # Errors
    ///
    /// Those of pread(2).
    pub fn read(&self, first_pfn: u64, out: &mut [u64]) -> io::Result<usize> {
        words::read(&self.file, first_pfn, out)
    }
}

fn opened_as(path: &str, opened: io::Result<File>) -> Result<KernelPages> {
    let (kind, why) = match opened.as_ref().map_err(io::Error::kind) {
        Err(io::ErrorKind::PermissionDenied) => {
            (Failure::Permission, "memstock needs root on the host: run it with sudo")
        }
        _ => (Failure::Host, "memstock needs procfs and a kernel with CONFIG_PROC_PAGE_MONITOR"),
    };
    let file = opened.classify(kind, || format!("cannot open {path}: {why}"))?;
    Ok(KernelPages { file })
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, end_pfn, own_pfn};
    use super::*;
    use crate::exit::exit_code;
    use crate::host::mountinfo;
    use crate::host::page_size;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    /// The word of one of our pages is the inode of our memory cgroup or, on v2, of the nearest ancestor that has the
    /// memory controller.
    #[test]
    fn our_pages_are_charged_to_our_cgroup() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let page = vec![1u8; 1 << 16];
        let mut word = [0];
        let pfn = own_pfn(page[1 << 15..].as_ptr()).unwrap();
        let cgroups = KernelPages::cgroups().unwrap().expect("this test needs CONFIG_MEMCG");
        assert_eq!(cgroups.read(pfn, &mut word).unwrap(), 1);

        let ours = fs::read_to_string("/proc/self/cgroup").unwrap();
        let mounts = mountinfo::read().unwrap();
        let inodes: Vec<u64> = ours
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2)?.strip_prefix('/'))
            .flat_map(|path| mounts.iter().map(move |mount| (mount, path)))
            .filter(|(mount, _)| mount.fs_type.starts_with("cgroup"))
            .flat_map(|(mount, path)| {
                Path::new(path).ancestors().map(|path| mount.point.join(path)).collect::<Vec<_>>()
            })
            .filter_map(|dir| Some(fs::metadata(dir).ok()?.ino()))
            .collect();
        assert!(inodes.contains(&word[0]), "{word:?} {inodes:?}");
    }

    /// Compares with the kernel's own counts whether the bits mean what we think.
    #[test]
    fn all_pages_add_up() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let meminfo = |name: &str| {
            let text = fs::read_to_string("/proc/meminfo").unwrap();
            let rest = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let kib: u64 = rest.trim().strip_suffix("kB").unwrap().trim().parse().unwrap();
            kib * 1024 / page_size()
        };
        let (mut slab, mut tables, mut all) = (0, 0, 0);
        let (before, end) = (meminfo("Slab:"), end_pfn().unwrap());
        let (flags, mut words) = (KernelPages::flags().unwrap(), vec![0; 1 << 14]);
        loop {
            let count = flags.read(all, &mut words).unwrap();
            for kind in words[..count].iter().map(|&word| Kind::of(word)) {
                slab += u64::from(kind == Kind::Slab);
                tables += u64::from(kind == Kind::PageTable);
            }
            all += count as u64;
            if count == 0 {
                break;
            }
        }
        let after = meminfo("Slab:");
        // The file ends with the last section that has memory, which does not end before the last zone.
        assert_eq!(all, end);
        // Others allocate and free meanwhile. A wrong bit would count none at all, and counting only the first page of
        // large slabs about a third.
        let expected = before.min(after) * 3 / 4..=before.max(after) * 4 / 3;
        assert!(expected.contains(&slab), "{slab} is not in {expected:?}");
        // Page tables come and go with processes; our own exist.
        assert!(tables > 0);
    }

    #[test]
    fn failures_say_what_to_do() {
        for (kind, code, text) in [
            (io::ErrorKind::PermissionDenied, 120, "with sudo"),
            (io::ErrorKind::NotFound, 121, "CONFIG_PROC_PAGE_MONITOR"),
        ] {
            let error = opened_as("/proc/x", Err(kind.into())).unwrap_err();
            assert_eq!(exit_code(&error), code);
            assert!(error.to_string().contains(text));
        }
    }
}
