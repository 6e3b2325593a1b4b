//! Draws the cgroup tree.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::super::app::App;
use super::super::column::{Column, Figures};
use super::super::source::Reading;
use super::super::text::{cut, cut_front};
use super::super::tree::{Below, Row};
use super::Canvas;
use crate::model::Sample;

/// Least width of the name.
const NAME: usize = 18;
/// Width of a bar, without its percentage.
const BAR: usize = 8;

/// The columns that fit, from left to right, with their widths. One cell between two stays free.
fn columns(width: usize) -> Vec<(Column, usize)> {
    let mut left = width.saturating_sub(NAME);
    let fits = |column: &&Column| {
        let needed = column.width() + 1;
        let fits = needed <= left;
        if fits {
            left -= needed;
        }
        fits
    };
    let kept: Vec<_> = Column::BY_PRIORITY.iter().filter(fits).copied().collect();
    let taken: usize = kept.iter().map(|column| column.width() + 1).sum();
    let shown = Column::ALL.iter().copied().filter(|column| kept.contains(column));
    let name = (Column::Name, width.saturating_sub(taken));
    std::iter::once(name).chain(shown.map(|column| (column, column.width()))).collect()
}

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &mut App) {
    let Some(table) = canvas.title(area, &title(app)) else { return };
    let columns = columns(table.width.into());
    let line = |y| Rect { y, height: 1, ..table };
    for (column, cell) in cells(line(table.y), &columns) {
        let style = if column == app.order.sort { canvas.theme.sorted } else { canvas.theme.head };
        match column {
            Column::Name => canvas.text(cell, &column.head(), style),
            _ => canvas.right(cell, &column.head(), style),
        }
    }
    app.scroll(usize::from(table.height.saturating_sub(1)));
    if app.rows.is_empty() && table.height > 1 {
        let why = match app.order.filter.as_str() {
            "" => "no cgroup is tracked",
            _ => "no cgroup has the filter in its name or path; Esc shows all",
        };
        canvas.text(line(table.y + 1), why, canvas.theme.faint);
    }
    let Some(Reading { sample, .. }) = &app.reading else { return };
    let rows = app.rows.iter().enumerate().skip(app.offset);
    for ((n, row), y) in rows.zip(table.y + 1..table.bottom()) {
        self::row(canvas, line(y), &columns, row, sample, app.page_size);
        if n == app.selected {
            canvas.buffer.set_style(line(y), canvas.theme.selected);
        }
    }
}

fn title(app: &App) -> String {
    let by = app.order.sort.head();
    let way = if app.order.reverse { ", reversed" } else { "" };
    let filter = match app.order.filter.as_str() {
        "" => String::new(),
        filter => format!(", with {:?}", filter),
    };
    format!("CGROUPS by {by}{way}{filter}")
}

/// The cell of each column in a line.
fn cells(line: Rect, columns: &[(Column, usize)]) -> impl Iterator<Item = (Column, Rect)> {
    let mut x = line.x;
    columns.iter().map(move |&(column, width)| {
        let cell = Rect { x, width: width as u16, ..line };
        x += width as u16 + 1;
        (column, cell)
    })
}

fn row(
    canvas: &mut Canvas<'_>,
    line: Rect,
    columns: &[(Column, usize)],
    row: &Row,
    sample: &Sample,
    page_size: u64,
) {
    let style = if row.matches { Style::new() } else { canvas.theme.faint };
    let pressure = canvas.theme.pressure(row.figures.pressure());
    for (column, cell) in cells(line, columns) {
        let value = column.value(&row.figures, page_size);
        match column {
            Column::Name => canvas.text(cell, &name(row, sample, cell.width.into()), style),
            Column::Part => {
                canvas.text(cell, &bar(&row.figures), pressure);
                canvas.right(cell, &value, style);
            }
            Column::Failcnt if row.figures.failing > Some(0.0) => {
                canvas.right(cell, &value, pressure);
            }
            _ => canvas.right(cell, &value, style),
        }
    }
}

fn name(row: &Row, sample: &Sample, columns: usize) -> String {
    let indent = "  ".repeat(row.depth);
    let (mark, hidden) = match row.below {
        Below::Nothing => (' ', String::new()),
        Below::Shown => ('▾', String::new()),
        Below::Folded(nr) => ('▸', format!(" (+{nr})")),
    };
    let room = columns.saturating_sub(indent.len() + 2 + hidden.len());
    // Paths differ at their ends.
    let cut = if row.depth == 0 { cut_front } else { cut };
    format!("{indent}{mark} {}{hidden}", cut(&row.name(sample), room))
}

/// A bar of what is needed, what is used beyond that, and the rest of the limit.
fn bar(figures: &Figures) -> String {
    let (Some(needed), Some(used)) = (figures.needed_part(), figures.used()) else {
        return String::new();
    };
    // Rounded down, so that it is full only at the limit.
    let [needed, used] = [needed, used].map(|part| ((part * BAR as f64) as usize).min(BAR));
    "█".repeat(needed)
        + &"▒".repeat(used.saturating_sub(needed))
        + &"░".repeat(BAR - used.max(needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_left_out_by_worth_and_never_overflow() {
        for width in 0..300 {
            let columns = columns(width);
            let taken: usize = columns.iter().map(|(_, width)| width + 1).sum();
            assert!(taken - 1 <= width.max(columns[0].1), "{width}: {columns:?}");
            assert_eq!(columns[0].0, Column::Name);
        }
        assert_eq!(columns(300).len(), Column::ALL.len());
        assert_eq!(columns(NAME + 10).len(), 2);
        let order: Vec<_> = columns(80).into_iter().map(|(column, _)| column).collect();
        assert!(order.contains(&Column::Faults) && !order.contains(&Column::Failcnt), "{order:?}");
    }

    #[test]
    fn a_bar_is_full_at_the_limit() {
        let bar =
            |needed, usage| bar(&Figures { needed, usage, limit: Some(100), ..Figures::default() });
        assert_eq!((bar(0, 0), bar(99, 99)), ("░░░░░░░░".into(), "███████░".into()));
        assert_eq!((bar(100, 100), bar(1000, 1000)), ("████████".into(), "████████".into()));
        assert_eq!((bar(25, 75), bar(25, 700)), ("██▒▒▒▒░░".into(), "██▒▒▒▒▒▒".into()));
        // Read while they changed.
        assert_eq!(bar(50, 40), "████░░░░");
    }
}
