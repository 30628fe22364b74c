//! The plots, as SVG.
//!
//! The crate that draws them writes each colour as an attribute. A rule of `report.css` comes before an
//! attribute, so the page gives each of these colours its dark twin; `COLOURS` are the ones that it knows.
//! Plots are as wide as a phone and are never scaled below that, so that their labels stay readable.

use plotters::chart::MeshStyle;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Error;

const INK: RGBColor = RGBColor(0x1B, 0x26, 0x31);
const SOFT: RGBColor = RGBColor(0x5B, 0x68, 0x75);
const LINE: RGBColor = RGBColor(0xD3, 0xD9, 0xDF);
const MAIN: RGBColor = RGBColor(0x0B, 0x5F, 0x8A);
const OTHER: RGBColor = RGBColor(0x7F, 0x8E, 0x9C);

/// Every colour a plot may have, as it is written.
#[cfg(test)]
pub(super) const COLOURS: [&str; 5] = ["#1B2631", "#5B6875", "#D3D9DF", "#0B5F8A", "#7F8E9C"];

/// Units to a pixel of a phone: the crate places things on whole units, and curves want finer ones.
const FINE: i32 = 3;
const WIDTH: i32 = 348 * FINE;
/// In the units of the crate, which writes them smaller.
const FONT: (&str, f64) = ("sans-serif", 14.5 * FINE as f64);
/// Strokes.
const THIN: u32 = FINE as u32;
const THICK: u32 = 2 * FINE as u32;

/// A value with what it is called, and its interval.
pub(super) struct Mark {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) interval: Option<(f64, f64)>,
    /// Whether it is what the others are compared with.
    pub(super) main: bool,
}

type Axis = RangedCoordf64;
type Chart<'a, 'svg> = ChartContext<'a, SVGBackend<'svg>, Cartesian2d<Axis, Axis>>;

/// What the crate reports.
type Failed = DrawingAreaErrorKind<std::io::Error>;

fn draw(
    plot: &'static str,
    height: i32,
    with: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Result<(), Failed>,
) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let root =
            SVGBackend::with_string(&mut svg, (WIDTH as u32, (height * FINE) as u32)).into_drawing_area();
        with(&root).and_then(|()| root.present()).map_err(|source| Error::Plot { plot, source })?;
    }
    Ok(svg)
}

/// Grid and axes as every plot has them; which lines and labels there are is the plot's own.
fn mesh<'a, 'b, 'svg>(chart: &'b mut Chart<'a, 'svg>) -> MeshStyle<'a, 'b, Axis, Axis, SVGBackend<'svg>> {
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(LINE.stroke_width(THIN))
        .light_line_style(TRANSPARENT)
        .axis_style(LINE.stroke_width(THIN))
        .set_all_tick_mark_size(4 * FINE)
        .label_style((FONT.0, FONT.1, &SOFT));
    mesh
}

/// Values below each other, each with its interval: a diamond for the one that counts, circles for others.
pub(super) fn intervals(marks: &[Mark]) -> Result<String, Error> {
    let rows = marks.len() as f64;
    let highs = marks.iter().map(|mark| mark.interval.map_or(mark.value, |(_, high)| high.max(mark.value)));
    let most = highs.fold(1e-9, f64::max) * 1.05;
    draw("metrics", 34 + 24 * marks.len() as i32, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_right(14 * FINE)
            .margin_top(4 * FINE)
            .x_label_area_size(26 * FINE)
            .y_label_area_size(92 * FINE)
            .build_cartesian_2d(0.0..most, 0.0..rows)?;
        mesh(&mut chart)
            .disable_y_mesh()
            .disable_y_axis()
            .y_labels(0)
            .x_labels(5)
            .x_label_formatter(&|value| short(*value))
            .draw()?;
        for (at, mark) in marks.iter().enumerate() {
            let y = rows - at as f64 - 0.5;
            let style = if mark.main { MAIN } else { OTHER };
            if let Some((low, high)) = mark.interval {
                let line = PathElement::new(vec![(low, y), (high, y)], style.stroke_width(THICK));
                chart.draw_series([line])?;
            }
            let (x, y) = chart.backend_coord(&(mark.value, y));
            if mark.main {
                let corners = diamond((x, y));
                root.draw(&Polygon::new(corners, MAIN.filled()))?;
            } else {
                root.draw(&Circle::new((x, y), 4 * FINE, OTHER.filled()))?;
            }
            let place = Pos::new(HPos::Right, VPos::Center);
            let colour = if mark.main { &INK } else { &SOFT };
            let style = TextStyle::from((FONT.0, FONT.1).into_font()).color(colour).pos(place);
            root.draw(&Text::new(label(&mark.name), (86 * FINE, y), style))?;
        }
        Ok(())
    })
}

