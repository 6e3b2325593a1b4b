//! Draws the line at the bottom (keys, a question, or a message), and the help over everything.

use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, Clear, Widget as _};

use super::super::app::{App, Mode};
use super::super::keys::HELP;
use super::super::text::width;
use super::Canvas;
use crate::exit::printable;

/// Keys of the bottom line, the most important first.
const KEYS: [(&str, &str); 9] = [
    ("q", "quit"),
    ("?", "help"),
    ("s", "sort"),
    ("r", "reverse"),
    ("Space", "fold"),
    ("/", "filter"),
    ("p", "pause"),
    ("d", "drain"),
    ("D", "drain all"),
];

pub(super) fn bottom(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let alert = canvas.theme.alert;
    match (&app.mode, &app.message) {
        (Mode::Filter(_), _) => {
            let text = format!("filter: {}_", printable(&app.order.filter));
            canvas.text(area, &text, canvas.theme.key);
        }
        (Mode::Drain(target), _) => {
            // The keys come first, so that they are seen even if the name does not fit.
            canvas.text(area, &format!("y/n  drain the stocks of {target}?"), alert);
        }
        (_, Some(message)) => canvas.text(area, message, canvas.theme.key),
        _ => keys(canvas, area),
    }
}

fn keys(canvas: &mut Canvas<'_>, area: Rect) {
    let mut x = area.x;
    for (key, what) in KEYS {
        let (first, second) = (width(key) as u16, width(what) as u16);
        if x + first + 1 + second > area.right() {
            break;
        }
        canvas.text(Rect { x, width: first, ..area }, key, canvas.theme.key);
        canvas.text(Rect { x: x + first + 1, width: second, ..area }, what, Style::new());
        x += first + second + 3;
    }
}

pub(super) fn help(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    if app.mode != Mode::Help {
        return;
    }
    let keys = HELP.iter().map(|(key, _)| width(key)).max().unwrap_or(0) as u16;
    let texts = HELP.iter().map(|(_, what)| width(what)).max().unwrap_or(0) as u16;
    let wanted = (keys + texts + 6, HELP.len() as u16 + 2);
    let (columns, lines) = (wanted.0.min(area.width), wanted.1.min(area.height));
    let window = Rect {
        x: area.x + (area.width - columns) / 2,
        y: area.y + (area.height - lines) / 2,
        width: columns,
        height: lines,
    };
    Clear.render(window, canvas.buffer);
    let block = Block::bordered().title(" Keys ").title_style(canvas.theme.title);
    let inner = block.inner(window);
    block.render(window, canvas.buffer);
    for ((key, what), y) in HELP.iter().zip(inner.top()..inner.bottom()) {
        let line = Rect { x: inner.x + 1, y, width: inner.width.saturating_sub(2), height: 1 };
        canvas.text(line, key, canvas.theme.key);
        let after = (keys + 2).min(line.width);
        let rest = Rect { x: line.x + after, width: line.width - after, ..line };
        canvas.text(rest, what, Style::new());
    }
}
