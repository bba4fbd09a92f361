//! One plot as an SVG file, and as a table on standard output.

use std::path::Path;

use plotters::{
    prelude::{
        BLACK, ChartBuilder, Circle, IntoDrawingArea, IntoLogRange, LineSeries, RGBColor,
        SVGBackend, SeriesLabelPosition, WHITE,
    },
    style::Color,
};

use super::Outcome;

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

pub(crate) struct Plot {
    pub(crate) file: &'static str,
    pub(crate) x: &'static str,
    pub(crate) lines: Vec<Line>,
}

const SIZE: (u32, u32) = (640, 400);
const COLOURS: [RGBColor; 3] = [RGBColor(0, 90, 160), RGBColor(200, 80, 0), RGBColor(0, 130, 70)];

/// Draws in `directory`. Both axes are logarithmic: a cost that does not grow is a horizontal line,
/// a cost that grows with x a diagonal.
pub(crate) fn draw(directory: &Path, plot: &Plot) -> Outcome<()> {
    tell(plot);
    let path = directory.join(plot.file).with_extension("svg");
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let points = || plot.lines.iter().flat_map(|line| &line.points);
    let least = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MAX, f64::min);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MIN, f64::max);
    let xs = (least(|p| p.0), most(|p| p.0));
    // One lower bound for all plots, so that costs can be compared between them.
    let ys = (least(|p| p.1).min(0.1), most(|p| p.1) * 1.5);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(58)
        .build_cartesian_2d((xs.0..xs.1).log_scale(), (ys.0..ys.1).log_scale())?;
    chart.configure_mesh().x_desc(plot.x).y_desc("CPU µs a delivery").draw()?;
    for (line, colour) in plot.lines.iter().zip(COLOURS) {
        let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(series)?
            .label(&*line.name)
            .legend(move |at| Circle::new((at.0 + 10, at.1), 4, colour.filled()));
        chart.draw_series(line.points.iter().map(|at| Circle::new(*at, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
fn tell(plot: &Plot) {
    println!("\n### {}\n", plot.x);
    for line in &plot.lines {
        let points = line.points.iter().map(|(x, y)| format!("{x}: {y:.2}"));
        println!("{}: {} µs", line.name, points.collect::<Vec<_>>().join(", "));
    }
}
