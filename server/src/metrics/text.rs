//! Prometheus' text format, version 0.0.4.

use super::families::{Family, Kind};
use engine::measure::Times;
use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
};

/// What the format is called in HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The upper bounds of the classes of a duration: in µs, and in seconds as they are written.
const BUCKETS: [(u64, &str); 16] = [
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
];

/// Labels of a sample.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Samples, gathered by family: they come in any order and are written together.
#[derive(Default)]
pub struct Text {
    samples: BTreeMap<&'static str, String>,
}

impl Text {
    /// A sample.
    pub fn put(&mut self, family: &'static Family, labels: Labels<'_>, value: impl Display) {
        debug_assert_eq!(labels.iter().map(|(name, _)| *name).collect::<Vec<_>>(), family.labels, "{}", family.name);
        self.line(family, "", labels, value);
    }

    /// Durations of several cores, as one histogram.
    pub fn put_times<'a>(&mut self, family: &'static Family, labels: Labels<'_>, times: impl Iterator<Item = &'a Times> + Clone) {
        debug_assert_eq!(family.kind, Kind::Histogram, "{}", family.name);
        let mut with_bound = labels.to_vec();
        for (us, bound) in BUCKETS {
            with_bound.push(("le", bound));
            self.line(family, "_bucket", &with_bound, times.clone().map(|times| times.at_most(us)).sum::<u64>());
            with_bound.pop();
        }
        let count: u64 = times.clone().map(Times::count).sum();
        with_bound.push(("le", "+Inf"));
        self.line(family, "_bucket", &with_bound, count);
        self.line(family, "_sum", labels, seconds(times.map(|times| times.sum_us).sum()));
        self.line(family, "_count", labels, count);
    }

    fn line(&mut self, family: &'static Family, suffix: &str, labels: Labels<'_>, value: impl Display) {
        let out = self.samples.entry(family.name).or_default();
        out.push_str(family.name);
        out.push_str(suffix);
        for (at, (name, value)) in labels.iter().enumerate() {
            let _ = write!(out, "{}{name}=\"", if at == 0 { '{' } else { ',' });
            escape(out, value);
            out.push('"');
        }
        let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// All of it: every family with its head, in the order of `families`.
    #[must_use]
    pub fn finish(mut self, families: &[&'static Family]) -> String {
        let mut out = String::new();
        for family in families {
            let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", family.name, family.help, family.name, family.kind.name());
            out.push_str(&self.samples.remove(family.name).unwrap_or_default());
        }
        debug_assert!(self.samples.is_empty(), "a family is missing in the list");
        out
    }
}

/// µs as seconds.
#[must_use]
pub fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn escape(out: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            letter => out.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::measure::Latency;

    static COUNT: Family = Family { name: "a_total", kind: Kind::Counter, labels: &["group"], help: "As." };
    static TIME: Family = Family { name: "b_seconds", kind: Kind::Histogram, labels: &[], help: "Bs." };

    #[test]
    fn samples_stand_below_their_family_with_escaped_labels() {
        let mut text = Text::default();
        text.put(&COUNT, &[("group", "a\"b\\c\nd")], 1);
        text.put(&COUNT, &[("group", "e")], 2);
        let expected = "# HELP a_total As.\n# TYPE a_total counter\na_total{group=\"a\\\"b\\\\c\\nd\"} 1\na_total{group=\"e\"} 2\n";
        assert_eq!(text.finish(&[&COUNT]), expected);
    }

    #[test]
    fn buckets_are_cumulative_over_all_cores() {
        let (one, other) = (Latency::default(), Latency::default());
        one.record_us(90);
        other.record_us(3_000);
        other.record_us(20_000_000);
        let mut text = Text::default();
        text.put_times(&TIME, &[], [one.times(), other.times()].iter());
        let text = text.finish(&[&TIME]);
        for line in [
            "b_seconds_bucket{le=\"0.0001\"} 1",
            "b_seconds_bucket{le=\"0.0025\"} 1",
            "b_seconds_bucket{le=\"0.005\"} 2",
            "b_seconds_bucket{le=\"10\"} 2",
            "b_seconds_bucket{le=\"+Inf\"} 3",
            "b_seconds_sum 20.00309",
            "b_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
