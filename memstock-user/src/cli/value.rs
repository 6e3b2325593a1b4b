//! Values of flags, and how they are written.

use std::path::PathBuf;

use memstock_common::{MAX_BATCH, MAX_SLOTS};

use crate::size;

/// A value of `--batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// What suits this machine.
    Auto,
    /// So many.
    Pages(u32),
}

pub(super) fn batch(value: &str) -> Result<Batch, String> {
    match value.parse::<u32>() {
        _ if value == "auto" => Ok(Batch::Auto),
        Ok(pages) if (1..=MAX_BATCH).contains(&pages) => Ok(Batch::Pages(pages)),
        _ => Err(format!("neither \"auto\" nor a number in 1..={MAX_BATCH}")),
    }
}

/// A value of `--limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Only for this cgroup.
    pub cgroup: Option<PathBuf>,
    /// Pages, or none for no limit.
    pub nr_pages: Option<u64>,
}

/// A value of `--kernel-cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCgroup {
    /// The tracked cgroup that it stands for, unless it is the first one.
    pub cgroup: Option<PathBuf>,
    /// The kernel's: a directory, or a path in the v1 memory hierarchy.
    pub path: PathBuf,
}

pub(super) fn kernel_cgroup(value: &str) -> Result<KernelCgroup, String> {
    let (cgroup, path) = match value.rsplit_once('=') {
        Some((cgroup, path)) => (Some(cgroup), path),
        None => (None, value),
    };
    if path.is_empty() || cgroup.is_some_and(str::is_empty) {
        return Err("an empty path names no cgroup".into());
    }
    Ok(KernelCgroup { cgroup: cgroup.map(PathBuf::from), path: path.into() })
}

/// Pages, or none for no limit: a type of its own for clap, to which `Option<u64>` means another thing.
pub(super) type Limited = Option<u64>;

pub(super) fn limited(value: &str) -> Result<Limited, String> {
    size::parse_size(value).map_err(|error| error.to_string())
}

pub(super) fn slots(value: &str) -> Result<u32, String> {
    match value.parse::<u32>() {
        Ok(slots) if slots.is_power_of_two() && slots <= MAX_SLOTS => Ok(slots),
        _ => Err(format!("not a power of two in 1..={MAX_SLOTS}")),
    }
}

pub(super) fn limit(value: &str) -> Result<Limit, String> {
    if let Some((cgroup, size)) = value.rsplit_once('=') {
        let nr_pages = size::parse_size(size).map_err(|error| error.to_string())?;
        return Ok(Limit { cgroup: Some(cgroup.into()), nr_pages });
    }
    let nr_pages = size::parse_size(value).map_err(|error| error.to_string())?;
    Ok(Limit { cgroup: None, nr_pages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_for_all_or_for_one() {
        assert_eq!(limit("1M").unwrap().cgroup, None);
        let one = limit("/a=b/c=8K").unwrap();
        assert_eq!(one.cgroup.unwrap(), PathBuf::from("/a=b/c"));
        assert!(limit("12Q").is_err());
        assert!(limit("/a=").is_err());
    }

    #[test]
    fn a_kernel_cgroup_is_for_the_first_or_for_one() {
        let first = KernelCgroup { cgroup: None, path: "/x".into() };
        assert_eq!(kernel_cgroup("/x"), Ok(first));
        let one = KernelCgroup { cgroup: Some("/a=b".into()), path: "/x".into() };
        assert_eq!(kernel_cgroup("/a=b=/x"), Ok(one));
        for bad in ["", "=", "/a=", "=/x"] {
            assert!(kernel_cgroup(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_batch_is_a_number_or_left_to_us() {
        assert_eq!(batch("auto"), Ok(Batch::Auto));
        assert_eq!(batch("1024"), Ok(Batch::Pages(1024)));
        for bad in ["0", "1025", "-1", "Auto", ""] {
            assert!(batch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slots_are_a_power_of_two() {
        assert_eq!(slots("8"), Ok(8));
        for bad in ["0", "3", "128", "-1", "x"] {
            assert!(slots(bad).is_err(), "{bad}");
        }
    }
}
