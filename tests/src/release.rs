//! The version of the running kernel.

use std::fs;

use anyhow::{Context, Result};

/// Version and patch level of the kernel, such as (6, 12).
///
/// # Errors
/// When it cannot be read or parsed.
pub fn release() -> Result<(u32, u32)> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").context("no kernel release")?;
    let mut numbers = text.split(['.', '-']).map(str::parse);
    let (Some(Ok(version)), Some(Ok(level))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("a kernel release of another form: {text}");
    };
    Ok((version, level))
}
