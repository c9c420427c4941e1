//! Which segments of a log are to be cleaned, whether that is worth it, how gently, and which become one. Pure.

use crate::{disk::FREE_BYTES_MIN, partition::state::SealedSegment};

/// The part of a log that can be cleaned: the first `segments` sealed segments, the offset behind them, and how many of
/// their bytes are clean already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// How many of the sealed segments, from the first on.
    pub segments: usize,
    /// The offset behind them.
    pub end: i64,
    /// Bytes of those that lie wholly below the first dirty offset.
    pub clean_bytes: u64,
    /// Bytes of the others.
    pub dirty_bytes: u64,
}

impl Range {
    /// The part of it that is dirty, from 0 to 1.
    #[must_use]
    pub fn dirty_ratio(&self) -> f64 {
        let all = self.clean_bytes + self.dirty_bytes;
        if all == 0 { 0.0 } else { self.dirty_bytes as f64 / all as f64 }
    }
}

/// True if a round is worth it: enough of the log is dirty, or it is `overdue`, or the last round did not come to its end.
#[must_use]
pub fn is_worth(range: &Range, dirty_ratio_min: f64, overdue: bool, is_partial: bool) -> bool {
    range.dirty_bytes > 0 && (range.dirty_ratio() > dirty_ratio_min || overdue || is_partial)
}

/// What of a log lies below `limit`, in whole segments. `next_base` is the base offset behind the last of `sealed`.
#[must_use]
pub fn range(sealed: &[SealedSegment], next_base: i64, first_dirty: i64, limit: i64) -> Range {
    let mut range = Range { segments: 0, end: sealed.first().map_or(next_base, |first| first.base_offset), clean_bytes: 0, dirty_bytes: 0 };
    for (at, segment) in sealed.iter().enumerate() {
        let end = sealed.get(at + 1).map_or(next_base, |next| next.base_offset);
        if end > limit {
            break;
        }
        (range.segments, range.end) = (at + 1, end);
        match end <= first_dirty {
            true => range.clean_bytes += segment.bytes,
            false => range.dirty_bytes += segment.bytes,
        }
    }
    range
}

/// The segments that hold something dirty, in order. `next_base` as for [`range`].
pub fn dirty(sealed: &[SealedSegment], next_base: i64, first_dirty: i64) -> impl Iterator<Item = &SealedSegment> {
    let ends = sealed.iter().skip(1).map(|next| next.base_offset).chain([next_base]);
    sealed.iter().zip(ends).filter(move |(_, end)| *end > first_dirty).map(|(segment, _)| segment)
}

/// The segment of a range whose first record is the oldest dirty one, or before it; `None` if nothing in the range is dirty.
#[must_use]
pub fn oldest_dirty<'a>(sealed: &'a [SealedSegment], range: &Range, first_dirty: i64) -> Option<&'a SealedSegment> {
    sealed[..range.segments].iter().rfind(|segment| segment.base_offset <= first_dirty).filter(|_| range.dirty_bytes > 0)
}

/// When `min.compaction.lag.ms` lets a segment go whose newest timestamp, and time of the last write, are these, in ms; `None` if
/// it does not hold it at `now_ms`, `i64::MAX` if it holds it for ever. A timestamp in the future holds it no longer than one of now would.
#[must_use]
pub fn held_until(newest_ms: Option<i64>, written_ms: Option<i64>, lag_ms: i64, now_ms: i64) -> Option<i64> {
    let since = match (newest_ms, written_ms) {
        (Some(newest), Some(written)) => Some(newest.min(written)),
        (newest, written) => newest.or(written),
    };
    since.map(|since| since.saturating_add(lag_ms)).filter(|ends| lag_ms > 0 && *ends >= now_ms).map(|ends| ends.saturating_add(1))
}

