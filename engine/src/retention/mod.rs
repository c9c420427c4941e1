//! Which segments of a log have had their time (Kafka: `cleanup.policy=delete`): facts of the oldest segment and the
//! clock come in, a verdict goes out. Nothing here touches a disk.
//!
//! Retention goes from the oldest segment on and stops at the first one that stays, so one segment at a time is all that
//! has to be known. Whoever acts on a verdict raises the log start first, durably, and never above the last stable offset.
//!
//! A record with a timestamp in the future doesn't hold its log for ever: once its segment was last written to longer ago
//! than the retention and its newest timestamp is still to come, the segment goes by the broker's clock. So it stays for
//! about twice the retention at most, whatever its timestamps say.

/// Timestamps this far ahead of the clock, in ms, are taken at their word: clocks differ, and this is what
/// `message.timestamp.after.max.ms` allows by default.
pub const AHEAD_MS: i64 = 3_600_000;

/// The earlier of two deadlines.
#[must_use]
pub fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The bounds of a log (`retention.ms`, `retention.bytes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long a record stays, in ms; `None` for ever.
    pub ms: Option<i64>,
    /// How many bytes of the log stay; `None` for all.
    pub bytes: Option<u64>,
}

/// What retention must know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its newest timestamp in ms, if any record has one.
    pub newest_ms: Option<i64>,
    /// When it was last written to by the broker's clock, in ms, if anybody knows.
    pub written_ms: Option<i64>,
}

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It lies below the log start offset (DeleteRecords, or an earlier decision).
    LogStart,
    /// All its records are older than `retention.ms`.
    Age,
    /// Without it the log still has `retention.bytes`.
    Size,
}

impl std::fmt::Display for Why {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Why::LogStart => "log start",
            Why::Age => "retention.ms",
            Why::Size => "retention.bytes",
        })
    }
}

/// What becomes of the oldest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Remove(Why),
    /// It stays until this time in ms, if nothing else happens; `None` without an end.
    Keep(Option<i64>),
}

impl Retention {
    /// When a segment's age ends, in ms, as far as can be said at `now_ms`: the first moment at which all its records are
    /// older than `retention.ms`. `None` if that never comes.
    #[must_use]
    pub fn age_ends(&self, segment: &Facts, now_ms: i64) -> Option<i64> {
        let ms = self.ms?;
        let ends = |since: i64| since.saturating_add(ms).saturating_add(1);
        let by_broker = segment.written_ms.map(ends);
        match (segment.newest_ms, by_broker) {
            (Some(newest), Some(by_broker)) if newest > now_ms.saturating_add(AHEAD_MS) && by_broker < newest => Some(by_broker),
            (Some(newest), _) => Some(ends(newest)),
            (None, by_broker) => by_broker,
        }
    }

    /// The verdict on the oldest segment of a log that has `log_bytes` in all, at `now_ms`.
    #[must_use]
    pub fn judge(&self, segment: &Facts, log_bytes: u64, now_ms: i64) -> Verdict {
        let ends = self.age_ends(segment, now_ms);
        if ends.is_some_and(|ends| ends <= now_ms) {
            return Verdict::Remove(Why::Age);
        }
        if self.bytes.is_some_and(|bytes| log_bytes.saturating_sub(segment.bytes) >= bytes) {
            return Verdict::Remove(Why::Size);
        }
        Verdict::Keep(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 3_600_000;
    const WEEK: Retention = Retention { ms: Some(7 * DAY_MS), bytes: None };

    fn segment(newest_ms: i64, written_ms: i64) -> Facts {
        Facts { bytes: 100, newest_ms: Some(newest_ms), written_ms: Some(written_ms) }
    }

    #[test]
    fn a_segment_goes_when_its_newest_record_is_older_than_the_retention_and_not_before() {
        let segment = segment(1_000, 1_000);
        assert_eq!(WEEK.judge(&segment, 100, 1_000 + 7 * DAY_MS), Verdict::Keep(Some(1_001 + 7 * DAY_MS)));
        assert_eq!(WEEK.judge(&segment, 100, 1_001 + 7 * DAY_MS), Verdict::Remove(Why::Age));
    }

    #[test]
    fn a_record_from_the_future_holds_its_segment_for_about_twice_the_retention_at_most() {
        for ahead_days in [0, 1, 6, 7, 8, 30, 100_000] {
            let segment = segment(ahead_days * DAY_MS, 0);
            let mut now_ms = 0;
            while let Verdict::Keep(until) = WEEK.judge(&segment, 100, now_ms) {
                let until = until.expect("it ends");
                assert!(until > now_ms, "each deadline is later than the one before");
                now_ms = until;
            }
            assert!((7 * DAY_MS..=14 * DAY_MS + AHEAD_MS + 1).contains(&now_ms), "{ahead_days} days ahead: kept for {now_ms} ms");
        }
    }

    #[test]
    fn a_clock_that_was_wrong_when_it_was_written_takes_no_record_that_is_young() {
        let now_ms = 20_000 * DAY_MS;
        for newest_ms in [now_ms - DAY_MS, now_ms, now_ms + AHEAD_MS] {
            assert_eq!(WEEK.judge(&segment(newest_ms, 0), 100, now_ms), Verdict::Keep(Some(newest_ms + 7 * DAY_MS + 1)));
        }
    }

    #[test]
    fn a_record_without_a_timestamp_goes_by_the_time_it_was_written() {
        let segment = Facts { bytes: 1, newest_ms: None, written_ms: Some(5) };
        assert_eq!(WEEK.age_ends(&segment, 0), Some(7 * DAY_MS + 6));
        assert_eq!(WEEK.age_ends(&Facts { written_ms: None, ..segment }, 0), None);
    }

    #[test]
    fn what_is_left_never_falls_below_the_bytes_to_be_kept() {
        let by_size = Retention { ms: None, bytes: Some(250) };
        let segment = segment(0, 0);
        assert_eq!(by_size.judge(&segment, 350, 0), Verdict::Remove(Why::Size));
        assert_eq!(by_size.judge(&segment, 349, 0), Verdict::Keep(None));
        let nothing = Retention { ms: None, bytes: None };
        assert_eq!(nothing.judge(&segment, u64::MAX, i64::MAX), Verdict::Keep(None));
    }
}
