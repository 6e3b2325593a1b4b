//! Owns the facts about the kernel's structures that are passed to the kernel half when it is loaded. Must not parse:
//! `btf` and `gfp` do.

use super::btf::Btf;
use super::gfp;
use crate::exit::{Classify as _, Failure};
use anyhow::Result;
use memstock_common::layout::{FolioLayout, GfpFlags, MemoryOwner, PageLayout};
use std::fs;
use std::io;
use std::path::Path;

pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Sizes, offsets and flags that differ from kernel to kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// `sizeof(struct page)`, in bytes; never 0.
    pub page_struct_size: u64,
    /// The flags of an allocation that tell whether the kernel charges it.
    pub gfp: GfpFlags,
    /// `offsetof(struct cgroup, kn)`, in bytes: a pointer to its `struct kernfs_node`.
    pub cgroup_kn: u32,
    /// `offsetof(struct kernfs_node, id)`, in bytes: 64 bits, the cgroup's id.
    pub kernfs_id: u32,
    /// `offsetof(struct cgroup, root)`, in bytes: a pointer to the `struct cgroup_root` of its hierarchy.
    pub cgroup_root: u32,
    /// `offsetof(struct cgroup_root, hierarchy_id)`, in bytes: 32 bits, 0 for cgroup v2.
    pub hierarchy_id: u32,
    /// How to find the owner of memory, or [`MemoryOwner::UNKNOWN`].
    pub memory_owner: MemoryOwner,
    /// How to tell that a page is free, or [`PageLayout::UNKNOWN`].
    pub page: PageLayout,
    /// `offsetof(struct task_struct, tgid)`, in bytes: an int.
    pub task_tgid: u32,
    /// How to tell the size and use of a folio, or [`FolioLayout::UNKNOWN`].
    pub folio: FolioLayout,
}

impl Layout {
    /// Reads it from the running kernel's BTF; on kernels before 6.9, reads the flags from tracefs, which need not be
    /// mounted.
    ///
    /// # Errors
    ///
    /// [`Failure::Host`] when the kernel has no BTF or it lacks something.
    pub fn read() -> Result<Self> {
        Self::read_from(Path::new(VMLINUX))
    }

    fn read_from(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        let btf = parse(&bytes)?;
        let page = btf.struct_size("page").filter(|&size| size > 0);
        Ok(Self {
            page_struct_size: page.map(u64::from).ok_or_else(|| lacks("struct page"))?,
            gfp: gfp_flags(&btf)?,
            cgroup_kn: offset(&btf, "cgroup", "kn")?,
            kernfs_id: offset(&btf, "kernfs_node", "id")?,
            cgroup_root: offset(&btf, "cgroup", "root")?,
            hierarchy_id: offset(&btf, "cgroup_root", "hierarchy_id")?,
            task_tgid: offset(&btf, "task_struct", "tgid")?,
            page: page_layout(&btf).unwrap_or(PageLayout::UNKNOWN),
            folio: folio(&btf).unwrap_or(FolioLayout::UNKNOWN),
            memory_owner: memory_owner(&btf).unwrap_or(MemoryOwner::UNKNOWN),
        })
    }
}

/// The file with the running kernel's types.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path);
    let gone = matches!(&bytes, Err(error) if error.kind() == io::ErrorKind::NotFound);
    bytes.classify(Failure::Host, || {
        if gone {
            "this kernel has no BTF: memstock needs one with CONFIG_DEBUG_INFO_BTF".into()
        } else {
            format!("cannot read {}", path.display())
        }
    })
}

pub(super) fn parse(bytes: &[u8]) -> Result<Btf<'_>> {
    Btf::parse(bytes).classify(Failure::Host, || {
        "the kernel's BTF is not understood: this kernel is not supported".into()
    })
}

/// The flags that memstock uses.
const FLAGS: [&str; 8] = [
    "__GFP_ACCOUNT",
    "__GFP_MOVABLE",
    "__GFP_HARDWALL",
    "__GFP_IO",
    "__GFP_HIGHMEM",
    "__GFP_NOMEMALLOC",
    "__GFP_NORETRY",
    "__GFP_COMP",
];

fn gfp_flags(btf: &Btf<'_>) -> Result<GfpFlags> {
    let masks = FLAGS.map(|name| bit(btf, &format!("_{name}_BIT")));
    let masks = if masks.contains(&None) {
        gfp::masks(FLAGS)?
    } else {
        masks.map(|mask| mask.unwrap_or(0))
    };
    Ok(of_masks(masks))
}

/// Makes them from the masks of [`FLAGS`].
const fn of_masks(masks: [u32; 8]) -> GfpFlags {
    let [account, movable, hardwall, io, highmem, nomemalloc, noretry, compound] = masks;
    GfpFlags {
        account,
        user: movable | hardwall | io,
        high: highmem | hardwall,
        movable,
        io,
        large: nomemalloc | noretry,
        compound,
    }
}

fn memory_owner(btf: &Btf<'_>) -> Option<MemoryOwner> {
    Some(MemoryOwner {
        task_mm: btf.member_offset("task_struct", "mm")?,
        task_group_leader: btf.member_offset("task_struct", "group_leader")?,
        mm_owner: btf.member_offset("mm_struct", "owner")?,
        task_cgroups: btf.member_offset("task_struct", "cgroups")?,
        task_flags: btf.member_offset("task_struct", "flags")?,
        css_set_dfl_cgrp: btf.member_offset("css_set", "dfl_cgrp")?,
        cgroup_level: btf.member_offset("cgroup", "level")?,
        cgroup_ancestors: btf.member_offset("cgroup", "ancestors")?,
    })
}

