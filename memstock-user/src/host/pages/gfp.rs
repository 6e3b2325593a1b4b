//! Owns reading GFP flags from the format text of the `mm_page_alloc` event: before 6.9 the flags are macros, which BTF
//! does not have. Must not leave anything mounted.

use crate::exit::{Classify as _, Failure};
use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::fs::{self, File};
use std::io::{self, Read as _};

const FORMAT: &str = "events/kmem/mm_page_alloc/format";
/// Where tracefs is mounted on most hosts.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The masks of the flags with these names, such as `__GFP_MOVABLE`.
///
/// # Errors
///
/// [`Failure::Host`] when tracefs cannot be read or does not name a flag.
pub(super) fn masks<const N: usize>(names: [&str; N]) -> Result<[u32; N]> {
    let text = format_text().classify(Failure::Host, || {
        format!(
            "cannot read {FORMAT} in tracefs: memstock needs a kernel with CONFIG_EVENT_TRACING"
        )
    })?;
    let mut masks = [0; N];
    for (mask, name) in masks.iter_mut().zip(names) {
        *mask = flag(&text, name)
            .with_context(|| format!("its print format has no value for {name}"))
            .classify(Failure::Host, || format!("{FORMAT} in tracefs is not understood"))?;
    }
    Ok(masks)
}

fn format_text() -> io::Result<String> {
    for mount in MOUNTS {
        // Whatever the error, our own mount does not depend on these.
        if let Ok(text) = fs::read_to_string(format!("{mount}/{FORMAT}")) {
            return Ok(text);
        }
    }
    detached_format_text()
}

/// Reads it from a detached mount, which goes away with its descriptor.
fn detached_format_text() -> io::Result<String> {
    let tracefs = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&tracefs)?;
    let root = fsmount(&tracefs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let file = openat(root, FORMAT, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text)?;
    Ok(text)
}

/// The value of the flag in a list such as `{(unsigned long)((gfp_t)0x08u), "__GFP_MOVABLE"}, …`
/// (`show_gfp_flags` in include/trace/events/mmflags.h).
fn flag(format: &str, name: &str) -> Option<u32> {
    let (before, _) = format.split_once(&format!(", \"{name}\"}}"))?;
    let (_, expression) = before.rsplit_once('{')?;
    // Without casts and parentheses, it is a number, or one shifted left.
    let bare = expression.replace("unsigned long", "").replace("gfp_t", "");
    let bare: String = bare.chars().filter(|c| !matches!(c, '(' | ')' | ' ')).collect();
    match bare.split_once("<<") {
        Some((one, shift)) => {
            let mask = number(one)?.checked_shl(number(shift)?)?;
            (mask.is_power_of_two()).then_some(mask)
        }
        None => number(&bare).filter(|mask| mask.is_power_of_two()),
    }
}

/// Parses a number as in C: `0x08u`, `10`, `1UL`.
fn number(text: &str) -> Option<u32> {
    let text = text.trim_end_matches(['u', 'U', 'l', 'L']);
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.1.
    const LITERAL: &str = r#"print fmt: "page=%p gfp_flags=%s", REC->order, (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|", {( unsigned long)(((((( gfp_t)(0x400u|0x800u)) | (( gfp_t)0x40u) | (( gfp_t)0x80u) | (( gfp_t)0x100000u)) | (( gfp_t)0x02u)) | (( gfp_t)0x08u)) | (( gfp_t)0)), "GFP_HIGHUSER_MOVABLE"}, {(unsigned long)((gfp_t)0x40u), "__GFP_IO"}, {( unsigned long)(( gfp_t)(0x400u|0x800u)), "__GFP_RECLAIM"}, {(unsigned long)((gfp_t)0x08u), "__GFP_MOVABLE"}, {(unsigned long)((gfp_t)0x400000u), "__GFP_ACCOUNT"}) : "none""#;
    /// Linux 6.18.
    const SHIFTED: &str = r#"print fmt: "gfp_flags=%s", (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|", {( unsigned long)((((( gfp_t)(((((1UL))) << (10))|((((1UL))) << (11)))) | (( gfp_t)((((1UL))) << (6)))) | (( gfp_t)((((1UL))) << (22)))), "GFP_KERNEL_ACCOUNT"}, {( unsigned long)(( gfp_t)((((1UL))) << (3))), "__GFP_MOVABLE"}, {( unsigned long)(( gfp_t)((((1UL))) << (22))), "__GFP_ACCOUNT"}, { 0, ((void *)0) } ) : "none""#;

    #[test]
    fn both_ways_to_write_a_flag() {
        for format in [LITERAL, SHIFTED] {
            assert_eq!(flag(format, "__GFP_MOVABLE"), Some(0x08));
            assert_eq!(flag(format, "__GFP_ACCOUNT"), Some(0x40_0000));
            assert_eq!(flag(format, "__GFP_NONE"), None);
            // A mask of several bits is not a flag.
            assert_eq!(flag(format, "__GFP_RECLAIM"), None);
            assert_eq!(flag(format, "GFP_KERNEL_ACCOUNT"), None);
        }
        for value in ["", "0", "x", "0x", "1 << 32", "2 << 31", "___GFP_IO_BIT", "0x3u"] {
            assert_eq!(flag(&format!("{{{value}, \"F\"}}"), "F"), None, "{value}");
        }
    }

    /// Does not need tracefs to be mounted.
    #[test]
    fn this_kernel_describes_its_flags() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let text = detached_format_text().unwrap();
        let movable = flag(&text, "__GFP_MOVABLE").unwrap();
        let account = flag(&text, "__GFP_ACCOUNT").unwrap();
        assert_eq!(masks(["__GFP_MOVABLE", "__GFP_ACCOUNT"]).unwrap(), [movable, account]);
        assert_ne!(movable, account);
    }
}
