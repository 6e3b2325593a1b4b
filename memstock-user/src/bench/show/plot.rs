//! Pictures, as SVG: the patch's table as bars, and the forecast as curves.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::table1::label;
use crate::bench::forecast::{BATCHES, CPUS, Forecast, SOCKETS};
use crate::bench::table1::{Block, Row, Table1};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const FONT: &str = "sans-serif";
const WIDTH: i32 = 900;
/// A bar with the space to the next one.
const BAR: i32 = 22;
/// Where bars begin, and how long one of all the throughput is.
const LEFT: i32 = 300;
const FULL: i32 = 400;
const HEAD: i32 = 64;
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(200, 200, 200);
/// Told apart by those who see no red or green as well.
const COLOURS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];

/// The table as bars, a part for each number of busy CPUs.
///
/// # Errors
/// It cannot be drawn, which is a defect.
pub fn table1(table: &Table1) -> Result<String> {
    let heights: Vec<_> =
        table.blocks.iter().map(|block| HEAD + BAR * block.rows.len() as i32 + 10).collect();
    let height = heights.iter().sum::<i32>() + BAR;
    let mut svg = String::new();
    {
        let root = canvas(&mut svg, height)?;
        let mut top = 0;
        for (block, height) in table.blocks.iter().zip(&heights) {
            bars(&root, block, top)?;
            top += height;
        }
        let machine = &table.machine;
        let foot = format!(
            "{}, Linux {}; medians of {} slices of {} ms, with 95 % intervals",
            machine.cpu, machine.kernel, table.rounds, table.slice_ms
        );
        text(&root, &foot, (10, top + 6), 12.0, HPos::Left, INK)?;
        root.present().map_err(defect)?;
    }
    Ok(svg)
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

/// Ours, the kernel's, and what charges nothing.
fn colour(row: &Row) -> RGBColor {
    match row.depth {
        Some(_) if row.name.starts_with("the kernel") => COLOURS[4],
        Some(1) => COLOURS[2],
        Some(_) => COLOURS[3],
        None => RGBColor(150, 150, 150),
    }
}

/// Shares of the ideal against CPUs, one part for each number of sockets.
///
/// # Errors
/// It cannot be drawn, which is a defect.
pub fn forecast(forecast: &Forecast) -> Result<String> {
    let mut svg = String::new();
    {
        let root = canvas(&mut svg, 420)?;
        for (area, sockets) in root.split_evenly((1, SOCKETS.len())).iter().zip(SOCKETS) {
            curves(area, forecast, sockets)?;
        }
        root.present().map_err(defect)?;
    }
    Ok(svg)
}

fn curves(area: &Area<'_>, forecast: &Forecast, sockets: usize) -> Result<()> {
    let largest = CPUS[CPUS.len() - 1] as f64;
    let caption = format!("{sockets} socket(s): part of the ideal throughput");
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(caption, (FONT, 15).into_font().color(&INK))
        .x_label_area_size(38)
        .y_label_area_size(40)
        .build_cartesian_2d((1.0..largest).log_scale().base(2.0), 0.0..1.0)
        .map_err(defect)?;
    chart
        .configure_mesh()
        .x_desc("busy CPUs in one cgroup")
        .x_labels(CPUS.len())
        .x_label_formatter(&|cpus| format!("{cpus:.0}"))
        .y_label_formatter(&|share| format!("{share:.1}"))
        .max_light_lines(0)
        .bold_line_style(FAINT)
        .label_style((FONT, 12))
        .draw()
        .map_err(defect)?;
    for (batch, colour) in BATCHES.into_iter().zip(COLOURS) {
        let of = forecast.shares.iter().filter(|s| s.sockets == sockets && s.batch == batch);
        let points = of.map(|share| (share.cpus as f64, share.share));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .map_err(defect)?
            .label(match batch {
                1 => "each page".to_owned(),
                batch => format!("batch {batch}"),
            })
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(FAINT)
        .label_font((FONT, 12))
        .draw()
        .map_err(defect)
}

fn canvas(svg: &mut String, height: i32) -> Result<Area<'_>> {
    let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    // Or it cannot be read on a dark page.
    root.fill(&WHITE).map_err(defect)?;
    Ok(root)
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

/// Nothing is written but a string.
fn defect(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw the picture: {error}")
}
