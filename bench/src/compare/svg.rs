//! Charts as inline SVG: bars and lines, nothing that needs a network or a script.

use super::table::number;
use std::fmt::Write;

/// A colour per broker, in their order.
pub const COLOURS: [&str; 5] = ["#0b7285", "#d9480f", "#862e9c", "#5f3dc4", "#495057"];
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 240.0;
/// Room for labels: left, right, top, bottom.
const MARGINS: (f64, f64, f64, f64) = (78.0, 24.0, 30.0, 34.0);

/// A named line.
pub struct Series {
    /// The colour's place in [`COLOURS`].
    pub colour: usize,
    /// Its points, in order of x.
    pub points: Vec<(f64, f64)>,
}

/// Text for XML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(title: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><text x=\"4\" y=\"16\" class=\"title\">{0}</text>",
        escape(title)
    )
}

/// Horizontal bars: name, colour, value. Values are written at their ends.
#[must_use]
pub fn bars(title: &str, unit: &str, bars: &[(String, usize, f64)]) -> String {
    let height = 34.0 + bars.len() as f64 * 26.0;
    let most = bars.iter().map(|bar| bar.2).fold(f64::MIN_POSITIVE, f64::max);
    let (begin, room) = (130.0, WIDTH - 130.0 - 100.0);
    let mut out = open(title, height);
    for (at, (name, colour, value)) in bars.iter().enumerate() {
        let y = 28.0 + at as f64 * 26.0;
        let width = (value / most * room).max(1.0);
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"{begin}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>",
            begin - 6.0,
            y + 13.0,
            escape(name),
            COLOURS[colour % COLOURS.len()],
            begin + width + 5.0,
            y + 13.0,
            escape(&number(*value, unit))
        );
    }
    out + "</svg>"
}

/// Lines over x. `names` are the labels of whole x values; without them x is a number. `logarithmic` is the y axis.
#[must_use]
pub fn lines(title: &str, unit: &str, names: &[&str], x_label: &str, logarithmic: bool, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    let x_most = points().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
    let most = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
    let least = points().map(|point| point.1).fold(most, f64::min).max(most / 1e6);
    let (left, right, top, bottom) = MARGINS;
    // A logarithmic axis begins and ends at a power of ten.
    let (low, high) =
        if logarithmic { (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0)) } else { (0.0, most * 1.05) };
    let scaled = |value: f64| if logarithmic { value.max(1e-9).log10() } else { value };
    let x = |value: f64| left + value / x_most * (WIDTH - left - right);
    let y = |value: f64| HEIGHT - bottom - (scaled(value) - low) / (high - low) * (HEIGHT - top - bottom);
    let mut out = open(title, HEIGHT);
    let marks: Vec<f64> = if logarithmic {
        (low as i32..=high as i32).map(|power| 10f64.powi(power)).collect()
    } else {
        (0..=4).map(|quarter| most * f64::from(quarter) / 4.0).collect()
    };
    for mark in marks {
        let _ = write!(
            out,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" class=\"grid\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
            WIDTH - right,
            y(mark),
            left - 6.0,
            y(mark) + 4.0,
            escape(&number(mark, unit))
        );
    }
    for (at, name) in names.iter().enumerate() {
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", x(at as f64), HEIGHT - 18.0, escape(name));
    }
    let label = if names.is_empty() { format!("{x_label}, 0 to {x_most:.0}") } else { x_label.to_owned() };
    let _ = write!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>", (left + WIDTH) / 2.0, HEIGHT - 3.0, escape(&label));
    for Series { colour, points } in series {
        let colour = COLOURS[colour % COLOURS.len()];
        let path: Vec<String> = points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = write!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join(" "));
        if !names.is_empty() {
            for (at, value) in points {
                let _ = write!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*at), y(*value));
            }
        }
    }
    out + "</svg>"
}