/// When `max.compaction.lag.ms` asks for a round, in ms, if the oldest dirty record is of `first_ms`; `None` without that setting.
#[must_use]
pub fn overdue_at(first_ms: Option<i64>, lag_ms: i64, now_ms: i64) -> Option<i64> {
    (lag_ms < i64::MAX).then(|| first_ms.map_or(now_ms, |first| first.saturating_add(lag_ms).saturating_add(1)))
}

/// Whether a round leaves the disk to producers, if there are any at `now_ms`. Gently it may never come to its end, so it doesn't once
/// `max.compaction.lag.ms` has passed for a record of it (at `overdue_ms`); nor while space is short, beside the room that a new segment of
/// `segment_bytes` needs: producers want what it gives back.
#[must_use]
pub fn is_gentle(
    has_producers: bool,
    now_ms: i64,
    overdue_ms: Option<i64>,
    segment_bytes: u64,
    free_bytes: impl FnOnce() -> Option<u64>,
) -> bool {
    let is_overdue = overdue_ms.is_some_and(|overdue| overdue <= now_ms);
    let is_short = || free_bytes().is_some_and(|free| free < FREE_BYTES_MIN.saturating_add(segment_bytes));
    has_producers && !is_overdue && !is_short()
}

/// Where the dirty part of a log begins: what was noted of it, unless that can't be right, as in Kafka.
#[must_use]
pub fn first_dirty(noted: Option<i64>, log_start: i64, first_base: i64, active_base: i64) -> i64 {
    let start = log_start.max(first_base);
    noted.filter(|noted| (start..=active_base).contains(noted)).unwrap_or(start)
}

/// True if `offset`, up to which a log was noted to be clean, lies within a segment: the round that came to it had not the memory for more
/// keys. Each other ends where a segment begins, and that goes with a later round only, or below the log start. One that ended so by
/// chance is not known for what it is. `next_base` as for [`range`].
#[must_use]
pub fn is_within(sealed: &[SealedSegment], next_base: i64, offset: i64) -> bool {
    offset < next_base && sealed.binary_search_by_key(&offset, |segment| segment.base_offset).is_err_and(|behind| behind > 0)
}

/// Segments of a group: all of them are open while the new one takes their place.
const GROUP_SEGMENTS_MAX: usize = 256;

