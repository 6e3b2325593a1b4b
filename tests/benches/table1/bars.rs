//! The table as a bar chart, with a part for each number of busy CPUs.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::measure::{Block, Row, Table1};
use crate::output::{Area, COLOURS, FAINT, FONT, INK, defect, picture};
use crate::text::label;

/// Height of a bar and the space below it.
const BAR: i32 = 22;
/// Where bars begin, and the length of a bar of 100 %.
const LEFT: i32 = 300;
const FULL: i32 = 400;
const HEAD: i32 = 64;

/// Draws the table, and writes it to `file` if given.
pub fn draw(table: &Table1, file: Option<&Path>) -> Result<()> {
    let heights: Vec<_> =
        table.blocks.iter().map(|block| HEAD + BAR * block.rows.len() as i32 + 10).collect();
    let height = heights.iter().sum::<i32>() + BAR;
    picture(file, height.unsigned_abs(), |root| {
        let mut top = 0;
        for (block, height) in table.blocks.iter().zip(&heights) {
            bars(root, block, top)?;
            top += height;
        }
        let machine = &table.machine;
        let foot = format!(
            "{}, Linux {}; medians of {} slices of {} ms, with 95 % intervals",
            machine.cpu, machine.kernel, table.rounds, table.slice_ms
        );
        text(root, &foot, (10, top + 6), 12.0, HPos::Left, INK)
    })
}

fn bars(root: &Area<'_>, block: &Block, top: i32) -> Result<()> {
    let title = format!(
        "Page faults in a second of CPU time, {} busy CPU(s): what is left of {:.0} k",
        block.cpus,
        1e6 / block.control_ns.median
    );
    text(root, &title, (10, top + 16), 16.0, HPos::Left, INK)?;
    let bottom = top + HEAD + BAR * block.rows.len() as i32;
    for percent in [0, 25, 50, 75, 100] {
        let x = LEFT + FULL * percent / 100;
        line(root, [(x, top + HEAD - 8), (x, bottom)], FAINT)?;
        text(root, &format!("{percent} %"), (x, top + HEAD - 18), 12.0, HPos::Center, INK)?;
    }
    for (row, y) in block.rows.iter().zip((top + HEAD..).step_by(BAR as usize)) {
        let place = |part: f64| LEFT + (part.clamp(0.0, 1.1) * f64::from(FULL)).round() as i32;
        let middle = y + BAR / 2;
        text(root, &label(row), (LEFT - 8, middle), 13.0, HPos::Right, INK)?;
        let bar = [(LEFT, y + 3), (place(row.cpu_ratio.median), y + BAR - 3)];
        root.draw(&Rectangle::new(bar, colour(row).filled())).map_err(defect)?;
        line(root, [(place(row.cpu_ratio.low), middle), (place(row.cpu_ratio.high), middle)], INK)?;
        let figures = format!(
            "{:.1} %   {:+.0} ns a page",
            100.0 * row.cpu_ratio.median,
            row.added_ns.median
        );
        text(root, &figures, (LEFT + FULL + 50, middle), 13.0, HPos::Left, INK)?;
    }
    Ok(())
}

/// Colours for memstock's rows, the kernel's, and rows that charge nothing.
fn colour(row: &Row) -> RGBColor {
    match row.depth {
        Some(_) if row.name.starts_with("the kernel") => COLOURS[4],
        Some(1) => COLOURS[2],
        Some(_) => COLOURS[3],
        None => RGBColor(150, 150, 150),
    }
}

fn line(root: &Area<'_>, ends: [(i32, i32); 2], colour: RGBColor) -> Result<()> {
    root.draw(&PathElement::new(ends, colour.stroke_width(1))).map_err(defect)
}

fn text(
    root: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: f64,
    side: HPos,
    colour: RGBColor,
) -> Result<()> {
    let style = (FONT, size).into_font().color(&colour).pos(Pos::new(side, VPos::Center));
    root.draw_text(text, &style, at).map_err(defect)
}
