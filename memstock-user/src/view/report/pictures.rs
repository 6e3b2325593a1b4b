//! The two pictures, drawn as SVG by plotters. Colours are few and fixed, because the page's style sheet refers to
//! them.

use std::fmt::Display;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Report;
use super::time::Part;
use crate::forecast::rehearse::SLOW;
use crate::model::size::human;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const FONT: &str = "sans-serif";
/// Colours of text and axes, and of grids. `page.css` repeats them, and white.
const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(221, 221, 221);
/// Colours of the zones of limits: oom, slow, reclaims, fits.
const ZONES: [RGBColor; 4] = [
    RGBColor(214, 69, 65),
    RGBColor(232, 146, 42),
    RGBColor(104, 168, 87),
    RGBColor(160, 170, 180),
];
/// Names and colours of the kinds of memory, from the bottom up.
pub const KINDS: [(&str, RGBColor); 5] = [
    ("the kernel's own", RGBColor(94, 79, 162)),
    ("shared memory, tmpfs", RGBColor(50, 136, 189)),
    ("private memory", RGBColor(27, 94, 140)),
    ("page cache, dirty", RGBColor(217, 164, 65)),
    ("page cache, clean", RGBColor(199, 216, 188)),
];
const SIZE: (u32, u32) = (900, 360);

/// The plotting area within a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Frame {
    /// Left edge.
    pub left: i32,
    /// Right edge.
    pub right: i32,
    /// Height of the highest value.
    pub top: i32,
    /// Height of 0.
    pub bottom: i32,
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn defect(error: impl Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

fn drawn(draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(defect)?;
    draw(&area)?;
    area.present().map_err(defect)?;
    drop(area);
    Ok(text)
}

/// Draws what each limit would do: zones, bytes read again, slowdown, and the recommended limit.
pub fn limits(report: &Report<'_>) -> Result<String> {
    let (rehearsal, rows) = (report.rehearsal(), report.rows());
    let peaks = rehearsal.peaks();
    let (lives, fits) = (rehearsal.lives_from(), rehearsal.fits_from());
    let from = mib(rows.first().map_or(1, |row| row.limit).max(1));
    let to = (mib(fits.max(report.judged.advice.max)) * 1.25).max(from * 2.0);
    let reread = mib(rows.iter().filter_map(|row| row.reread).max().unwrap_or(0)).max(1.0);
    let slower = rows.iter().filter_map(|row| row.slowdown).fold(2.0 * SLOW, f64::max);
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(70)
            .right_y_label_area_size(50)
            .build_cartesian_2d((from..to).log_scale(), 0.0..reread * 1.1)
            .map_err(defect)?
            .set_secondary_coord((from..to).log_scale(), 0.0..slower * 1.1);
        let slow = rehearsal.smallest(SLOW).clamp(lives, fits.max(lives));
        let edges = [from, mib(lives), mib(slow), mib(fits), to];
        for ((zone, ends), name) in
            ZONES.iter().zip(edges.windows(2)).zip(["oom", "slow", "reclaims", "fits"])
        {
            let (begin, end) = (ends[0].max(from), ends[1].min(to));
            if begin < end {
                let corners = [(begin, 0.0), (end, reread * 1.1)];
                let shape = Rectangle::new(corners, zone.mix(0.25).filled());
                let series = chart.draw_series([shape]).map_err(defect)?;
                let zone = *zone;
                series.label(name).legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 14, y + 5)], zone.mix(0.5).filled())
                });
            }
        }
        chart
            .configure_mesh()
            .x_desc("limit")
            .y_desc("read again")
            .x_label_formatter(&|limit| format!("{limit} MiB"))
            .y_label_formatter(&|bytes| format!("{bytes:.0} MiB"))
            .max_light_lines(0)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style((FONT, 12).into_font().color(&INK))
            .draw()
            .map_err(defect)?;
        chart
            .configure_secondary_axes()
            .y_desc("slower")
            .y_label_formatter(&|part| format!("{:.0} %", part * 100.0))
            .axis_style(INK)
            .label_style((FONT, 12).into_font().color(&INK))
            .draw()
            .map_err(defect)?;
        let living = || rows.iter().filter(|row| row.limit >= lives);
        let read = living().filter_map(|row| Some((mib(row.limit), mib(row.reread?))));
        chart
            .draw_series(LineSeries::new(read, INK.stroke_width(2)))
            .map_err(defect)?
            .label("read again")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], INK.stroke_width(2)));
        let slower = living().filter_map(|row| Some((mib(row.limit), row.slowdown?)));
        chart
            .draw_secondary_series(LineSeries::new(slower, ZONES[1].stroke_width(2)))
            .map_err(defect)?
            .label("slower")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], ZONES[1].stroke_width(2)));
        let advice = report.judged.advice;
        for (n, (name, limit)) in
            [("needed", peaks.needed), ("peak", peaks.usage), ("MemoryMax", advice.max)]
                .into_iter()
                .enumerate()
        {
            let (x, top) = (mib(limit), reread * 1.1);
            if (from..to).contains(&x) {
                let line = PathElement::new([(x, 0.0), (x, top)], INK.mix(0.6));
                chart.draw_series([line]).map_err(defect)?;
                let at = (x, top * (0.97 - 0.07 * n as f64));
                let text = format!(" {name} {} ", human(limit));
                // On the side of the line where it stays within the picture.
                let side = if x * x > from * to { HPos::Right } else { HPos::Left };
                let style = (FONT, 12).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
                let text = Text::new(text, at, style);
                chart.draw_series([text]).map_err(defect)?;
            }
        }
        legend(&mut chart.configure_series_labels(), SeriesLabelPosition::MiddleLeft)
    })
}

