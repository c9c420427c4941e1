//! A partition's share of a head: its line, its producers and epochs, and the bytes that only the journal has.

use super::{limits::Limits, recovered::Recovered, state::Partition, tail::block_floor};
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
        for (start, end) in self.progress.carried() {
            if bugs::on(Bug::BeyondGapNotCarried) && start > self.progress.durable() {
                continue;
            }
            let bytes = self.front().slices(start, end);
            items.push(Item::Bytes { partition, segment_base: base, position: position(start), bytes });
        }
    }
}

/// The share of a partition that was not opened since the start: what the start found. Its line is [`Recovered::line`].
pub fn recovered_items(recovered: &Recovered, items: &mut Vec<Item>) {
    let partition = recovered.spec.id;
    items.extend(recovered.producers.iter().map(|state| Item::Producer { partition, state: state.clone() }));
    items.extend(recovered.epochs.iter().map(|epoch| Item::Epoch { partition, epoch: *epoch }));
    let mut in_head = true;
    for entry in recovered.damage.iter().flat_map(|damage| &damage.entries) {
        if std::mem::replace(&mut in_head, entry.in_head) && !entry.in_head {
            items.push(Item::Frames { partition });
        }
        let bytes = vec![Chunk::padded(&entry.bytes).sub(0, entry.bytes.len())];
        items.push(Item::Bytes { partition, segment_base: entry.segment_base, position: entry.position, bytes });
    }
    let Some(scanned) = &recovered.scanned else { return };
    let tail_start = block_floor(u64::from(recovered.line.flushed)) as usize;
    for range in &scanned.unmoved {
        let bytes = &scanned.tail[range.start as usize - tail_start..range.end as usize - tail_start];
        let bytes = vec![Chunk::padded(bytes).sub(0, bytes.len())];
        items.push(Item::Bytes { partition, segment_base: recovered.line.segment_base, position: range.start, bytes });
    }
}

/// A position as files and frames hold it: segments end below 2 GiB.
#[must_use]
pub fn position(bytes: u64) -> u32 {
    u32::try_from(bytes).expect("a segment is below 2 GiB")
}
