//! What a reader should take in at a glance, as a bar chart: what is left of the throughput of all CPUs with nothing
//! attached, empty programs, a shared counter, stocks, the kernel's own controller, and bpftrace that counts faults. The
//! other rows are in the table.

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::measure::{Row, Table1};
use crate::output::{Area, COLOURS, FAINT, FONT, INK, defect, picture};
use crate::places::LEVELS;

/// Height of a bar and the space below it.
const BAR: i32 = 26;
/// Where bars begin, and the length of a bar of 100 %.
const LEFT: i32 = 260;
const FULL: i32 = 440;
const HEAD: i32 = 64;

/// Draws the picture, and writes it to `file` if given.
pub fn draw(table: &Table1, file: Option<&Path>) -> Result<()> {
    let block = table.blocks.last().context("nothing was measured")?;
    let rows: Vec<_> = block.rows.iter().filter_map(|row| Some((row, name(row)?))).collect();
    let bottom = HEAD + BAR * rows.len() as i32;
    picture(file, (bottom + 2 * BAR).unsigned_abs(), |root| {
        let title = format!(
            "Page faults in a second of CPU time, {} busy CPUs, {LEVELS} levels of cgroups",
            block.cpus
        );
        text(root, &title, (10, 16), 16.0, HPos::Left, INK)?;
        for percent in [0, 25, 50, 75, 100] {
            let x = LEFT + FULL * percent / 100;
            line(root, [(x, HEAD - 8), (x, bottom)], FAINT)?;
            text(root, &format!("{percent} %"), (x, HEAD - 18), 12.0, HPos::Center, INK)?;
        }
        for (&(row, name), y) in rows.iter().zip((HEAD..).step_by(BAR as usize)) {
            bar(root, row, name, y)?;
        }
        let machine = &table.machine;
        let foot = format!(
            "{}, Linux {}; medians of {} slices of {} ms, with 95 % intervals",
            machine.cpu, machine.kernel, table.rounds, table.slice_ms
        );
        text(root, &foot, (10, bottom + BAR), 12.0, HPos::Left, INK)
    })
}

fn bar(root: &Area<'_>, row: &Row, name: &str, y: i32) -> Result<()> {
    let place = |part: f64| LEFT + (part.clamp(0.0, 1.1) * f64::from(FULL)).round() as i32;
    let middle = y + BAR / 2;
    text(root, name, (LEFT - 8, middle), 14.0, HPos::Right, INK)?;
    let bar = [(LEFT, y + 3), (place(row.cpu_ratio.median), y + BAR - 3)];
    root.draw(&Rectangle::new(bar, colour(row).filled())).map_err(defect)?;
    line(root, [(place(row.cpu_ratio.low), middle), (place(row.cpu_ratio.high), middle)], INK)?;
    let (part, added) = (100.0 * row.cpu_ratio.median, row.added_ns.median);
    let figures = format!("{part:.0} %   {added:+.0} ns a page");
    text(root, &figures, (LEFT + FULL + 50, middle), 14.0, HPos::Left, INK)
}

/// What a row is called in the picture; `None` if it is not shown.
fn name(row: &Row) -> Option<&'static str> {
    let of_table = match row.depth {
        Some(LEVELS) => [
            ("shared counter", "a shared counter on every page"),
            ("+ stock", "memstock: stocks"),
            ("the kernel's own", "the kernel's own controller"),
        ],
        Some(_) => return None,
        None => [
            ("nothing", "nothing attached"),
            ("empty", "empty programs"),
            ("bpftrace tracepoint", "bpftrace that counts faults"),
        ],
    };
    of_table.into_iter().find(|(begin, _)| row.name.starts_with(begin)).map(|(_, name)| name)
}

/// Colours for what charges as memstock does, or would without stocks, for the kernel, bpftrace, and nothing.
fn colour(row: &Row) -> RGBColor {
    match row.depth {
        Some(_) if row.name.starts_with("the kernel") => COLOURS[4],
        Some(_) if row.name.starts_with("shared") => COLOURS[3],
        Some(_) => COLOURS[2],
        None if row.name.starts_with("bpftrace") => COLOURS[0],
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
