//! The loop of the full-screen view: takes readings, events and keys; draws, and drains on request.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::style::force_color_output;

use super::app::{App, Target};
use super::draw::{Theme, draw};
use super::keys::{Action, press};
use super::source::{Source, ended};
use super::terminal::{Keyboard, Screen, Signals, Waited};
use crate::enforce::drains;
use crate::engine::kernel_slots::KernelSlots;
use crate::host::page_size;
use crate::journal::record::Cgroup;
use crate::model::size::human;

/// The longest wait for a key before signals are checked.
const PAUSE: Duration = Duration::from_millis(100);
/// Time between two reads of the event stream.
const EVENTS_PAUSE: Duration = Duration::from_millis(500);

/// Settings of the view.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time between two readings.
    pub delay: Duration,
    /// How many readings to show; `None` for no end.
    pub readings: Option<u64>,
    /// Whether to use colours.
    pub colour: bool,
}

/// Shows the engine until a key, a signal or the number of readings ends it.
///
/// # Errors
/// The engine ended or cannot be read, or the terminal cannot be used.
pub fn run(mut source: Source, options: &Options) -> Result<u8> {
    let signals = Signals::listen()?;
    let mut app = App::new(page_size(), options.delay);
    // Otherwise the backend decides by NO_COLOR itself.
    force_color_output(options.colour);
    let theme = Theme::new(options.colour);
    let keyboard = Keyboard::open()?;
    let mut screen = Screen::enter()?;
    let mut due = Instant::now();
    let mut events_due = due;
    let mut readings = 0;
    // Loaded only while shown.
    let mut kernel = None;
    loop {
        let now = Instant::now();
        let mut is_stale = false;
        if !app.paused && now >= due {
            // The last reading was shown for its full time.
            if options.readings.is_some_and(|wanted| readings == wanted) {
                return Ok(0);
            }
            let wanted = app.pressures_wanted();
            let reading = source.reading(|id| wanted.as_ref().is_none_or(|ids| ids.contains(&id)));
            app.take(reading?.ok_or_else(ended)?);
            look(&mut app, &mut kernel);
            readings += 1;
            // A late reading does not make the following ones early.
            due = (due + options.delay).max(now);
            is_stale = true;
        }
        if !app.paused && now >= events_due {
            let events = source.events()?;
            app.tell(&events);
            events_due = now + EVENTS_PAUSE;
            is_stale |= !events.is_empty();
        }
        if is_stale {
            screen.draw(|frame| draw(frame, &mut app, &theme))?;
        }
        let next = if app.paused { PAUSE } else { due.saturating_duration_since(Instant::now()) };
        let acted =
            handle(&mut app, &source, &mut kernel, &mut screen, &keyboard, next.min(PAUSE))?;
        match acted {
            Some(Acted::Quit) => return Ok(0),
            Some(Acted::Drained) => due = Instant::now(),
            Some(Acted::Changed) => screen.draw(|frame| draw(frame, &mut app, &theme))?,
            None => {}
        }
        if signals.end() {
            return Ok(0);
        }
        if signals.stop() {
            screen.suspend()?;
            signals.go_on();
            due = Instant::now();
        } else if signals.go_on() {
            screen.resume()?;
            due = Instant::now();
        }
    }
}

/// The effect of what was typed.
enum Acted {
    Quit,
    Changed,
    Drained,
}

/// Waits for keys and handles all that were typed, so that a paste is drawn only once.
fn handle(
    app: &mut App,
    source: &Source,
    kernel: &mut Option<KernelSlots>,
    screen: &mut Screen,
    keyboard: &Keyboard,
    wait: Duration,
) -> Result<Option<Acted>> {
    let mut acted = None;
    match keyboard.wait(wait)? {
        Waited::Nothing => return Ok(None),
        Waited::Gone => return Ok(Some(Acted::Quit)),
        Waited::Typed => {}
    }
    while event::poll(Duration::ZERO).context("cannot read the terminal")? {
        acted.get_or_insert(Acted::Changed);
        let Event::Key(key) = event::read().context("cannot read the terminal")? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match press(app, key) {
            None => {}
            Some(Action::Quit) => return Ok(Some(Acted::Quit)),
            Some(Action::Suspend) => screen.suspend()?,
            Some(Action::Redraw) => screen.clear()?,
            Some(Action::Kernel) => {
                match kernel.take() {
                    None => match KernelSlots::load(false) {
                        Ok(slots) => *kernel = Some(slots),
                        Err(error) => app.message = Some(format!("{error:#}")),
                    },
                    Some(_) => app.kernel = None,
                }
                look(app, kernel);
            }
            Some(Action::Drain(target)) => {
                app.message = Some(match drain(source, &target) {
                    Ok(said) => said,
                    Err(error) => format!("{error:#}"),
                });
                if !app.paused {
                    acted = Some(Acted::Drained);
                }
            }
        }
    }
    Ok(acted)
}

/// Reads the kernel's own stocks while they are shown. If that fails, they are no longer shown.
fn look(app: &mut App, kernel: &mut Option<KernelSlots>) {
    let Some(slots) = kernel else { return };
    match slots.view(None) {
        Ok(view) => app.kernel = Some(view),
        Err(error) => {
            app.message = Some(format!("{error:#}"));
            (app.kernel, *kernel) = (None, None);
        }
    }
}

/// Drains, and returns a message about the result.
fn drain(source: &Source, target: &Target) -> Result<String> {
    let engine = source.engine();
    let subtree = match target {
        Target::All => None,
        Target::Subtree { id, path } => {
            let index = engine.index_of(*id)?;
            let index = index.with_context(|| format!("{path} is no longer tracked"))?;
            Some((Cgroup::new(*id, source.path_of(*id).as_deref()), index))
        }
    };
    let receipt = drains::asked(engine, engine.possible(), subtree, 1)?;
    let (given, took) = (human(receipt.nr_pages() * page_size()), receipt.took.as_micros());
    Ok(format!("drained {given} of {target} in {took} us"))
}
