//! What the journal says of a partition's segments.

use super::journals::Journaled;
use crate::{
    journal::{Entry, Line, vouched},
    partition::PartitionId,
};

/// A partition's line, and its entries, which are laid over its segments.
pub(super) struct Told<'a> {
    /// Of a partition that has none, the line of an empty one.
    pub(super) line: Line,
    pub(super) journaled: &'a Journaled,
}

impl<'a> Told<'a> {
    pub(super) fn of(partition: PartitionId, journaled: &'a Journaled) -> Told<'a> {
        Told { line: journaled.line_of(partition), journaled }
    }

    /// The base offsets of the segments that are named and needed, rising; at least one.
    pub(super) fn segments(&self) -> Vec<i64> {
        let line = &self.line;
        let entries = self.journaled.entries.iter().map(|entry| entry.segment_base).filter(|base| *base > line.segment_base);
        let mut bases: Vec<i64> = entries.chain([line.segment_base]).collect();
        bases.sort_unstable();
        bases.dedup();
        // Segments wholly below the log start may be gone, and none of their bytes is needed.
        let first = bases.iter().rposition(|base| *base <= self.journaled.log_start).unwrap_or(0);
        bases.split_off(first)
    }

    /// The entries of a segment, in order.
    pub(super) fn entries(&self, base: i64) -> Vec<&'a Entry> {
        self.journaled.entries.iter().filter(|entry| entry.segment_base == base).collect()
    }

    /// What counts of a segment's file at most, in bytes. Without entries nothing beyond the flushed end was acked.
    pub(super) fn file_bytes_max(&self) -> u64 {
        if self.journaled.entries.is_empty() { u64::from(self.line.flushed) } else { u64::MAX }
    }

    /// True of the segment that the line is of.
    pub(super) fn is_lines(&self, base: i64) -> bool {
        base == self.line.segment_base
    }

    /// Where a batch begins before which all are whole; 0 in a segment that the head does not know.
    pub(super) fn batch_start(&self, base: i64) -> u64 {
        if self.is_lines(base) { u64::from(self.line.batch_start) } else { 0 }
    }

    /// Up to here the line alone vouches for its segment. Without entries a batch that is not wholly flushed was not acked, and its
    /// rest never comes: an opening cuts it off, and no head need say so before.
    fn line_end(&self) -> u32 {
        if self.journaled.entries.is_empty() { self.line.batch_start } else { self.line.flushed }
    }

    /// What [`vouched`] says of a segment.
    pub(super) fn vouched(&self, base: i64) -> u64 {
        let line_end = if self.is_lines(base) { self.line_end() } else { 0 };
        vouched(line_end, self.entries(base).into_iter().map(Entry::extent))
    }

    /// Up to here the bytes of the line's segment are those of acked batches, the last one maybe in part: what the line vouches for, what
    /// the head carries behind that without a gap, and nothing that an entry has changed since. No run writes there before such an entry
    /// is durable. 0 in a segment that the head does not know.
    pub(super) fn covered(&self, base: i64) -> u64 {
        if !self.is_lines(base) {
            return 0;
        }
        let entries = self.entries(base);
        let carried = entries.iter().filter(|entry| entry.in_head).fold(self.line_end(), |end, entry| match entry.position <= end {
            true => end.max(entry.position + entry.bytes.len() as u32),
            false => end,
        });
        u64::from(entries.iter().filter(|entry| !entry.in_head).map(|entry| entry.position).fold(carried, u32::min))
    }

    /// Below this every block of the line's segment was flushed, whatever became of the entries since. The line alone may name an end
    /// above the recovered one: a run's that ended within a batch, whose rest never came. 0 in a segment that the head does not know.
    pub(super) fn flushed_before_entries(&self, base: i64) -> u64 {
        if !self.is_lines(base) {
            return 0;
        }
        u64::from(self.entries(base).iter().map(|entry| entry.position).fold(self.line.flushed, u32::min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_entries_a_line_vouches_for_whole_batches_only() {
        let partition = PartitionId(1);
        let line = Line { partition, segment_base: 0, flushed: 12_288, batch_start: 3_000, index_end: 0, log_start: 0 };
        let mut journaled = Journaled { line: Some(line), ..Journaled::default() };
        let told = Told::of(partition, &journaled);
        assert_eq!((told.covered(0), told.vouched(0)), (3_000, 3_000));
        journaled.entries.push(Entry { partition, segment_base: 0, position: 12_288, bytes: vec![1; 500], in_head: true });
        let told = Told::of(partition, &journaled);
        assert_eq!((told.covered(0), told.vouched(0)), (12_788, 12_788), "the rest is carried");
    }
}
