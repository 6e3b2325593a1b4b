//! Reports tests that a host cannot run, so that none is skipped silently.

use std::fs::OpenOptions;
use std::io::Write;

/// The environment variable that names the file in which `cargo xtask test` collects skips.
pub const SKIPS: &str = "MEMSTOCK_SKIPS";

/// The environment variable that `cargo xtask vm` sets in a guest.
pub const GUEST: &str = "MEMSTOCK_GUEST";

/// Whether this is a guest of `cargo xtask vm`, which has the test binaries and little else.
pub fn in_guest() -> bool {
    std::env::var_os(GUEST).is_some()
}

/// Reports that the test `name` does not run here, and why.
pub fn skip(name: &str, reason: &str) {
    eprintln!("skipped: {name}: {reason}");
    let Some(path) = std::env::var_os(SKIPS) else {
        return;
    };
    // In one write, so that lines of tests that run at the same time do not mix.
    let line = format!("{name}: {reason}\n");
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot note the skip in {}: {error}", path.display());
    }
}
