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

    /// What [`vouched`] says of a segment.
    pub(super) fn vouched(&self, base: i64) -> u64 {
        let flushed = if self.is_lines(base) { self.line.flushed } else { 0 };
        vouched(flushed, self.entries(base).into_iter().map(Entry::extent))
    }

    /// Up to here the bytes of the line's segment are those of acked batches, the last one maybe in part: what was flushed, what the
    /// head carries behind that without a gap, and nothing that an entry has changed since. No run writes there before such an entry is
    /// durable. 0 in a segment that the head does not know.
    pub(super) fn covered(&self, base: i64) -> u64 {
        if !self.is_lines(base) {
            return 0;
        }
        let entries = self.entries(base);
        let carried = entries.iter().filter(|entry| entry.in_head).fold(self.line.flushed, |end, entry| match entry.position <= end {
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
