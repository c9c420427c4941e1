//! How far a line and the entries behind it vouch for a segment's bytes.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
