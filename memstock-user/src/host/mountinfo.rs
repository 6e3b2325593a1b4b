//! Owns reading and parsing `/proc/self/mountinfo`.
//!
//! The procfs crate reads it as UTF-8 and leaves the octal escapes in; one odd mount point
//! elsewhere would then hide all cgroups.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// One mount.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Mount {
    /// The device of its file system, as the kernel numbers it (`MKDEV` of include/linux/kdev_t.h).
    pub(crate) device: u32,
    /// Which directory of the file system is mounted.
    pub(crate) root: PathBuf,
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    pub(crate) fs_type: String,
    /// What was named as mounted; for a file system without a device, any name.
    pub(crate) source: Vec<u8>,
}

/// All mounts of this process, in the kernel's order.
///
/// # Errors
/// procfs is not mounted.
pub(crate) fn read() -> Result<Vec<Mount>> {
    let text = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// All mounts, in the kernel's order; lines that cannot be parsed are left out.
pub(crate) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    // `36 35 98:0 /root /point rw,noatime shared:1 master:2 - ext3 /dev/root rw`: any number of
    // optional fields before the lone dash.
    let mut words = line.split(|&byte| byte == b' ');
    let (major, minor) = str::from_utf8(words.nth(2)?).ok()?.split_once(':')?;
    let device = major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?;
    let root = path(words.next()?);
    let point = path(words.next()?);
    words.find(|word| *word == b"-")?;
    let fs_type = String::from_utf8_lossy(words.next()?).into_owned();
    let source = words.next()?.to_vec();
    Some(Mount { device, root, point, fs_type, source })
}

/// Blanks and backslashes in paths are written as three octal digits.
fn path(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    loop {
        rest = match rest {
            [] => break,
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn mounts_are_read() {
        let text = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            41 31 0:38 / /sys/fs/cgroup/a\\040b\\134\\011\xff rw shared:1 master:2 - cgroup2 cgroup2 rw\n\
            42 31 0:38 /x /y\\9 rw - cgroup none rw,memory\n\
            broken\n\n1 2 3 4 5 6 no dash\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].fs_type, "proc");
        assert_eq!(mounts[1].fs_type, "cgroup2");
        assert_eq!(mounts[1].point.as_os_str().as_bytes(), b"/sys/fs/cgroup/a b\\\t\xff");
        assert_eq!(
            mounts[2],
            Mount {
                device: 38,
                root: "/x".into(),
                point: "/y\\9".into(),
                fs_type: "cgroup".into(),
                source: b"none".to_vec(),
            }
        );
    }
}
