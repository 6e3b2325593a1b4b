//! What each key does, and the help on keys. Conventions are those of top, htop and less.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, Mode, Target};
use super::source::Reading;
use super::tree::Below;

/// What a key requests that the view cannot do by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the program.
    Quit,
    /// Suspend the process, like Ctrl-Z in a shell.
    Suspend,
    /// Redraw the whole screen.
    Redraw,
    /// Show the kernel's own stocks, or stop showing them.
    Kernel,
    /// Drain stocks.
    Drain(Target),
}

/// The text of the help: keys and what they do.
pub const HELP: [(&str, &str); 14] = [
    ("up down j k", "select the next cgroup"),
    ("PgUp PgDn Home End", "select a page further, or the first and the last"),
    ("Enter Space", "fold or unfold; a folded row stands for its subtree"),
    ("left right", "fold or go up; unfold or go down"),
    ("z", "fold or unfold all"),
    ("s > and S <", "sort by the next column, or the one before"),
    ("r", "sort the other way round"),
    ("/", "show only cgroups with a text in their name or path"),
    ("p", "pause"),
    ("d", "drain the stocks of the selected cgroup and all below it"),
    ("D", "drain all stocks"),
    ("[ ]", "scroll the CPUs"),
    ("K", "show the kernel's own stocks, or memstock's again"),
    ("q Ctrl-C", "quit; Esc closes this and clears the filter"),
];

/// Handles a key.
pub fn press(app: &mut App, key: KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => return Some(Action::Quit),
        KeyCode::Char('z') if control => return Some(Action::Suspend),
        KeyCode::Char('l') if control => return Some(Action::Redraw),
        _ => {}
    }
    match app.mode.clone() {
        Mode::View => view(app, key.code, control),
        Mode::Filter(before) => {
            filter(app, key.code, control, before);
            None
        }
        Mode::Drain(target) => drain(app, key.code, target),
        Mode::Help => {
            // As in less: every other key does nothing, so that none acts unseen.
            let closes = ['q', '?', 'h', ' '].map(KeyCode::Char);
            if closes.contains(&key.code)
                || matches!(key.code, KeyCode::Esc | KeyCode::Enter | KeyCode::F(1))
            {
                app.mode = Mode::View;
            }
            None
        }
    }
}

fn view(app: &mut App, key: KeyCode, control: bool) -> Option<Action> {
    app.message = None;
    match key {
        KeyCode::Char('q') => return Some(Action::Quit),
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => app.mode = Mode::Help,
        KeyCode::Char('/') => app.mode = Mode::Filter(app.order.filter.clone()),
        KeyCode::Esc => app.order.filter.clear(),
        KeyCode::Char('s' | '>') => app.order.sort = app.order.sort.step(1),
        KeyCode::Char('S' | '<') => app.order.sort = app.order.sort.step(-1),
        KeyCode::Char('r' | 'R') => app.order.reverse = !app.order.reverse,
        KeyCode::Char('p') => app.paused = !app.paused,
        KeyCode::Char('z') => fold_all(app),
        KeyCode::Char('K') => return Some(Action::Kernel),
        KeyCode::Char('D') => app.mode = Mode::Drain(Target::All),
        KeyCode::Char('d') if control => app.select(app.selected + app.page / 2),
        KeyCode::Char('d') => {
            let selected = app.row().zip(app.reading.as_ref());
            let target = selected.map(|(row, Reading { sample, .. })| Target::Subtree {
                id: row.id,
                path: row.path(sample),
            });
            match target {
                Some(target) => app.mode = Mode::Drain(target),
                None => app.message = Some("no cgroup is selected".into()),
            }
        }
        KeyCode::Char('j') | KeyCode::Down => app.select(app.selected + 1),
        KeyCode::Char('k') | KeyCode::Up => app.select(app.selected.saturating_sub(1)),
        KeyCode::PageDown => app.select(app.selected + app.page),
        KeyCode::PageUp => app.select(app.selected.saturating_sub(app.page)),
        KeyCode::Home | KeyCode::Char('g') => app.select(0),
        KeyCode::End | KeyCode::Char('G') => app.select(usize::MAX),
        KeyCode::Enter | KeyCode::Char(' ') => match app.row().map(|row| row.below) {
            Some(Below::Folded(_)) => unfold(app),
            Some(Below::Shown) => fold(app),
            _ => {}
        },
        KeyCode::Left | KeyCode::Char('-') => fold(app),
        KeyCode::Right | KeyCode::Char('+') => unfold(app),
        KeyCode::Char(']') => app.first_cpu += 1,
        KeyCode::Char('[') => app.first_cpu = app.first_cpu.saturating_sub(1),
        _ => {}
    }
    app.reorder();
    None
}

/// Folds the selected row, or goes to its parent if there is nothing to fold.
fn fold(app: &mut App) {
    let Some(row) = app.row() else { return };
    let (id, depth) = (row.id, row.depth);
    if row.below == Below::Shown {
        app.order.folded.insert(id);
    } else if let Some(above) = app.rows[..app.selected].iter().rposition(|row| row.depth < depth) {
        app.select(above);
    }
}

/// Unfolds the selected row, or goes to its first child.
fn unfold(app: &mut App) {
    let Some(row) = app.row() else { return };
    match row.below {
        Below::Folded(_) => {
            let id = row.id;
            app.order.folded.remove(&id);
        }
        Below::Shown => app.select(app.selected + 1),
        Below::Nothing => {}
    }
}

