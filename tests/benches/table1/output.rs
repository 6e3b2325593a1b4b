//! The output of the table: text or JSON, and a picture (SVG) in a file.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;

/// An area to draw in.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The font of all text.
pub const FONT: &str = "sans-serif";
/// The width of all pictures.
const WIDTH: u32 = 900;
/// The colour of text and axes.
pub const INK: RGBColor = RGBColor(40, 40, 40);
/// The colour of the grid.
pub const FAINT: RGBColor = RGBColor(200, 200, 200);
/// Colours that people with red-green colour blindness can distinguish.
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];

/// Prints `value` as JSON, or `text`.
pub fn print(as_json: bool, value: &impl Serialize, text: impl Display) -> Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(value).context("cannot make JSON")?);
    } else {
        print!("{text}");
    }
    Ok(())
}

/// Draws a picture of this height, and writes it to `file` if given.
pub fn picture(
    file: Option<&Path>,
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<()> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        // Otherwise it is unreadable on a dark page.
        area.fill(&WHITE).map_err(defect)?;
        draw(&area)?;
        area.present().map_err(defect)?;
    }
    match file {
        Some(file) => fs::write(file, svg).with_context(|| format!("writing {}", file.display())),
        None => Ok(()),
    }
}

/// An error of drawing, which should not occur: it only writes to a string.
pub fn defect(error: impl Display) -> anyhow::Error {
    anyhow!("cannot draw the picture: {error}")
}
