//! Draws the [`App`] on a screen of any size: the layout of the panes, and what overlays them.

mod cgroups;
pub mod cpus;
pub mod header;
mod kernel;
mod overlay;
#[cfg(test)]
mod tests;
mod theme;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::app::App;
use super::text::{cut, width};
pub use theme::Theme;

/// Least columns and rows of a usable screen.
const LEAST: (u16, u16) = (40, 8);
/// From this many columns on, the CPUs are drawn beside the cgroups.
const WIDE: u16 = 144;
/// Width of the CPUs then.
const CPUS_WIDTH: u16 = 62;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, app: &mut App, theme: &Theme) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return too_small(buffer, area);
    }
    let mut canvas = Canvas { buffer, theme };
    let header = if area.height < 12 { 1 } else { 2 };
    let [top, rest, bottom] = split(area, header, 1);
    header::draw(&mut canvas, top, app);
    let lines = app.kernel.as_ref().map_or_else(|| cpus::wanted_lines(app), kernel::wanted_lines);
    let panes = Panes::new(rest, lines);
    cgroups::draw(&mut canvas, panes.cgroups, app);
    match &app.kernel {
        Some(view) => kernel::draw(&mut canvas, panes.cpus, view, &mut app.first_cpu),
        None => cpus::draw(&mut canvas, panes.cpus, app),
    }
    events(&mut canvas, panes.events, app);
    overlay::bottom(&mut canvas, bottom, app);
    overlay::help(&mut canvas, area, app);
}

fn too_small(buffer: &mut Buffer, area: Rect) {
    let lines = [
        "memstock top".to_owned(),
        format!("{} x {} is too small", area.width, area.height),
        format!("needs {} x {}", LEAST.0, LEAST.1),
        "q: quit".to_owned(),
    ];
    for (line, y) in lines.iter().zip(area.top()..area.bottom()) {
        buffer.set_stringn(area.x, y, line, area.width.into(), Style::new());
    }
}

/// Where the panes are; one of height 0 is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Panes {
    cgroups: Rect,
    cpus: Rect,
    events: Rect,
}

impl Panes {
    /// Divides what is left between header and bottom; the CPUs ask for `cpu_lines`.
    fn new(area: Rect, cpu_lines: usize) -> Self {
        let cpu_lines = u16::try_from(cpu_lines).unwrap_or(u16::MAX);
        let events = match area.height {
            0..12 => 0,
            12..18 => 3,
            height => (height / 4).min(14),
        };
        let [_, above, events] = split(area, 0, events);
        if area.width >= WIDE {
            let cpus = Rect { x: area.right() - CPUS_WIDTH, width: CPUS_WIDTH, ..above };
            // One column stays free between the two.
            return Self {
                cgroups: Rect { width: above.width - CPUS_WIDTH - 1, ..above },
                cpus,
                events,
            };
        }
        let cpus = if above.height < 9 { 0 } else { cpu_lines.min(2 * above.height / 5) };
        let [_, cgroups, cpus] = split(above, 0, cpus);
        Self { cgroups, cpus, events }
    }
}

/// Splits off `top` lines at the top and `bottom` lines at the bottom.
fn split(area: Rect, top: u16, bottom: u16) -> [Rect; 3] {
    let middle = area.height.saturating_sub(top + bottom);
    [(0, top), (top, middle), (top + middle, bottom)].map(|(y, height)| Rect {
        y: area.y + y,
        height,
        ..area
    })
}

fn events(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let Some(lines) = canvas.title(area, "EVENTS") else { return };
    let shown = app.events.len().saturating_sub(lines.height.into());
    for (text, y) in app.events.iter().skip(shown).zip(lines.top()..lines.bottom()) {
        canvas.text(Rect { y, height: 1, ..lines }, text, Style::new());
    }
}

/// The buffer to draw on, with the styles.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    theme: &'a Theme,
}

impl Canvas<'_> {
    /// One line of text at the left of `area`.
    fn text(&mut self, area: Rect, text: &str, style: Style) {
        if area.height > 0 {
            let text = cut(text, area.width.into());
            self.buffer.set_stringn(area.x, area.y, text, area.width.into(), style);
        }
    }

    /// One line of text at the right of `area`.
    fn right(&mut self, area: Rect, text: &str, style: Style) {
        let taken = u16::try_from(width(text)).unwrap_or(u16::MAX).min(area.width);
        self.text(Rect { x: area.right() - taken, width: taken, ..area }, text, style);
    }

    /// Draws a title on the first line of a pane; returns the rest of the pane, if it has any lines.
    fn title(&mut self, area: Rect, title: &str) -> Option<Rect> {
        if area.height == 0 {
            return None;
        }
        let rule = "─".repeat(area.width.into());
        self.text(area, &rule, self.theme.rule);
        let title = format!(" {title} ");
        self.text(
            Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area },
            &title,
            self.theme.title,
        );
        Some(Rect { y: area.y + 1, height: area.height - 1, ..area })
    }
}