/// The same value night after night, each with its interval; the last one is a diamond.
pub(super) fn nights(marks: &[Mark]) -> Result<String, Error> {
    let ends = |of: fn((f64, f64)) -> f64| {
        marks.iter().flat_map(move |mark| [mark.value, mark.interval.map_or(mark.value, of)])
    };
    let (low, high) = (
        ends(|interval| interval.0).fold(f64::INFINITY, f64::min),
        ends(|interval| interval.1).fold(0.0, f64::max),
    );
    let room = ((high - low) * 0.15).max(high.abs() * 0.02).max(1e-6);
    let last = marks.len().saturating_sub(1);
    draw("nights", 190, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_right(14 * FINE)
            .margin_top(8 * FINE)
            .x_label_area_size(26 * FINE)
            .y_label_area_size(48 * FINE)
            .build_cartesian_2d(-0.5..last as f64 + 0.5, (low - room).max(0.0)..high + room)?;
        mesh(&mut chart)
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(5)
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        let line = marks.iter().enumerate().map(|(at, mark)| (at as f64, mark.value));
        chart.draw_series([PathElement::new(line.collect::<Vec<_>>(), MAIN.stroke_width(THICK))])?;
        for (at, mark) in marks.iter().enumerate() {
            if let Some((low, high)) = mark.interval {
                let ends = vec![(at as f64, low), (at as f64, high)];
                chart.draw_series([PathElement::new(ends, OTHER.stroke_width(THICK))])?;
            }
            let (x, y) = chart.backend_coord(&(at as f64, mark.value));
            if mark.main {
                let corners = diamond((x, y));
                root.draw(&Polygon::new(corners, MAIN.filled()))?;
            } else {
                root.draw(&Circle::new((x, y), 3 * FINE, MAIN.filled()))?;
            }
        }
        for (at, side) in [(0, HPos::Left), (last, HPos::Right)] {
            let x = if at == 0 { 48 * FINE } else { WIDTH - 14 * FINE };
            let style = TextStyle::from((FONT.0, FONT.1).into_font()).color(&SOFT);
            let style = style.pos(Pos::new(side, VPos::Top));
            root.draw(&Text::new(label(&marks[at].name), (x, 172 * FINE), style))?;
        }
        Ok(())
    })
}

/// Shares of ten tenths, with a dashed line where all would be alike.
pub(super) fn tenths(shares: &[f64]) -> Result<String, Error> {
    let most = shares.iter().copied().fold(0.1, f64::max) * 1.1;
    draw("tenths", 200, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_right(6 * FINE)
            .margin_top(8 * FINE)
            .x_label_area_size(26 * FINE)
            .y_label_area_size(44 * FINE)
            .build_cartesian_2d(0.0..shares.len() as f64, 0.0..most)?;
        mesh(&mut chart)
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(5)
            .y_label_formatter(&|value| format!("{:.0} %", 100.0 * value))
            .draw()?;
        let bars = shares.iter().enumerate();
        let bars = bars.map(|(at, share)| {
            Rectangle::new([(at as f64 + 0.12, *share), (at as f64 + 0.88, 0.0)], MAIN.filled())
        });
        chart.draw_series(bars)?;
        let alike = 1.0 / shares.len().max(1) as f64;
        for at in 0..shares.len() * 2 {
            let from = at as f64 / 2.0;
            let dash = vec![(from, alike), (from + 0.3, alike)];
            chart.draw_series([PathElement::new(dash, INK.stroke_width(THICK))])?;
        }
        for at in 0..shares.len() {
            let (x, y) = chart.backend_coord(&(at as f64 + 0.5, 0.0));
            let style = TextStyle::from((FONT.0, FONT.1).into_font()).color(&SOFT);
            let style = style.pos(Pos::new(HPos::Center, VPos::Top));
            root.draw(&Text::new((at + 1).to_string(), (x, y + 6 * FINE), style))?;
        }
        Ok(())
    })
}

/// A Lorenz curve under the diagonal that it would be if all were alike.
pub(super) fn lorenz(points: &[(f64, f64)]) -> Result<String, Error> {
    draw("lorenz", 200, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_right(24 * FINE)
            .margin_top(8 * FINE)
            .x_label_area_size(26 * FINE)
            .y_label_area_size(50 * FINE)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
        let percent = |value: &f64| format!("{:.0} %", 100.0 * value);
        mesh(&mut chart)
            .x_labels(5)
            .y_labels(5)
            .x_label_formatter(&percent)
            .y_label_formatter(&percent)
            .draw()?;
        for at in 0..20 {
            let from = f64::from(at) / 20.0;
            let dash = vec![(from, from), (from + 0.03, from + 0.03)];
            chart.draw_series([PathElement::new(dash, OTHER.stroke_width(THICK))])?;
        }
        chart.draw_series([PathElement::new(points.to_vec(), MAIN.stroke_width(THICK))])?;
        Ok(())
    })
}

fn diamond((x, y): (i32, i32)) -> Vec<(i32, i32)> {
    const HALF: i32 = 6 * FINE;
    vec![(x, y - HALF), (x + HALF, y), (x, y + HALF), (x - HALF, y)]
}

/// A number in as few digits as an axis needs.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() { "0".to_owned() } else { text.to_owned() }
}

/// A name that fits beside an axis. What no page shows is not for the crate to escape.
fn label(name: &str) -> String {
    const MOST: usize = 13;
    let shown = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    match name.chars().count() {
        n if n > MOST => shown.take(MOST - 1).chain(['…']).collect(),
        _ => shown.collect(),
    }
}
