//! Line charts as SVG: panels side by side, each with axes and a legend.

use std::fmt::Write;

/// A chart that cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("chart {title:?}: {problem}")]
pub struct ChartError {
    /// The title of the panel at fault.
    pub title: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// `(x, y)` in ascending order of `x`.
    pub points: Vec<(f64, f64)>,
    /// Whether the line is dashed, as what is computed and not measured.
    pub dashed: bool,
    /// The number of its colour; there are 6, then they repeat.
    pub colour: usize,
}

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// The line above it.
    pub title: String,
    /// What the horizontal axis says.
    pub x_label: String,
    /// What the vertical axis says.
    pub y_label: String,
    /// The lines; at least one, with at least one point each.
    pub series: Vec<Series>,
}

const COLOURS: [&str; 6] = ["#1f5fbf", "#d1582a", "#2e8b57", "#7b4fb0", "#8a6d1f", "#555555"];
/// A panel's place, in pixels.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 55.0;
/// Ticks of an axis, about.
const TICKS: f64 = 6.0;

/// Draws panels side by side. Both axes are linear and begin at 0, the vertical one below it where a `y` is.
///
/// # Errors
/// If there is no panel, or a panel has no point, an `x` below 0 or a number that is not finite.
pub fn svg(panels: &[Panel]) -> Result<String, ChartError> {
    let fail = |title: &str, problem: &str| Err(ChartError { title: title.to_string(), problem: problem.to_string() });
    if panels.is_empty() {
        return fail("", "no panels");
    }
    let width = WIDTH * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{HEIGHT}\" viewBox=\"0 0 {width} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (i, panel) in panels.iter().enumerate() {
        let points = || panel.series.iter().flat_map(|series| &series.points);
        if panel.series.iter().any(|series| series.points.is_empty()) || points().next().is_none() {
            return fail(&panel.title, "a series without points");
        }
        if points().any(|(x, y)| !x.is_finite() || *x < 0.0 || !y.is_finite()) {
            return fail(&panel.title, "a number that is not finite or below 0");
        }
        draw(&mut out, panel, WIDTH * i as f64);
    }
    out.push_str("</svg>\n");
    Ok(out)
}

fn draw(out: &mut String, panel: &Panel, left: f64) {
    let extremes = |of: fn(&(f64, f64)) -> f64| {
        let values = panel.series.iter().flat_map(|series| &series.points).map(of);
        values.fold((0.0, 0.0), |(least, most): (f64, f64), value| (least.min(value), most.max(value)))
    };
    let (x_axis, y_axis) = (Axis::new(extremes(|point| point.0)), Axis::new(extremes(|point| point.1)));
    let (x0, x1, y0, y1) = (left + LEFT, left + WIDTH - RIGHT, HEIGHT - BOTTOM, TOP);
    let x = |value: f64| x0 + (x1 - x0) * x_axis.share(value);
    let y = |value: f64| y0 + (y1 - y0) * y_axis.share(value);
    let middle = (x0 + x1) / 2.0;
    // Writing to a string does not fail.
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    let text = |x: f64, y: f64, anchor: &str, more: &str, text: &str| {
        format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{}</text>", escaped(text))
    };
    line(text(middle, TOP - 18.0, "middle", " font-size=\"13\" font-weight=\"bold\"", &panel.title));
    for tick in x_axis.ticks() {
        let at = x(tick);
        line(format!("<line x1=\"{at:.1}\" y1=\"{y0:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#333\"/>", y0 + 4.0));
        line(text(at, y0 + 16.0, "middle", "", &x_axis.label(tick)));
    }
    for tick in y_axis.ticks() {
        let at = y(tick);
        line(format!("<line x1=\"{x0:.1}\" y1=\"{at:.1}\" x2=\"{x1:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"));
        line(text(x0 - 6.0, at + 4.0, "end", "", &y_axis.label(tick)));
    }
    line(format!("<path d=\"M{x0:.1} {y1:.1} V{y0:.1} H{x1:.1}\" fill=\"none\" stroke=\"#333\"/>"));
    line(text(middle, HEIGHT - 18.0, "middle", "", &panel.x_label));
    let (side, height) = (left + 16.0, (y0 + y1) / 2.0);
    let turned = format!(" transform=\"rotate(-90 {side:.1} {height:.1})\"");
    line(text(side, height, "middle", &turned, &panel.y_label));
    for (i, series) in panel.series.iter().enumerate() {
        let colour = COLOURS[series.colour % COLOURS.len()];
        let dash = if series.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let stroke = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{dash}");
        let points: Vec<String> =
            series.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        line(format!("<polyline points=\"{}\" {stroke}/>", points.join(" ")));
        if !series.dashed {
            for (at, height) in &series.points {
                line(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>", x(*at), y(*height)));
            }
        }
        let (at, height) = (x0 + 12.0, y1 + 10.0 + 15.0 * i as f64);
        line(format!("<path d=\"M{at:.1} {height:.1} h24\" {stroke}/>"));
        line(text(at + 30.0, height + 4.0, "start", "", &series.name));
    }
}

/// A linear axis with 0 on it.
struct Axis {
    /// 0, or the step below the least number.
    begin: f64,
    end: f64,
    step: f64,
    /// What labels are divided by, and the letter that says so.
    unit: (f64, &'static str),
}

impl Axis {
    /// An axis from `least`, at most 0, to `most`, at least 0.
    fn new((least, most): (f64, f64)) -> Self {
        let range = most - least;
        // Positions in a context are powers of two.
        let is_binary = range >= 1024.0 && range % 1024.0 == 0.0;
        let unit = if is_binary { (1024.0, "K") } else { (1.0, "") };
        let rough = if range > 0.0 { range / unit.0 / TICKS } else { 1.0 / TICKS };
        let decade = 10f64.powf(rough.log10().floor());
        let factors: [f64; 4] = [1.0, 2.0, 5.0, 10.0];
        let round = factors.map(|factor| factor * decade).into_iter().find(|step| *step >= rough * 0.999);
        let binary = 2f64.powf(rough.log2().ceil()).max(1.0);
        let step = if is_binary { binary * unit.0 } else { round.unwrap_or(10.0 * decade) };
        let (begin, end) = (step * (least / step).floor(), step * (most / step).ceil());
        Self { begin, end: if end > begin { end } else { step }, step, unit }
    }

    /// Which part of the axis lies before a number.
    fn share(&self, value: f64) -> f64 {
        (value - self.begin) / (self.end - self.begin)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (step, first, last) = (self.step, (self.begin / self.step).round(), (self.end / self.step).round());
        (first as i64..=last as i64).map(move |tick| tick as f64 * step)
    }

    fn label(&self, tick: f64) -> String {
        let decimals = (-(self.step / self.unit.0).log10().floor()).max(0.0) as usize;
        format!("{:.decimals$}{}", tick / self.unit.0, if tick != 0.0 { self.unit.1 } else { "" })
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