fn legend<'a, 'b, C>(
    labels: &mut plotters::chart::SeriesLabelStyle<'a, 'b, SVGBackend<'a>, C>,
    position: SeriesLabelPosition,
) -> Result<()>
where
    C: CoordTranslate,
{
    labels
        .position(position)
        .background_style(WHITE.mix(0.8))
        .border_style(FAINT)
        .label_font((FONT, 12).into_font().color(&INK))
        .draw()
        .map_err(defect)
}

/// Draws usage over time, by kind. Also returns the plotting area and the bytes at its top.
pub fn time(report: &Report<'_>, parts: &[Part]) -> Result<(String, Frame, u64)> {
    let highest = parts.iter().map(|part| part.stack()[4]).max().unwrap_or(0);
    let highest = highest.max(report.rehearsal().fits_from()).max(1);
    let highest = (highest / 100).saturating_mul(115).saturating_add(1);
    let seconds = report.end().as_secs_f64().max(0.001);
    let width = seconds / parts.len() as f64;
    let mut frame = Frame { left: 0, right: 0, top: 0, bottom: 0 };
    let text = drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..seconds, 0.0..mib(highest))
            .map_err(defect)?;
        let (across, down) = chart.plotting_area().get_pixel_range();
        frame = Frame { left: across.start, right: across.end, top: down.start, bottom: down.end };
        chart
            .configure_mesh()
            .x_desc("seconds")
            .y_label_formatter(&|bytes| format!("{bytes:.0} MiB"))
            .max_light_lines(0)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style((FONT, 12).into_font().color(&INK))
            .draw()
            .map_err(defect)?;
        // From the top of the stack down: each area covers the lower part of the one before.
        for (kind, (name, colour)) in KINDS.iter().enumerate().rev() {
            let steps = parts.iter().enumerate().flat_map(|(n, part)| {
                let height = mib(part.stack()[kind]);
                [(n as f64 * width, height), ((n + 1) as f64 * width, height)]
            });
            let colour = *colour;
            chart
                .draw_series(AreaSeries::new(steps, 0.0, colour.filled()))
                .map_err(defect)?
                .label(*name)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled())
                });
        }
        legend(&mut chart.configure_series_labels(), SeriesLabelPosition::UpperLeft)
    })?;
    Ok((text, frame, highest))
}
