//! Runs programs. xtask starts every program through this module.
//!
//! An error names the command, how it ended and, for a logged command, where its output is.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How many lines of a log are shown when its command fails.
const TAIL: usize = 15;

/// The root of the workspace.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where cargo puts what it builds: this program is `TARGET/PROFILE/xtask`.
pub fn target_dir() -> PathBuf {
    let built = std::env::current_exe().ok();
    let target = built.as_deref().and_then(|exe| exe.parent()?.parent());
    target.map_or_else(|| root().join("target"), Path::to_path_buf)
}

/// The cargo that runs xtask, in the workspace.
pub fn cargo(args: &[&str]) -> Command {
    let mut cmd = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cmd.args(args).current_dir(root());
    cmd
}

/// Prints one line of progress to stderr.
pub fn say(verb: &str, what: impl std::fmt::Display) {
    eprintln!("{verb:>12} {what}");
}

/// Runs `cmd` with xtask's own input and output.
pub fn stream(cmd: &mut Command) -> Result<()> {
    let status = cmd.status().with_context(|| cannot_start(cmd))?;
    ended(cmd, status)
}

/// Runs `cmd` and calls `line` for each line of its standard output as it comes.
pub fn tee(cmd: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    let mut child = cmd.stdout(Stdio::piped()).spawn().with_context(|| cannot_start(cmd))?;
    let mut output = BufReader::new(child.stdout.take().context("a child without its output")?);
    let mut bytes = Vec::new();
    while output.read_until(b'\n', &mut bytes).with_context(|| describe(cmd))? > 0 {
        line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
        bytes.clear();
    }
    let status = child.wait().with_context(|| describe(cmd))?;
    ended(cmd, status)
}

/// Runs `cmd` and returns its standard output; the error has the first line of its stderr.
pub fn capture(cmd: &mut Command) -> Result<String> {
    let output = cmd.stdin(Stdio::null()).output().with_context(|| cannot_start(cmd))?;
    ended(cmd, output.status).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        said.lines().next().unwrap_or("it said nothing").trim().to_owned()
    })?;
    String::from_utf8(output.stdout).with_context(|| format!("output of `{}`", describe(cmd)))
}

/// Runs `cmd` with its output in the file `log`, and shows a spinner (on a terminal) or a line instead.
///
/// The outermost message of the error can stand alone; its cause has the last lines of the log.
pub fn logged(what: &str, cmd: &mut Command, log: &Path) -> Result<()> {
    let mut file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    writeln!(file, "$ {}", describe(cmd)).with_context(|| format!("write {}", log.display()))?;
    let both = file.try_clone().context("duplicate a file descriptor")?;
    cmd.stdin(Stdio::null()).stdout(both).stderr(file).env("RUST_BACKTRACE", "0");

    let started = Instant::now();
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    if spinner.is_hidden() {
        say("Setup", format_args!("{what} …"));
    } else {
        let style = ProgressStyle::with_template("{spinner:>12} {msg} … {elapsed}");
        spinner.set_style(style.context("the spinner's template")?);
        spinner.enable_steady_tick(Duration::from_millis(120));
    }
    let status = cmd.status();
    spinner.finish_and_clear();
    let status = status.with_context(|| cannot_start(cmd))?;
    if status.success() {
        say("Setup", format_args!("{what}: done in {:.0?}", started.elapsed()));
        return Ok(());
    }
    let text = fs::read(log).unwrap_or_default();
    Err(anyhow!("last lines of its output:\n{}", tail(&String::from_utf8_lossy(&text))))
        .with_context(|| format!("{what}: {status}; see {}", log.display()))
}

/// Replaces xtask by `cmd`, which then gets the signals and sets the exit code. Returns only on failure.
pub fn replace(cmd: &mut Command) -> Result<()> {
    Err(cmd.exec()).with_context(|| cannot_start(cmd))
}

fn ended(cmd: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", describe(cmd));
    }
    Ok(())
}

fn cannot_start(cmd: &Command) -> String {
    format!("cannot start `{}`; is it installed and on PATH?", describe(cmd))
}

/// The command as one would type it, without its environment.
fn describe(cmd: &Command) -> String {
    let program = Path::new(cmd.get_program()).file_name().unwrap_or(cmd.get_program());
    let words = std::iter::once(program).chain(cmd.get_args()).map(OsStr::to_string_lossy);
    words.collect::<Vec<_>>().join(" ")
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL)..];
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_described_as_typed() {
        let mut cmd = Command::new("/usr/bin/apt-get");
        assert_eq!(describe(cmd.args(["install", "-y"])), "apt-get install -y");
    }

    #[test]
    fn a_failure_names_the_log_and_shows_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("it.log");
        let script = "for i in $(seq 40); do echo line $i; done; exit 3";
        let error = logged("counting", Command::new("sh").args(["-c", script]), &log).unwrap_err();
        assert!(error.to_string().contains("it.log"), "{error}");
        let all = format!("{error:#}");
        assert!(all.contains("line 40") && !all.contains("line 25\n"), "{all}");
    }
}
