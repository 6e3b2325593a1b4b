//! What must be undone even if this process dies: a file in which another text is to be written. A second
//! process, the *guard*, hears of each before it is done, and does what is left when it hears no more.
//!
//! The guard is `memstock guard`, with the one end of a pipe as its standard input. The kernel closes
//! the other end whenever and however the daemon dies. One line a message, `+N TEXT PATH` and `-N`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The daemon's side.
#[derive(Debug)]
pub struct Undo {
    guard: Child,
    pipe: Option<ChildStdin>,
    next: u64,
}

/// Something that is to be undone.
#[derive(Debug)]
pub struct Todo(u64);

impl Undo {
    /// Starts the guard.
    ///
    /// # Errors
    /// No process can be started.
    pub fn start() -> Result<Self> {
        let this = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(this);
        command.arg("guard").stdin(Stdio::piped()).stdout(Stdio::null());
        // A signal to the terminal's foreground group is not for it.
        command.process_group(0);
        let mut guard = command.spawn().context("cannot start the guard")?;
        let pipe = guard.stdin.take();
        Ok(Self { guard, pipe, next: 0 })
    }

    /// Says that `text` is to be written to `path`, some time.
    ///
    /// # Errors
    /// The guard is gone: then nothing may be done that has to be undone.
    pub fn add(&mut self, path: &Path, text: &str) -> Result<Todo> {
        let path = path.as_os_str().as_bytes();
        ensure!(!path.contains(&b'\n') && !text.contains([' ', '\n']), "no line can say this");
        self.next += 1;
        let mut line = format!("+{} {text} ", self.next).into_bytes();
        line.extend(path);
        self.send(&line).map(|()| Todo(self.next))
    }

    /// Says that it was.
    pub fn done(&mut self, Todo(number): Todo) {
        // A guard that is gone needs not be told.
        let _ = self.send(format!("-{number}").as_bytes());
    }

    fn send(&mut self, line: &[u8]) -> Result<()> {
        let pipe = self.pipe.as_mut().context("the guard has ended")?;
        let mut line = line.to_vec();
        line.push(b'\n');
        pipe.write_all(&line).context("the guard is gone")
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        self.pipe = None;
        let _ = self.guard.wait();
    }
}

/// The guard's life: hears from `input` until it ends, then undoes what is left.
///
/// # Errors
/// The first that cannot be undone, after all others were tried.
pub fn guard(input: impl BufRead) -> Result<()> {
    let mut result = Ok(());
    for (path, text) in left(input).into_values() {
        match fs::write(&path, text) {
            // It went with its cgroup.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {}
            written => {
                let what = || format!("cannot write {}", path.display());
                result = result.and(written.with_context(what));
            }
        }
    }
    result
}

/// What was said to be done and not to be undone.
fn left(mut input: impl BufRead) -> BTreeMap<u64, (PathBuf, String)> {
    let mut left = BTreeMap::new();
    let mut line = Vec::new();
    // A last line without an end was not said in full, so what it is about was not done.
    while let Ok(1..) = read_line(&mut input, &mut line) {
        let Some(b'\n') = line.pop() else { break };
        match parse(&line) {
            Some((number, Some(todo))) => drop(left.insert(number, todo)),
            Some((number, None)) => drop(left.remove(&number)),
            None => {}
        }
    }
    left
}

fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    input.read_until(b'\n', line)
}

fn parse(line: &[u8]) -> Option<(u64, Option<(PathBuf, String)>)> {
    let (sign, rest) = line.split_first()?;
    let mut parts = rest.splitn(3, |&byte| byte == b' ');
    let number = str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    if *sign == b'-' {
        return Some((number, None));
    }
    let text = String::from_utf8(parts.next()?.to_vec()).ok()?;
    let path = OsString::from_vec(parts.next()?.to_vec()).into();
    Some((number, Some((path, text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_undone_is_left() {
        let said = b"+1 0 /a b\n+2 1 /c\n-1\n+3 0 /d\n-2\n+4 0 /torn";
        let left = left(&said[..]);
        assert_eq!(left.into_values().collect::<Vec<_>>(), [("/d".into(), "0".to_owned())]);
    }

    #[test]
    fn the_guard_undoes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("freeze of x");
        fs::write(&path, "1").unwrap();
        let said = format!("+1 0 {}\n+2 0 /no/such/file\n", path.display());
        guard(said.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0");
        guard(format!("+1 0 {}\n", dir.path().display()).as_bytes()).unwrap_err();
    }
}
