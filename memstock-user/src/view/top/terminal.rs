//! The terminal while the view has it: how it is taken, and given back as it was on every way out, a panic
//! and signals included. Knows nothing of what is shown.

use std::fs::File;
use std::io::{self, IsTerminal as _, Stdout};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::{Frame, Terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::flag::register;
use signal_hook::low_level::emulate_default_handler;

/// The terminal, in raw mode and on its alternate screen. Given back on `Drop`; a panic gives it back before its
/// message is printed.
#[derive(Debug)]
pub struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// There is none, or it refuses.
    pub fn enter() -> Result<Self> {
        ratatui::try_init().map(Self).map_err(give_back).context("cannot use this terminal")
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn draw(&mut self, view: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        self.0.draw(view).map(drop).context("cannot write to the terminal")
    }

    /// Has everything drawn anew the next time.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        self.0.clear().context("cannot write to the terminal")
    }

    /// Gives the terminal back, stops this process as SIGTSTP does, and takes it again once it goes on.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn suspend(&mut self) -> Result<()> {
        self.0.show_cursor().context("cannot write to the terminal")?;
        ratatui::restore();
        emulate_default_handler(SIGTSTP).context("cannot stop")?;
        self.resume()
    }

    /// Takes a terminal that others have used meanwhile.
    ///
    /// # Errors
    /// It refuses.
    pub fn resume(&mut self) -> Result<()> {
        enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen))
            .and_then(|()| self.0.hide_cursor())
            .context("cannot use this terminal")?;
        self.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The hook of a panic did it before its message was printed; a second time, the cursor would go back to
        // where it was before, and the message be written over.
        if !std::thread::panicking() {
            // The cursor is the inner one's to show. Where the terminal is gone, there is nothing to be done.
            let _ = ratatui::try_restore();
        }
    }
}

fn give_back(error: io::Error) -> io::Error {
    let _ = ratatui::try_restore();
    error
}

/// Where keys come from. Looked at before the backend reads them: it never returns from a terminal that is
/// gone.
#[derive(Debug)]
pub struct Keyboard(Option<File>);

/// What became of a wait for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Nothing was typed.
    Nothing,
    /// There may be something to be read, a change of size included.
    Typed,
    /// There is no terminal any more.
    Gone,
}

impl Keyboard {
    /// Of the terminal on standard input, else of the controlling one, as the backend has it.
    ///
    /// # Errors
    /// There is neither.
    pub fn open() -> Result<Self> {
        if io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        File::open("/dev/tty").map(|tty| Self(Some(tty))).context("there is no terminal for keys")
    }

    /// Waits until something is typed, a signal comes, or the time is up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn wait(&self, at_most: Duration) -> Result<Waited> {
        let stdin = io::stdin();
        let keys = self.0.as_ref().map_or_else(|| stdin.as_fd(), |tty| tty.as_fd());
        let mut fds = [PollFd::from_borrowed_fd(keys, PollFlags::IN)];
        let at_most = Timespec::try_from(at_most).context("a wait")?;
        match poll(&mut fds, Some(&at_most)) {
            Ok(0) => Ok(Waited::Nothing),
            // SIGWINCH may be among them.
            Err(Errno::INTR) => Ok(Waited::Typed),
            Ok(_) if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => {
                Ok(Waited::Gone)
            }
            Ok(_) => Ok(Waited::Typed),
            Err(error) => Err(error).context("cannot wait for the terminal"),
        }
    }
}

/// What signals asked for; looked at between two waits.
#[derive(Debug, Default)]
pub struct Signals {
    end: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    go_on: Arc<AtomicBool>,
}

impl Signals {
    /// Notes signals from now on, instead of what they would do.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn listen() -> Result<Self> {
        let signals = Self::default();
        let flags = [
            (SIGINT, &signals.end),
            (SIGTERM, &signals.end),
            (SIGHUP, &signals.end),
            (SIGTSTP, &signals.stop),
            (SIGCONT, &signals.go_on),
        ];
        for (signal, flag) in flags {
            register(signal, flag.clone()).context("cannot install a signal handler")?;
        }
        Ok(signals)
    }

    /// Whether this is to end: SIGINT, SIGTERM or SIGHUP came.
    pub fn end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether SIGTSTP came since the last question.
    pub fn stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGCONT came since the last question.
    pub fn go_on(&self) -> bool {
        self.go_on.swap(false, Ordering::Relaxed)
    }
}
