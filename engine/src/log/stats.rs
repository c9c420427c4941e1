//! What a core's log has done and what it uses of its bounds, for whoever watches it.

use super::{Log, Offsets, core::Slot};
use crate::{
    disk::Disk,
    measure::{LaneStats, TrafficStats},
    partition::PartitionId,
};

/// What is used of a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// So much of it.
    pub used: u64,
    /// Of so much.
    pub max: u64,
}

/// A core's log at one moment. Plain data.
#[derive(Clone, Debug)]
pub struct LogStats {
    /// The journal lane.
    pub journal: LaneStats,
    /// The bulk lane.
    pub bulk: LaneStats,
    /// What went through all partitions, those that were deleted since included.
    pub traffic: TrafficStats,
    /// Memory of tails, in bytes.
    pub tails: Use,
    /// Bytes that are in no segment yet.
    pub unmoved: Use,
    /// Bytes in flight of the bulk lane.
    pub bulk_in_flight: Use,
    /// Open sealed segments.
    pub segments: Use,
    /// Appends that wait for room.
    pub admissions_waiting: u64,
    /// The most idempotent producers that a partition remembers.
    pub producers_max: u64,
    /// Partitions of this core, those of the broker itself included.
    pub partitions: u64,
    /// Partitions that take no appends until the next start.
    pub offline: u64,
}

/// A partition at one moment. Plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStats {
    /// Its offsets.
    pub offsets: Offsets,
    /// It was used since the start. Until then its end is known from below only.
    pub is_open: bool,
    /// Bytes of its segments and tail.
    pub bytes: u64,
    /// Its segments; 1 until it is used.
    pub segments: u64,
    /// The idempotent producers that it remembers.
    pub producers: u64,
    /// What went through it since the start.
    pub traffic: TrafficStats,
}

impl<D: Disk> Log<D> {
    /// The core's log now.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let (core, limits) = (&self.core, &self.core.limits);
        let bulk = core.bulk.stats();
        LogStats {
            journal: core.journal_lane.stats(),
            traffic: limits.traffic.stats(),
            tails: Use { used: limits.budget.held(), max: core.config.tail_bytes_max },
            unmoved: Use { used: limits.unmoved.get(), max: limits.unmoved_bytes_max },
            bulk_in_flight: Use { used: bulk.in_flight_bytes, max: core.config.bulk_bytes_in_flight_max },
            segments: Use { used: core.segments.len() as u64, max: core.config.open_segments_max as u64 },
            admissions_waiting: limits.senders_waiting.get() as u64,
            producers_max: limits.producers_max as u64,
            partitions: core.slots.borrow().len() as u64,
            offline: limits.offline.get(),
            bulk,
        }
    }

    /// The journal has failed: nothing is acked any more.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.core.has_failed.get()
    }

    /// Partitions that take no appends until the next start.
    #[must_use]
    pub fn offline(&self) -> u64 {
        self.core.limits.offline.get()
    }

    /// A partition now; `None` if this core does not own it.
    #[must_use]
    pub fn partition_stats(&self, id: PartitionId) -> Option<PartitionStats> {
        let (offsets, bytes) = (self.offsets(id)?, self.size(id)?);
        Some(match self.core.slots.borrow().get(&id)? {
            Slot::Open(partition) => PartitionStats {
                offsets,
                is_open: true,
                bytes,
                segments: (partition.sealed.len() + partition.stretches.len()) as u64,
                producers: partition.producers.len() as u64,
                traffic: partition.traffic.stats(),
            },
            Slot::Closed(_) => {
                PartitionStats { offsets, is_open: false, bytes, segments: 1, producers: 0, traffic: TrafficStats::default() }
            }
        })
    }

    /// A reader was given `bytes` of a partition's batches. Only counted.
    pub fn count_fetched(&self, id: PartitionId, bytes: u64) {
        if bytes > 0 && self.core.look(id, |partition| partition.traffic.fetched(bytes)).is_some() {
            self.core.limits.traffic.fetched(bytes);
        }
    }
}