/// Groups neighbours that fit into one segment of `segment_bytes`, whose offsets fit its indexes: `sizes` are base offsets
/// and bytes, `end` is the offset behind the last. Returns how many each group takes.
#[must_use]
pub fn groups(sizes: &[(i64, u64)], end: i64, segment_bytes: u64) -> Vec<usize> {
    let mut groups = Vec::new();
    let mut at = 0;
    while at < sizes.len() {
        let (first, mut bytes) = sizes[at];
        let mut count = 1;
        while let Some((_, more)) = sizes.get(at + count) {
            let last = sizes.get(at + count + 1).map_or(end, |next| next.0) - 1;
            if bytes + more > segment_bytes || last - first > i64::from(i32::MAX) || count == GROUP_SEGMENTS_MAX {
                break;
            }
            bytes += more;
            count += 1;
        }
        groups.push(count);
        at += count;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(sizes: &[(i64, u64)]) -> Vec<SealedSegment> {
        sizes
            .iter()
            .map(|(base_offset, bytes)| SealedSegment {
                base_offset: *base_offset,
                bytes: *bytes,
                has_transactions: false,
                written_ms: None,
            })
            .collect()
    }

    #[test]
    fn only_whole_segments_below_the_limit_are_cleaned() {
        let sealed = sealed(&[(0, 100), (10, 100), (20, 100)]);
        let range = |first_dirty, limit| super::range(&sealed, 30, first_dirty, limit);
        assert_eq!(range(0, 30), Range { segments: 3, end: 30, clean_bytes: 0, dirty_bytes: 300 });
        assert_eq!(range(20, 29), Range { segments: 2, end: 20, clean_bytes: 200, dirty_bytes: 0 });
        assert_eq!(range(10, 30).dirty_ratio(), 200.0 / 300.0);
        assert_eq!(range(15, 5), Range { segments: 0, end: 0, clean_bytes: 0, dirty_bytes: 0 });
    }

    #[test]
    fn a_segment_is_dirty_if_its_end_is_and_the_oldest_dirty_record_is_in_the_first_of_these() {
        let sealed = sealed(&[(0, 100), (10, 100), (20, 100)]);
        let bases = |first_dirty| dirty(&sealed, 30, first_dirty).map(|segment| segment.base_offset).collect::<Vec<_>>();
        assert_eq!([0, 9, 10, 29, 30].map(bases), [vec![0, 10, 20], vec![0, 10, 20], vec![10, 20], vec![20], vec![]]);
        let oldest = |first_dirty, limit| {
            let range = super::range(&sealed, 30, first_dirty, limit);
            oldest_dirty(&sealed, &range, first_dirty).map(|segment| segment.base_offset)
        };
        assert_eq!((oldest(0, 30), oldest(15, 30), oldest(20, 30)), (Some(0), Some(10), Some(20)));
        assert_eq!((oldest(20, 29), oldest(30, 30)), (None, None), "all of the range is clean");
    }

    #[test]
    fn a_round_that_ended_within_a_segment_had_more_to_do() {
        let sealed = sealed(&[(0, 100), (10, 100), (20, 100)]);
        let within = [0, 9, 10, 15, 29].map(|offset| is_within(&sealed, 30, offset));
        assert_eq!(within, [false, true, false, true, true]);
        assert!(![-1, 30, 31].into_iter().any(|offset| is_within(&sealed, 30, offset)), "it is in no sealed segment");
    }

    #[test]
    fn a_lag_ends_a_millisecond_after_it_has_passed_and_the_longest_one_never() {
        assert_eq!(held_until(Some(5), Some(7), 10, 15), Some(16));
        assert_eq!(held_until(Some(5), Some(7), 10, 16), None);
        assert_eq!(held_until(Some(5), Some(7), 0, 5), None);
        assert_eq!(held_until(Some(5), Some(7), i64::MAX, 10), Some(i64::MAX));
        assert_eq!(overdue_at(Some(5), i64::MAX - 1, 10), Some(i64::MAX));
        assert_eq!(overdue_at(Some(5), i64::MAX, 10), None);
    }

    #[test]
    fn a_round_is_gentle_beside_producers_unless_it_is_overdue_or_space_is_short() {
        let (segment, now_ms) = (64 << 20, 1_000);
        let enough = FREE_BYTES_MIN + segment;
        let is_gentle = |overdue_ms, free| is_gentle(true, now_ms, overdue_ms, segment, || free);
        assert!(is_gentle(None, Some(enough)) && is_gentle(Some(now_ms + 1), Some(enough)));
        assert!(!is_gentle(Some(now_ms), Some(enough)), "a record is overdue");
        assert!(!is_gentle(None, Some(enough - 1)), "space is short");
        assert!(is_gentle(None, None), "nobody knows what is free");
        assert!(!super::is_gentle(false, now_ms, None, segment, || Some(enough)), "there is nobody to be gentle with");
        assert!(is_gentle(None, Some(u64::MAX)) && !super::is_gentle(true, now_ms, None, u64::MAX, || Some(enough)), "nothing overflows");
    }

    #[test]
    fn small_neighbours_become_one_segment_and_none_is_left_out() {
        assert_eq!(groups(&[(0, 40), (1, 40), (2, 40), (3, 100), (4, 0)], 5, 100), [2, 1, 2]);
        assert_eq!(groups(&[(0, 500), (1, 10)], 2, 100), [1, 1]);
        assert_eq!(groups(&[], 0, 100), Vec::<usize>::new());
        // Offsets of a segment are counted from its base with 31 bits.
        let far = i64::from(i32::MAX);
        assert_eq!(groups(&[(0, 1), (10, 1), (far + 1, 1)], far + 5, 100), [2, 1]);
    }
}
