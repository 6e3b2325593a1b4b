//! Reads and writes lines without allocating.

use anyhow::{Context, Result};
use rustix::io::{read, write};
use rustix::stdio::{stdin, stdout};

/// Lines of standard input, in a fixed buffer.
pub(super) struct Lines {
    bytes: [u8; 256],
    start: usize,
    end: usize,
}

impl Lines {
    /// Starts with nothing read.
    pub(super) fn new() -> Self {
        Self { bytes: [0; 256], start: 0, end: 0 }
    }

    /// The next line; `None` at the end of input.
    pub(super) fn next(&mut self) -> Result<Option<&str>> {
        loop {
            let unread = &self.bytes[self.start..self.end];
            if let Some(length) = unread.iter().position(|byte| *byte == b'\n') {
                let line = self.start..self.start + length;
                self.start = line.end + 1;
                return Ok(Some(str::from_utf8(&self.bytes[line]).unwrap_or_default()));
            }
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            anyhow::ensure!(self.end < self.bytes.len(), "a command of {} bytes", self.end);
            let count = read(stdin(), &mut self.bytes[self.end..]).context("standard input")?;
            if count == 0 {
                return Ok(None);
            }
            self.end += count;
        }
    }
}

/// Writes without a buffer.
pub(super) fn send(mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let count = write(stdout(), bytes).context("standard output")?;
        bytes = &bytes[count..];
    }
    Ok(())
}
