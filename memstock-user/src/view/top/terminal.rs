//! Takes the terminal for the view, and restores it on every way out, panics and signals included. Knows nothing of
//! what is shown.

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

/// The terminal, in raw mode and on its alternate screen. Restored on `Drop`; on a panic, before its message is
/// printed.
#[derive(Debug)]
pub struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// There is none, or it cannot be set up.
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

    /// Makes the next `draw` redraw everything.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        self.0.clear().context("cannot write to the terminal")
    }

    /// Restores the terminal, stops this process as SIGTSTP does, and takes the terminal again on SIGCONT.
    ///
    /// # Errors
    /// The terminal cannot be set up.
    pub fn suspend(&mut self) -> Result<()> {
        self.0.show_cursor().context("cannot write to the terminal")?;
        ratatui::restore();
        emulate_default_handler(SIGTSTP).context("cannot stop")?;
        self.resume()
    }

    /// Takes back a terminal that others have used meanwhile.
    ///
    /// # Errors
    /// It cannot be set up.
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
        // The panic hook did it before printing the message. Doing it again would move the cursor back, and the message
        // would be overwritten.
        if !std::thread::panicking() {
            // The inner `Terminal` shows the cursor again. If the terminal is gone, there is nothing to restore.
            let _ = ratatui::try_restore();
        }
    }
}

fn give_back(error: io::Error) -> io::Error {
    let _ = ratatui::try_restore();
    error
}

/// Where keys come from. Polled before the backend reads, because that never returns from a terminal that is gone.
#[derive(Debug)]
pub struct Keyboard(Option<File>);

/// The result of a wait for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Nothing was typed.
    Nothing,
    /// There may be something to read; possibly a change of size.
    Typed,
    /// The terminal is gone.
    Gone,
}

impl Keyboard {
    /// Keys of the terminal on standard input, else of the controlling terminal, as in the backend.
    ///
    /// # Errors
    /// There is neither.
    pub fn open() -> Result<Self> {
        if io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        File::open("/dev/tty").map(|tty| Self(Some(tty))).context("there is no terminal for keys")
    }

    /// Waits until something is typed, a signal arrives, or the time is up.
    ///
    /// # Errors
    /// The terminal cannot be polled.
    pub fn wait(&self, at_most: Duration) -> Result<Waited> {
        let stdin = io::stdin();
        let keys = self.0.as_ref().map_or_else(|| stdin.as_fd(), |tty| tty.as_fd());
        let mut fds = [PollFd::from_borrowed_fd(keys, PollFlags::IN)];
        let at_most = Timespec::try_from(at_most).context("a wait")?;
        match poll(&mut fds, Some(&at_most)) {
            Ok(0) => Ok(Waited::Nothing),
            // The signal may be SIGWINCH.
            Err(Errno::INTR) => Ok(Waited::Typed),
            Ok(_) if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => {
                Ok(Waited::Gone)
            }
            Ok(_) => Ok(Waited::Typed),
            Err(error) => Err(error).context("cannot wait for the terminal"),
        }
    }
}

/// What signals requested; checked between two waits.
#[derive(Debug, Default)]
pub struct Signals {
    end: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    go_on: Arc<AtomicBool>,
}

impl Signals {
    /// Records signals from now on, in place of their default actions.
    ///
    /// # Errors
    /// A handler cannot be installed.
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

    /// Whether SIGINT, SIGTERM or SIGHUP asked the program to end.
    pub fn end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether SIGTSTP came since the last call.
    pub fn stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGCONT came since the last call.
    pub fn go_on(&self) -> bool {
        self.go_on.swap(false, Ordering::Relaxed)
    }
}