fn page_layout(btf: &Btf<'_>) -> Option<PageLayout> {
    // Type numbers since Linux 6.12; before, flags that are cleared, with a base that BTF does not have.
    let (buddy_mask, buddy) = match btf.enumerator("PGTY_buddy") {
        Some(number) => (0xff << 24, u32::try_from(number).ok()? << 24),
        None if btf.enumerator("PG_buddy").is_some() => (0x8000_0000 | 0x4000_0000, 0x8000_0000),
        None => (0xf000_0080, 0xf000_0000),
    };
    // Its name until Linux 7.0. It holds something else about the first page since, but is odd for the same pages.
    let compound_head = btf.member_offset("page", "compound_head");
    Some(PageLayout {
        refcount: btf.member_offset("page", "_refcount")?,
        compound_head: compound_head.or_else(|| btf.member_offset("page", "compound_info"))?,
        page_type: btf.member_offset("page", "page_type")?,
        buddy_mask,
        buddy,
    })
}

fn folio(btf: &Btf<'_>) -> Option<FolioLayout> {
    // Its name until Linux 6.15.
    let nr_pages = btf.member_offset("folio", "_nr_pages");
    Some(FolioLayout {
        flags: btf.member_offset("folio", "flags")?,
        head_bit: bit_number(btf, "PG_head")?,
        swapbacked_bit: bit_number(btf, "PG_swapbacked")?,
        nr_pages: nr_pages.or_else(|| btf.member_offset("folio", "_folio_nr_pages"))?,
        mapping: btf.member_offset("folio", "mapping")?,
        mapping_flags: btf.member_offset("address_space", "flags")?,
        unevictable_bit: bit_number(btf, "AS_UNEVICTABLE")?,
        kernel_file: bit(btf, "AS_KERNEL_FILE").unwrap_or(0),
        mapping_host: btf.member_offset("address_space", "host")?,
        inode_sb: btf.member_offset("inode", "i_sb")?,
        sb_magic: btf.member_offset("super_block", "s_magic")?,
        index: btf.member_offset("folio", "index")?,
        inode_ino: btf.member_offset("inode", "i_ino")?,
        inode_generation: btf.member_offset("inode", "i_generation")?,
        inode_size: btf.member_offset("inode", "i_size")?,
        sb_dev: btf.member_offset("super_block", "s_dev")?,
    })
}

/// Whether the running kernel's BTF, which anybody may read, has a tracepoint: it has a type for the arguments of each
/// (`btf_trace_NAME` of include/trace/bpf_probe.h). A tracepoint without one may still exist.
///
/// # Errors
///
/// It cannot be read or understood.
pub fn names_tracepoint(name: &str) -> Result<bool> {
    let bytes = fs::read(VMLINUX)?;
    Ok(Btf::parse(&bytes)?.has_typedef(&format!("btf_trace_{name}")))
}

fn bit_number(btf: &Btf<'_>, name: &str) -> Option<u32> {
    u32::try_from(btf.enumerator(name)?).ok().filter(|&bit| bit < u64::BITS)
}

/// The mask of a flag whose bit number BTF has.
fn bit(btf: &Btf<'_>, name: &str) -> Option<u32> {
    1u32.checked_shl(u32::try_from(btf.enumerator(name)?).ok()?)
}

fn offset(btf: &Btf<'_>, name: &str, member: &str) -> Result<u32> {
    btf.member_offset(name, member).ok_or_else(|| lacks(&format!("{member} in struct {name}")))
}

fn lacks(what: &str) -> anyhow::Error {
    Failure::Host.error(format!("the kernel's BTF has no {what}: this kernel is not supported"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::exit_code;

    #[test]
    fn this_kernels_layout() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let layout = Layout::read().unwrap();
        assert!(layout.page_struct_size >= 32 && layout.page_struct_size.is_multiple_of(8));
        assert!(layout.cgroup_kn.is_multiple_of(8) && layout.kernfs_id.is_multiple_of(8));
        let owner = layout.memory_owner;
        assert!(layout.page != PageLayout::UNKNOWN);
        assert!(owner != MemoryOwner::UNKNOWN && layout.folio != FolioLayout::UNKNOWN);
        assert!(owner.mm_owner.is_multiple_of(8) && owner.cgroup_ancestors.is_multiple_of(8));
        // The event's format text is another source for the same flags.
        assert_eq!(layout.gfp, of_masks(gfp::masks(FLAGS).unwrap()));
    }

    #[test]
    fn without_btf_it_says_what_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vmlinux");
        let gone = Layout::read_from(&file).unwrap_err();
        assert!(gone.to_string().contains("CONFIG_DEBUG_INFO_BTF"), "{gone:#}");
        fs::write(&file, "ELF").unwrap();
        let broken = Layout::read_from(&file).unwrap_err();
        assert!(broken.to_string().contains("not understood"), "{broken:#}");
        assert_eq!((exit_code(&gone), exit_code(&broken)), (121, 121));
    }
}
