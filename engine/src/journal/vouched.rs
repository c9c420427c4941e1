//! How far a line and the entries behind it vouch for a segment's bytes, and what it means that its batches end before.

use crate::batch::{HEADER_BYTES, Header, Scanner, Step, Stop, crc};
use std::ops::Range;

/// An entry, as far as that is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in its segment.
    pub position: u32,
    /// Its length in bytes; 0 is the end of a run that fills its last block.
    pub bytes: u32,
    /// The head carries it.
    pub in_head: bool,
}

/// Up to here the bytes of a segment were durable, and are those of whole batches, the last one maybe in part. `flushed`
/// is the line's, 0 in a segment that the head does not know; `entries` are all of the segment's, in order.
///
/// Where an entry lies behind a gap, a run was to fill it. The next entry says that it has: until a run has ended, its partition
/// has no other. (Behind a gap that a start has found filled, the head has such an entry itself.) One that
/// begins before the end takes the place of what was dropped.
#[must_use]
pub fn vouched(flushed: u32, entries: impl Iterator<Item = Extent>) -> u64 {
    let (mut end, mut behind_gap) = (u64::from(flushed), None);
    for entry in entries {
        let (from, to) = (u64::from(entry.position), u64::from(entry.position) + u64::from(entry.bytes));
        if !entry.in_head
            && let Some(run_end) = behind_gap.take()
        {
            end = run_end;
        }
        match from <= end {
            true if entry.in_head => end = end.max(to),
            true if entry.bytes > 0 => end = to,
            true => {}
            false => behind_gap = Some(to),
        }
    }
    end
}

/// What it means that there is no batch at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The log ends there.
    Whole,
    /// There was one.
    Damaged,
    /// There was one, unless these bytes of the segment are [`is_front`].
    Unless(Range<u64>),
}

/// What it means that a scan stops at `position`, in bytes, of a segment of which `vouched` bytes are vouched for, and `size` are there.
#[must_use]
pub fn ended(position: u64, stop: Stop, vouched: u64, size: u64) -> Ended {
    if position + HEADER_BYTES as u64 > vouched {
        return Ended::Whole;
    }
    match stop {
        Stop::Truncated { .. } | Stop::Crc { .. } if vouched <= size => Ended::Unless(position..vouched),
        _ => Ended::Damaged,
    }
}

/// True if these bytes, the last ones that are vouched for, are the front of a batch whose rest never came. It was appended where the
/// batches before it end, so it has `next_offset`: bytes that have become anything else, with a magic and a length by chance, don't.
/// It may as well be the length alone that is wrong: then the batch ends where the next one begins, or at the very end.
#[must_use]
pub fn is_front(bytes: &[u8], next_offset: i64) -> bool {
    let Some(header) = Header::read(bytes) else { return false };
    if header.base_offset() != next_offset || header.size() <= bytes.len() || crc(bytes) == header.crc() {
        return false;
    }
    let Some(behind) = next_offset.checked_add(i64::from(header.last_offset_delta()) + 1) else { return false };
    let begins = |at: usize| {
        bytes[at..].starts_with(&behind.to_be_bytes()) && {
            let mut scanner = Scanner::new(at as u64, behind, header.leader_epoch());
            matches!(scanner.step(&bytes[at..], (bytes.len() - at) as u64), Step::Batch(_) | Step::Stop(Stop::Truncated { .. }))
        }
    };
    !(HEADER_BYTES..bytes.len()).any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;

    fn at(position: u32, bytes: u32) -> Extent {
        Extent { position, bytes, in_head: false }
    }

    fn head(position: u32, bytes: u32) -> Extent {
        Extent { in_head: true, ..at(position, bytes) }
    }

    #[test]
    fn what_follows_without_a_gap_counts() {
        assert_eq!(vouched(5_000, [].into_iter()), 5_000);
        assert_eq!(vouched(5_000, [head(4_096, 2_000), at(6_096, 10), at(6_106, 4)].into_iter()), 6_110);
        assert_eq!(vouched(0, [at(0, 700)].into_iter()), 700);
    }

    #[test]
    fn a_run_counts_when_an_entry_follows_its_own() {
        let run = at(12_288, 100);
        assert_eq!(vouched(4_096, [run].into_iter()), 4_096);
        assert_eq!(vouched(4_096, [run, at(12_388, 50)].into_iter()), 12_438);
        assert_eq!(vouched(4_096, [head(12_288, 100)].into_iter()), 4_096);
        assert_eq!(vouched(4_096, [head(12_288, 100), at(12_388, 50)].into_iter()), 12_438);
        // Two runs, both of which fill their last block.
        assert_eq!(vouched(4_096, [at(8_192, 0), at(16_384, 0)].into_iter()), 8_192);
    }

    #[test]
    fn what_was_dropped_counts_no_more() {
        assert_eq!(vouched(0, [at(0, 9_000), at(2_000, 500)].into_iter()), 2_500);
    }

    #[test]
    fn a_log_ends_before_what_is_vouched_for_only_with_the_front_of_a_batch() {
        let cut = Stop::Truncated { size: 500, left: 100 };
        assert_eq!(ended(100, Stop::Zeros, 160, 1_000), Ended::Whole);
        assert_eq!(ended(100, Stop::Zeros, 161, 1_000), Ended::Damaged);
        assert_eq!(ended(100, cut, 200, 1_000), Ended::Unless(100..200));
        assert_eq!(ended(100, cut, 200, 199), Ended::Damaged);

        let batch = BatchBuilder::new().at(0, 0).record(1, None, Some(&[7; 200])).build();
        let next = BatchBuilder::new().at(1, 0).record(1, None, Some(b"v")).build();
        let mut longer = batch.clone();
        // Its length, which no CRC covers.
        longer[9] = 1;
        assert!(is_front(&batch[..100], 0) && is_front(&longer[..100], 0));
        assert!(!is_front(&batch, 0) && !is_front(&longer, 0));
        assert!(!is_front(&[&longer[..], &next].concat(), 0) && !is_front(&[&longer[..], &next[..30]].concat(), 0));
        assert!(!is_front(&batch[..100], 1), "it was not appended there");
    }
}
