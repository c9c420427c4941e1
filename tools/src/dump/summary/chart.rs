//! Sizes as percentiles and as bars.

use crate::dump::show::size_text;
use hdrhistogram::Histogram;

/// The widest bar, in characters.
const BAR_CHARS: u64 = 40;
/// Buckets are powers of 2 up to this one.
const BUCKETS: usize = 40;

/// How often which size came.
pub(super) struct Sizes {
    histogram: Option<Histogram<u64>>,
    /// By the power of 2 at or below the size.
    buckets: [u64; BUCKETS],
}

impl Default for Sizes {
    fn default() -> Sizes {
        // Two digits are enough for a page, and take some 30 KiB.
        Sizes { histogram: Histogram::new_with_bounds(1, 1 << BUCKETS, 2).ok(), buckets: [0; BUCKETS] }
    }
}

impl Sizes {
    pub(super) fn add(&mut self, bytes: u64) {
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(bytes);
        }
        self.buckets[(bytes.max(1).ilog2() as usize).min(BUCKETS - 1)] += 1;
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// At least this share of all, in percent, are no larger.
    pub(super) fn percentile(&self, percent: f64) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.value_at_percentile(percent))
    }

    pub(super) fn mean(&self) -> f64 {
        self.histogram.as_ref().map_or(0.0, Histogram::mean)
    }

    /// Buckets that are not empty and those between: from where on, and how many.
    pub(super) fn buckets(&self) -> Vec<(u64, u64)> {
        let first = self.buckets.iter().position(|count| *count > 0);
        let last = self.buckets.iter().rposition(|count| *count > 0);
        let (Some(first), Some(last)) = (first, last) else { return Vec::new() };
        (first..=last).map(|at| (1u64 << at, self.buckets[at])).collect()
    }

    /// One line a bucket.
    pub(super) fn bars(&self) -> Vec<String> {
        let buckets = self.buckets();
        let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
        let line = |(from, count): &(u64, u64)| {
            let eighths = count * BAR_CHARS * 8 / most;
            format!("{:>10}  {:<40} {count}", size_text(*from), bar(eighths.max(u64::from(*count > 0))))
        };
        buckets.iter().map(line).collect()
    }
}

/// A bar of so many eighths of a character.
fn bar(eighths: u64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    "█".repeat((eighths / 8) as usize) + PARTS[(eighths % 8) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share() {
        let mut sizes = Sizes::default();
        (0..100).for_each(|_| sizes.add(100));
        (0..50).for_each(|_| sizes.add(300));
        let bars = sizes.bars();
        let full = |line: &String| line.matches('█').count();
        assert_eq!(bars.iter().map(full).collect::<Vec<_>>(), [40, 0, 20]);
        assert_eq!((sizes.percentile(50.0), sizes.count()), (100, 150));
    }
}
