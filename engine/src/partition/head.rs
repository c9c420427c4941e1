//! A partition's share of a head: its line, its producers and epochs, and the bytes that only the journal has.

use super::{PartitionId, limits::Limits, recovered::Recovered, state::Partition, tail::block_floor};
use crate::{
    bugs::{self, Bug},
    disk::{Chunk, Disk},
    journal::{Item, Line},
};

impl<D: Disk> Partition<D> {
    /// Its line, as of the durable end.
    #[must_use]
    pub fn line(&self) -> Line {
        let front = self.front();
        let flushed = self.progress.flushed();
        Line {
            partition: self.spec.id,
            segment_base: front.base_offset(),
            flushed: position(flushed),
            batch_start: position(front.boundary(flushed).0),
            index_end: self.index_end,
            log_start: self.log_start,
        }
    }

    /// Adds everything of it that the journal's older file is needed for, besides the line.
    pub fn head_items(&self, limits: &Limits, items: &mut Vec<Item>) {
        let partition = self.spec.id;
        let base = self.front().base_offset();
        let states = match bugs::on(Bug::ProducersAsOfAppend) {
            true => self.producers.snapshot(),
            // The durable end is never below what is flushed.
            false => self.producers.for_checkpoint(base, 0, limits.now_ms.get()),
        };
        items.extend(states.into_iter().map(|state| Item::Producer { partition, state }));
        let epochs = self.epochs.unstored().iter().filter(|epoch| epoch.start_offset <= self.high_watermark);
        items.extend(epochs.map(|epoch| Item::Epoch { partition, epoch: *epoch }));
        // What lies beyond a gap that a run is filling is not durable yet.
        let (durable, mut in_segment) = (self.progress.durable(), InSegment::behind(self.progress.flushed()));
        let mut is_beyond = false;
        for (start, end) in self.progress.carried() {
            if start > durable {
                // A start takes an entry behind this one for the sign that the run has ended: it would miss bytes that never came.
                let is_second = std::mem::replace(&mut is_beyond, true);
                assert!(!is_second, "a head carries a second range beyond the durable end: {:?}", self.progress);
                in_segment.vouch(partition, base, items);
                if bugs::on(Bug::BeyondGapNotCarried) {
                    continue;
                }
            }
            in_segment.passed(start, end);
            let bytes = self.front().slices(start, end);
            items.push(Item::Bytes { partition, segment_base: base, position: position(start), bytes });
        }
        if in_segment.end <= durable {
            in_segment.vouch(partition, base, items);
        }
    }
}

/// Vouches for what lies between the bytes that a head carries, if a start has found that in the segment, and flushed it. The
/// head alone would leave open whether a run had come to its end: an entry behind it says so, as when the run itself was over.
/// Without one the next start would take damage there for bytes that never came.
struct InSegment {
    /// Where the carried bytes end so far.
    end: u64,
    /// There was a gap before the last of them.
    has_gap: bool,
    has_vouched: bool,
}

impl InSegment {
    /// Nothing is carried yet; the segment has what lies below `flushed`.
    fn behind(flushed: u64) -> InSegment {
        InSegment { end: flushed, has_gap: false, has_vouched: false }
    }

    fn passed(&mut self, start: u64, end: u64) {
        self.has_gap |= start > self.end;
        self.end = self.end.max(end);
    }

    fn vouch(&mut self, partition: PartitionId, segment_base: i64, items: &mut Vec<Item>) {
        if self.has_gap && !std::mem::replace(&mut self.has_vouched, true) {
            items.push(Item::Frames { partition });
            items.push(Item::Bytes { partition, segment_base, position: position(self.end), bytes: Vec::new() });
        }
    }
}

/// The share of a partition that was not opened since the start: what the start found. Its line is [`Recovered::line`].
pub fn recovered_items(recovered: &Recovered, items: &mut Vec<Item>) {
    let partition = recovered.spec.id;
    items.extend(recovered.producers.iter().map(|state| Item::Producer { partition, state: state.clone() }));
    items.extend(recovered.epochs.iter().map(|epoch| Item::Epoch { partition, epoch: *epoch }));
    if bugs::on(Bug::DamagedNotCarried) && recovered.damage.is_some() {
        return;
    }
    let mut in_head = true;
    for entry in recovered.damage.iter().flat_map(|damage| &damage.entries) {
        if std::mem::replace(&mut in_head, entry.in_head) && !entry.in_head {
            items.push(Item::Frames { partition });
        }
        let bytes = vec![Chunk::padded(&entry.bytes).sub(0, entry.bytes.len())];
        items.push(Item::Bytes { partition, segment_base: entry.segment_base, position: entry.position, bytes });
    }
    let Some(scanned) = &recovered.scanned else { return };
    let (segment_base, mut in_segment) = (recovered.line.segment_base, InSegment::behind(u64::from(recovered.line.flushed)));
    let tail_start = block_floor(u64::from(recovered.line.flushed)) as usize;
    for range in &scanned.unmoved {
        let bytes = &scanned.tail[range.start as usize - tail_start..range.end as usize - tail_start];
        let bytes = vec![Chunk::padded(bytes).sub(0, bytes.len())];
        in_segment.passed(u64::from(range.start), u64::from(range.end));
        items.push(Item::Bytes { partition, segment_base, position: range.start, bytes });
    }
    in_segment.vouch(partition, segment_base, items);
}

/// A position as files and frames hold it: segments end below 2 GiB.
#[must_use]
pub fn position(bytes: u64) -> u32 {
    u32::try_from(bytes).expect("a segment is below 2 GiB")
}