/// Folds everything, or unfolds everything if something is folded.
fn fold_all(app: &mut App) {
    if !app.order.folded.is_empty() {
        app.order.folded.clear();
        return;
    }
    let top =
        app.rows[..(app.selected + 1).min(app.rows.len())].iter().rposition(|row| row.depth == 0);
    app.order.folded =
        app.rows.iter().filter(|row| row.below == Below::Shown).map(|row| row.id).collect();
    app.select(top.unwrap_or(0));
}

fn filter(app: &mut App, key: KeyCode, control: bool, before: String) {
    match key {
        KeyCode::Enter => app.mode = Mode::View,
        KeyCode::Esc => {
            app.order.filter = before;
            app.mode = Mode::View;
        }
        KeyCode::Backspace => {
            app.order.filter.pop();
        }
        KeyCode::Char('u') if control => app.order.filter.clear(),
        KeyCode::Char(c) if !control => app.order.filter.push(c),
        _ => {}
    }
    app.reorder();
}

fn drain(app: &mut App, key: KeyCode, target: Target) -> Option<Action> {
    match key {
        KeyCode::Char('y' | 'Y') => {
            app.mode = Mode::View;
            Some(Action::Drain(target))
        }
        KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
            app.mode = Mode::View;
            app.message = Some("nothing was drained".into());
            None
        }
        // Any other key is not an answer.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::top::column::Column;
    use crate::view::top::fixture::{reading, sample};
    use std::time::{Duration, Instant};

    fn app() -> App {
        let mut app = App::new(4096, Duration::from_secs(1));
        app.take(reading(sample(), Instant::now()));
        app.scroll(3);
        app
    }

    fn press_all(app: &mut App, keys: &[KeyCode]) -> Option<Action> {
        keys.iter().fold(None, |_, &key| press(app, key.into()))
    }

    fn typed(app: &mut App, text: &str) -> Option<Action> {
        press_all(app, &text.chars().map(KeyCode::Char).collect::<Vec<_>>())
    }

    #[test]
    fn quitting() {
        let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        assert_eq!(typed(&mut app(), "q"), Some(Action::Quit));
        for mode in ["", "/", "d", "?"] {
            let mut app = app();
            typed(&mut app, mode);
            assert_eq!(press(&mut app, control('c')), Some(Action::Quit), "{mode}");
        }
        assert_eq!(typed(&mut app(), "?q"), None, "it closes the help");
    }

    #[test]
    fn the_kernels_stocks_are_looked_at_by_the_loop() {
        assert_eq!(typed(&mut app(), "K"), Some(Action::Kernel));
        assert_eq!(typed(&mut app(), "/K"), None, "it is text");
    }

    #[test]
    fn selecting() {
        let mut app = app();
        typed(&mut app, "jj");
        assert_eq!(app.selected, 2);
        press_all(&mut app, &[KeyCode::PageDown]);
        assert_eq!(app.selected, 4);
        press_all(&mut app, &[KeyCode::PageUp, KeyCode::Up]);
        assert_eq!(app.selected, 0);
        press_all(&mut app, &[KeyCode::End]);
        assert_eq!(app.selected, 4);
        press_all(&mut app, &[KeyCode::Home, KeyCode::Up]);
        assert_eq!(app.selected, 0);
    }

    #[test]
    fn sorting_and_pausing() {
        let mut app = app();
        typed(&mut app, "s>r");
        assert_eq!((app.order.sort, app.order.reverse), (Column::Peak, true));
        typed(&mut app, "S<<p");
        assert_eq!((app.order.sort, app.paused), (Column::Name, true));
    }

    #[test]
    fn folding() {
        let mut app = app();
        typed(&mut app, " ");
        assert_eq!((app.rows.len(), app.rows[0].below), (3, Below::Folded(2)));
        press_all(&mut app, &[KeyCode::Right, KeyCode::Right]);
        assert_eq!((app.rows.len(), app.selected), (5, 1));
        press_all(&mut app, &[KeyCode::Left]);
        assert_eq!(app.selected, 0, "a leaf has nothing to fold");
        typed(&mut app, "jz");
        assert_eq!((app.rows.len(), app.selected), (2, 0));
        typed(&mut app, "z");
        assert_eq!(app.rows.len(), 5);
    }

    #[test]
    fn filtering() {
        let mut app = app();
        typed(&mut app, "/apq");
        assert_eq!(app.rows.len(), 0);
        press_all(&mut app, &[KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((app.rows.len(), app.mode.clone()), (2, Mode::View));
        press_all(&mut app, &[KeyCode::Char('/'), KeyCode::Char('x'), KeyCode::Esc]);
        assert_eq!(app.order.filter, "ap", "given up");
        press_all(&mut app, &[KeyCode::Esc]);
        assert_eq!(app.rows.len(), 5);
    }

    #[test]
    fn draining_asks_first() {
        let mut app = app();
        assert_eq!(typed(&mut app, "dxn"), None);
        assert!(app.mode == Mode::View && app.message.is_some());
        let web = Target::Subtree { id: 1, path: "/web".into() };
        assert_eq!(typed(&mut app, "dy"), Some(Action::Drain(web)));
        assert_eq!(typed(&mut app, "Dy"), Some(Action::Drain(Target::All)));
        assert_eq!(press_all(&mut app, &[KeyCode::Char('D'), KeyCode::Esc]), None);
    }
}
