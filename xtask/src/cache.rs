//! The cache, which outlives `cargo clean`: tools, log files, and its lock.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::exec::say;

/// The cache directory, created if it is missing.
pub fn dir() -> Result<PathBuf> {
    let dir = locate(|name| env::var_os(name).filter(|value| !value.is_empty()))
        .context("no place for a cache: set HOME or MEMSTOCK_CACHE")?;
    fs::create_dir_all(dir.join("logs"))
        .with_context(|| format!("cannot create {}; MEMSTOCK_CACHE moves it", dir.display()))?;
    Ok(dir)
}

/// `$MEMSTOCK_CACHE`, else `memstock` in `$XDG_CACHE_HOME`, else in `$HOME/.cache`.
fn locate(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(dir) = var("MEMSTOCK_CACHE") {
        return Some(dir.into());
    }
    let base = var("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(var("HOME")?).join(".cache")))?;
    Some(base.join("memstock"))
}

/// The log file of the step `name`.
pub fn log(name: &str) -> Result<PathBuf> {
    Ok(dir()?.join("logs").join(format!("{name}.log")))
}

/// Waits until no other set-up is installing, and takes the lock. Dropping the file, or the death of the process,
/// releases it.
pub fn lock() -> Result<File> {
    let path = dir()?.join("setup.lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            say("Setup", format_args!("waiting for another set-up ({})", path.display()));
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(vars: &[(&str, &str)]) -> Option<String> {
        let var = |name: &str| Some(vars.iter().find(|(key, _)| *key == name)?.1.into());
        locate(var).map(|path| path.display().to_string())
    }

    #[test]
    fn the_nearest_variable_wins() {
        let home = ("HOME", "/h");
        let xdg = ("XDG_CACHE_HOME", "/x");
        assert_eq!(at(&[home]).as_deref(), Some("/h/.cache/memstock"));
        assert_eq!(at(&[home, xdg]).as_deref(), Some("/x/memstock"));
        assert_eq!(at(&[home, xdg, ("MEMSTOCK_CACHE", "/m")]).as_deref(), Some("/m"));
        assert_eq!(at(&[]), None);
    }
}
