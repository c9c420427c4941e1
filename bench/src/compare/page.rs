//! The comparison as one HTML page that needs nothing else.

use super::{
    result::{CaseResult, Comparison},
    subject::Facts,
    svg::{COLOURS, Series, bars, escape, lines},
    table::{facts, is_worse, number, plain, value, warnings},
};
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#212529}\
    table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #dee2e6;padding:.3em .8em;text-align:right}\
    td:first-child,th:first-child{text-align:left}.worse{color:#c92a2a;font-weight:600}.facts{color:#495057}code{background:#f1f3f5;padding:.1em .3em}\
    .charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:1.2em}svg{width:100%;height:auto}\
    svg text{font:12px system-ui,sans-serif;fill:#495057}svg .title{font-weight:600;fill:#212529}svg .grid{stroke:#e9ecef}\
    .key{display:inline-block;width:.8em;height:.8em;margin:0 .4em 0 1em}.warning{color:#c92a2a}";

/// The percentiles of the latency charts, and where they stand in a run's JSON.
const PERCENTILES: [(&str, &str); 6] =
    [("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p999"), ("p99.99", "p9999"), ("max", "max")];

/// The page.
#[must_use]
pub fn page(comparison: &Comparison) -> String {
    let heading = escape(&format!("{}: {}", comparison.workload, comparison.title));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{heading}</title><style>{STYLE}</style></head><body>\n<h1>{heading}</h1>\n<p>"
    );
    for (at, subject) in comparison.subjects.iter().enumerate() {
        let _ = write!(out, "<span class=\"key\" style=\"background:{}\"></span>{}", COLOURS[at % COLOURS.len()], escape(&subject.name));
    }
    out.push_str("</p>\n<ul class=\"facts\">");
    for fact in facts(comparison) {
        let _ = write!(out, "<li>{}</li>", escape(&fact));
    }
    let load = comparison.machine.load_average;
    let _ = writeln!(out, "<li>load average before: {load:.1} on {} CPUs</li></ul>", comparison.machine.cpus);
    if comparison.settings.pairs == 1 {
        out.push_str("<p class=\"warning\">One pair only: a first sign, not a result.</p>\n");
    }
    for case in &comparison.cases {
        section(&mut out, case, &comparison.subjects);
    }
    out + "</body></html>\n"
}

fn section(out: &mut String, case: &CaseResult, subjects: &[Facts]) {
    let _ = write!(out, "<h2>{}</h2>\n<p><code>{}</code></p>\n<table><tr><th></th>", escape(&case.title), escape(&case.command));
    for subject in subjects {
        let _ = write!(out, "<th>{}</th>", escape(&subject.key));
    }
    for subject in subjects.iter().skip(1) {
        let _ = write!(out, "<th>thalweg / {}</th>", escape(&subject.key));
    }
    out.push_str("<th>the machine's limit</th></tr>\n");
    for line in &case.summary {
        let _ = write!(out, "<tr><td>{}</td>", escape(line.name));
        for subject in subjects {
            let spread = line.values.iter().find(|(key, _)| *key == subject.key);
            let text = spread.map_or_else(|| "-".to_owned(), |(_, spread)| value(spread, line.unit));
            let _ = write!(out, "<td>{}</td>", escape(&text));
        }
        for subject in subjects.iter().skip(1) {
            match line.ratios.iter().find(|(key, _)| *key == subject.key) {
                Some((_, spread)) => {
                    let class = if is_worse(line, spread) { " class=\"worse\"" } else { "" };
                    let range =
                        if spread.min == spread.max { String::new() } else { format!(" ({} to {})", plain(spread.min), plain(spread.max)) };
                    let _ = write!(out, "<td{class}>{}{range}</td>", plain(spread.median));
                }
                None => out.push_str("<td>-</td>"),
            }
        }
        let limit = line.limit.map_or_else(String::new, |(name, limit)| format!("{} ({name})", number(limit, line.unit)));
        let _ = writeln!(out, "<td>{}</td></tr>", escape(&limit));
    }
    out.push_str("</table>\n");
    for warning in warnings(case) {
        let _ = writeln!(out, "<p class=\"warning\">{}</p>", escape(&warning));
    }
    out.push_str("<div class=\"charts\">\n");
    for chart in charts(case, subjects) {
        let _ = writeln!(out, "<div>{chart}</div>");
    }
    out.push_str("</div>\n");
}

fn charts(case: &CaseResult, subjects: &[Facts]) -> Vec<String> {
    let mut charts = Vec::new();
    for (title, at) in
        [("time until an ack", "latency_us"), ("time until a consumer has it", "end_to_end_us"), ("time until an ack, alone", "alone_us")]
    {
        let series = series(case, subjects, |report| {
            let point = |(x, (_, name)): (usize, &(&str, &str))| Some((x as f64, report.get(at)?.get(name)?.as_f64()?.max(1.0)));
            PERCENTILES.iter().enumerate().filter_map(point).collect()
        });
        if !series.is_empty() {
            let names = PERCENTILES.map(|(name, _)| name);
            charts.push(lines(title, "us", &names, "the first pair", true, &series));
        }
    }
    let timeline = series(case, subjects, |report| {
        let ticks = report["timeline"].as_array().map(Vec::as_slice).unwrap_or_default();
        ticks.iter().filter_map(|tick| Some((tick["second"].as_f64()?, tick["mb_per_second"].as_f64()?))).collect()
    });
    if !timeline.is_empty() {
        charts.push(lines("throughput over time", "MB/s", &[], "seconds of the first pair", false, &timeline));
    }
    for line in &case.summary {
        let values: Vec<(String, usize, f64)> = line
            .values
            .iter()
            .filter_map(|(key, spread)| Some((key.clone(), subjects.iter().position(|subject| subject.key == *key)?, spread.median)))
            .collect();
        if !line.name.contains("p99") && !line.name.contains("p50") && values.iter().any(|value| value.2 > 0.0) {
            charts.push(bars(line.name, line.unit, &values));
        }
    }
    charts
}

/// A line per broker from its first run.
fn series(case: &CaseResult, subjects: &[Facts], points: impl Fn(&serde_json::Value) -> Vec<(f64, f64)>) -> Vec<Series> {
    let of = |(colour, subject): (usize, &Facts)| {
        let run = case.runs.iter().find(|run| run.subject == subject.key)?;
        Some(Series { colour, points: points(&run.report) }).filter(|series| series.points.len() > 1)
    };
    subjects.iter().enumerate().filter_map(of).collect()
}
