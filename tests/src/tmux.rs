//! A terminal for a full-screen program: a tmux server of its own, ended with everything in it on `Drop`.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::poll::{SOON, poll_until, try_poll_until};

/// The shell script that runs the program, and records its process id and the terminal's modes before and after. Not
/// an interactive shell, which would restore the modes by itself.
const SCRIPT: &str = r#"
cd "$1"; shift
stty -g >before
sh -c 'echo $$ >pid.new; mv pid.new pid; exec "$@"' sh "$@"
echo "ended with $?"
stty -g >after
exec cat
"#;

/// Whether tmux is installed.
pub fn exists() -> bool {
    Command::new("tmux").arg("-V").output().is_ok_and(|said| said.status.success())
}

/// A terminal with a program in it.
#[derive(Debug)]
pub struct Terminal {
    /// The server's socket, and what the script records.
    folder: TempDir,
}

impl Terminal {
    /// Starts `program` in a terminal of this size.
    ///
    /// # Errors
    /// When tmux does not start.
    pub fn start<A: AsRef<OsStr>>(
        (columns, lines): (u16, u16),
        environment: &[(&str, &str)],
        program: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("memstock-tmux-").tempdir()?;
        let terminal = Self { folder };
        let mut tmux = terminal.tmux("new-session");
        tmux.args(["-d", "-x", &columns.to_string(), "-y", &lines.to_string()]);
        // Programs inherit the server's environment, which must not depend on the test's.
        tmux.env_remove("NO_COLOR").env("LC_ALL", "C.UTF-8").envs(environment.iter().copied());
        tmux.args(["sh", "-c", SCRIPT, "sh"]).arg(terminal.folder.path()).args(program);
        run(&mut tmux)?;
        Ok(terminal)
    }

    fn tmux(&self, verb: &str) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_remove("TMUX").arg("-u").args(["-f", "/dev/null", "-S"]);
        tmux.arg(self.folder.path().join("socket")).arg(verb);
        tmux
    }

    /// Types keys by their tmux names: `q`, `C-c`, `Enter`, `Down`.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        run(self.tmux("send-keys").args(keys)).map(drop)
    }

    /// Types text.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn write(&self, text: &str) -> Result<()> {
        run(self.tmux("send-keys").args(["-l", text])).map(drop)
    }

    /// The text on the screen.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn screen(&self) -> Result<String> {
        run(self.tmux("capture-pane").arg("-p"))
    }

    /// The text on the screen, with the escape sequences for colours and modifiers.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn styled(&self) -> Result<String> {
        run(self.tmux("capture-pane").args(["-e", "-p"]))
    }

    /// A tmux variable of the terminal, such as `alternate_on`.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn variable(&self, name: &str) -> Result<String> {
        let said = run(self.tmux("display-message").args(["-p", &format!("#{{{name}}}")]))?;
        Ok(said.trim().to_owned())
    }

    /// Resizes the terminal.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn resize(&self, (columns, lines): (u16, u16)) -> Result<()> {
        let size = ["-x", &columns.to_string(), "-y", &lines.to_string()];
        run(self.tmux("resize-window").args(size)).map(drop)
    }

    /// Waits until `is` accepts the screen. Returns the screen.
    ///
    /// # Errors
    /// When it does not in time. Includes the screen.
    pub fn wait_for(&self, what: &str, mut is: impl FnMut(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let seen = try_poll_until(SOON, what, || {
            last = self.screen()?;
            // Each look starts a process.
            std::thread::sleep(Duration::from_millis(20));
            Ok(is(&last).then(|| last.clone()))
        });
        seen.with_context(|| format!("the screen is\n{last}"))
    }

    /// The process id of the program.
    ///
    /// # Errors
    /// When it does not start in time.
    pub fn pid(&self) -> Result<u32> {
        let file = self.folder.path().join("pid");
        let pid = try_poll_until(SOON, "the program's id", || Ok(fs::read_to_string(&file).ok()))?;
        Ok(pid.trim().parse()?)
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid()?.cast_signed()).context("a process id")?;
        kill_process(pid, signal).with_context(|| format!("{signal:?} to {pid:?}"))
    }

    /// Waits until the program ends, and checks that it has restored the terminal. Returns the exit code and the
    /// screen.
    ///
    /// # Errors
    /// When it does not end in time, or leaves the terminal in another state.
    pub fn restored(&self) -> Result<(i32, String)> {
        let ended = |screen: &str| {
            let line = screen.lines().find_map(|line| line.strip_prefix("ended with "))?;
            line.trim().parse::<i32>().ok()
        };
        let after = self.folder.path().join("after");
        let screen =
            self.wait_for("the program's end", |screen| ended(screen).is_some() && after.exists())?;
        let modes = try_poll_until(SOON, "the modes", || {
            let modes = self.modes("after")?;
            Ok((!modes.is_empty()).then_some(modes))
        })?;
        ensure!(modes == self.modes("before")?, "other modes than before: {modes}");
        for (name, value) in [("alternate_on", "0"), ("cursor_flag", "1"), ("mouse_any_flag", "0")]
        {
            ensure!(self.variable(name)? == value, "{name} is not {value}: {screen}");
        }
        Ok((ended(&screen).context("a code")?, screen))
    }

    /// The id and name of the program, if it has not ended.
    fn left(&self) -> Option<(Pid, String)> {
        let pid = fs::read_to_string(self.folder.path().join("pid")).ok()?;
        let pid = Pid::from_raw(pid.trim().parse().ok()?)?;
        let ended = self.folder.path().join("after").exists();
        (!ended).then(|| Some((pid, comm_of(pid)?))).flatten()
    }

    fn modes(&self, name: &str) -> Result<String> {
        let file: PathBuf = self.folder.path().join(name);
        fs::read_to_string(&file).with_context(|| file.display().to_string())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Before the server takes the terminal away. Nothing must outlive the test.
        let left = self.left();
        if let Err(error) = run(&mut self.tmux("kill-server")) {
            eprintln!("{error:#}");
        }
        let Some((pid, comm)) = left else { return };
        // Another process may get its id soon, but hardly one of the same name.
        let is_there = || comm_of(pid).is_some_and(|now| now == comm);
        let gone = || (!is_there()).then_some(());
        if let Err(error) = poll_until(SOON, "the program's end", gone) {
            eprintln!("{error:#}");
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn comm_of(pid: Pid) -> Option<String> {
    fs::read_to_string(format!("/proc/{}/comm", Pid::as_raw(Some(pid)))).ok()
}

fn run(tmux: &mut Command) -> Result<String> {
    let said = tmux.output().context("tmux")?;
    let error = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "{tmux:?}: {error}");
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}
