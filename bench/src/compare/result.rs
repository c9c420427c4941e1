//! What a comparison found: the runs as they are, and the ratios between brokers with their spread.

use super::{machine::Machine, subject::Facts, workloads::Metric};
use serde::Serialize;
use serde_json::{Map, Value};

/// A whole comparison: this is the JSON file.
#[derive(Serialize)]
pub struct Comparison {
    /// W1 to W10.
    pub workload: String,
    /// What it is.
    pub title: String,
    /// How it was run.
    pub settings: Settings,
    /// Where it was run.
    pub machine: Machine,
    /// The brokers, Thalweg first.
    pub subjects: Vec<Facts>,
    /// The machine's own limits before.
    pub limits_before: Map<String, Value>,
    /// The same after.
    pub limits_after: Map<String, Value>,
    /// Rates while warming up.
    pub warm_ups: Vec<Value>,
    /// The measurements.
    pub cases: Vec<CaseResult>,
}

/// How a comparison was run.
#[derive(Serialize)]
pub struct Settings {
    /// How often each broker was measured.
    pub pairs: usize,
    /// Short runs on less data.
    pub quick: bool,
    /// Kafka's heap, if Kafka was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka_heap_mib: Option<u32>,
}

/// One measurement of all brokers.
#[derive(Serialize)]
pub struct CaseResult {
    /// A short key.
    pub key: String,
    /// What it is.
    pub title: String,
    /// How to repeat it against a broker that runs.
    pub command: String,
    /// Every run as it was reported.
    pub runs: Vec<RunResult>,
    /// The figures that count.
    pub summary: Vec<Line>,
}

/// One run.
#[derive(Serialize)]
pub struct RunResult {
    /// Pairs count from 1.
    pub pair: usize,
    /// The broker's key.
    pub subject: String,
    /// The load command's JSON.
    pub report: Value,
}

/// A figure of all brokers.
#[derive(Serialize)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// True if more is better.
    pub more_is_better: bool,
    /// By broker.
    pub values: Vec<(String, Spread)>,
    /// Thalweg's figure divided by another's, pair by pair.
    pub ratios: Vec<(String, Spread)>,
    /// The machine's limit beside it, as the mean of before and after, with its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<(&'static str, f64)>,
}

/// Median, least and most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median; of an even number the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of some figures; `None` if there are none.
    #[must_use]
    pub fn of(mut figures: Vec<f64>) -> Option<Spread> {
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len().is_multiple_of(2) { (figures[middle - 1] + figures[middle]) / 2.0 } else { figures[middle] };
        Some(Spread { median, min, max })
    }
}

impl CaseResult {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(key: &str, title: &str, command: String) -> CaseResult {
        CaseResult { key: key.to_owned(), title: title.to_owned(), command, runs: Vec::new(), summary: Vec::new() }
    }

    /// Puts the figures that count together. A figure that no broker has is left out.
    pub fn summarize(&mut self, metrics: &'static [Metric], subjects: &[Facts], limits: [&Map<String, Value>; 2]) {
        self.summary = metrics.iter().filter_map(|metric| self.line(metric, subjects, limits)).collect();
    }

    fn line(&self, metric: &'static Metric, subjects: &[Facts], limits: [&Map<String, Value>; 2]) -> Option<Line> {
        let figures = |subject: &str| -> Vec<(usize, f64)> {
            let runs = self.runs.iter().filter(|run| run.subject == subject);
            runs.filter_map(|run| Some((run.pair, run.report.pointer(metric.pointer)?.as_f64()?))).collect()
        };
        let spread = |subject: &Facts| {
            let values = figures(&subject.key).into_iter().map(|(_, value)| value).collect();
            Spread::of(values).map(|spread| (subject.key.clone(), spread))
        };
        let (ours, others) = subjects.split_first()?;
        let ours = figures(&ours.key);
        let ratio = |other: &Facts| {
            let theirs = figures(&other.key);
            let of_pair = |(pair, value): &(usize, f64)| {
                let (_, their) = theirs.iter().find(|(theirs, their)| theirs == pair && *their > 0.0)?;
                Some(value / their)
            };
            Spread::of(ours.iter().filter_map(of_pair).collect()).map(|spread| (other.key.clone(), spread))
        };
        let values: Vec<(String, Spread)> = subjects.iter().filter_map(spread).collect();
        let limit = metric.limit.and_then(|name| {
            let found: Vec<f64> = limits.iter().filter_map(|limits| limits.get(name)?.as_f64()).collect();
            (!found.is_empty()).then(|| (name, found.iter().sum::<f64>() / found.len() as f64))
        });
        let ratios = others.iter().filter_map(ratio).collect();
        (!values.is_empty()).then_some(Line {
            name: metric.name,
            unit: metric.unit,
            more_is_better: metric.more_is_better,
            values,
            ratios,
            limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const RATE: Metric = Metric { name: "rate", unit: "/s", pointer: "/rate", more_is_better: true, limit: Some("disk") };

    #[test]
    fn a_ratio_is_the_median_of_the_pairs_not_the_ratio_of_the_medians() {
        let mut case = CaseResult::new("a", "a case", String::new());
        // The machine gets slower from pair to pair; within a pair we are always twice as fast.
        for (pair, rate) in [(1, 400.0), (2, 200.0), (3, 100.0)] {
            case.runs.push(RunResult { pair, subject: "we".to_owned(), report: json!({ "rate": rate }) });
            case.runs.push(RunResult { pair, subject: "they".to_owned(), report: json!({ "rate": rate / 2.0 }) });
        }
        let facts = |key: &str| Facts { key: key.to_owned(), name: String::new(), ack: String::new() };
        let (before, after) = (json!({ "disk": 900.0 }), json!({ "disk": 700.0 }));
        let limits = [&before, &after].map(|limits| limits.as_object().unwrap());
        case.summarize(&[RATE], &[facts("we"), facts("they")], limits);
        let line = &case.summary[0];
        assert_eq!(line.values[0], ("we".to_owned(), Spread { median: 200.0, min: 100.0, max: 400.0 }));
        assert_eq!(line.ratios, [("they".to_owned(), Spread { median: 2.0, min: 2.0, max: 2.0 })]);
        assert_eq!(line.limit, Some(("disk", 800.0)));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 10.0]), Some(Spread { median: 3.0, min: 1.0, max: 10.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
