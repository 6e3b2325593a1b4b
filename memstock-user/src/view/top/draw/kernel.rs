//! Draws the kernel's own stocks in place of memstock's: a line for each CPU and each cgroup it has something in stock
//! for.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::Canvas;
use crate::model::kernel::View;
use crate::view::show::kernel::stocks;

/// Where each number ends, and where the name begins.
const COLUMNS: [u16; 4] = [4, 11, 21, 23];

/// Lines needed for all CPUs, title and heads included.
pub(super) fn wanted_lines(view: &View) -> usize {
    2 + view.cpus.iter().map(|cpu| stocks(view, cpu).len()).sum::<usize>()
}

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, view: &View, first_cpu: &mut usize) {
    *first_cpu = (*first_cpu).min(view.cpus.len().saturating_sub(1));
    let Some(table) = canvas.title(area, "STOCKS OF THE KERNEL") else { return };
    let (bold, plain) = (canvas.theme.head, Style::new());
    let heads = ["CPU", "PAGES", "OBJECTS", "CACHED CGROUP"].map(String::from);
    let rows = view.cpus[*first_cpu..].iter().flat_map(|cpu| {
        let row = |[name, pages, bytes]: [String; 3]| [cpu.cpu.to_string(), pages, bytes, name];
        stocks(view, cpu).into_iter().map(row).map(|row| (row, plain))
    });
    let rows = std::iter::once((heads, bold)).chain(rows);
    for ((row, style), y) in rows.zip(table.top()..table.bottom()) {
        let line = Rect { y, height: 1, ..table };
        let [cpu, pages, bytes, name] = row;
        for (text, end) in [cpu, pages, bytes].iter().zip(COLUMNS) {
            canvas.right(Rect { width: end.min(line.width), ..line }, text, style);
        }
        let begin = COLUMNS[3].min(line.width);
        canvas.text(Rect { x: line.x + begin, width: line.width - begin, ..line }, &name, style);
    }
}
