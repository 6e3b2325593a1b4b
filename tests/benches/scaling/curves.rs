//! The forecast as a picture: the share of the ideal by CPUs, with a chart for each number of sockets.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use crate::forecast::{BATCHES, CPUS, Forecast, SOCKETS};
use crate::output::{Area, COLOURS, FAINT, FONT, INK, defect, picture};

/// Draws the forecast, and writes it to `file` if given.
pub fn draw(forecast: &Forecast, file: Option<&Path>) -> Result<()> {
    picture(file, 420, |root| {
        let areas = root.split_evenly((1, SOCKETS.len()));
        areas.iter().zip(SOCKETS).try_for_each(|(area, sockets)| curves(area, forecast, sockets))
    })
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
