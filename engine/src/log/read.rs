//! Reading: batches, offsets, and what is looked up by time or epoch.

use super::{Log, ReadError, ReadPlan, changes, core::Slot};
use crate::{
    disk::Disk,
    partition::{
        PartitionId,
        read::{Ask, Source, read_sealed},
    },
};

/// A partition's offsets at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// The first offset that can be read.
    pub log_start: i64,
    /// The durable end: what consumers may read up to.
    pub high_watermark: i64,
    /// The first offset that a transaction could still abort; the high watermark if there is none.
    pub last_stable: i64,
    /// The next offset to be given.
    pub log_end: i64,
    /// The leader epoch of new batches.
    pub leader_epoch: i32,
    /// A write or flush of it failed, or it can't be opened: no appends until the broker starts again.
    pub offline: bool,
}

/// What [`Log::offset_for`] looks for, as ListOffsets asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeQuery {
    /// The first record with a timestamp at or above this one, in ms.
    AtOrAfter(i64),
    /// The record with the highest timestamp (KIP-734).
    Max,
}

/// Times that a read is planned anew because the partition has moved on meanwhile.
pub(super) const READ_ATTEMPTS: usize = 16;

impl<D: Disk> Log<D> {
    /// What a reader at `offset` gets: whole batches from the one that holds `offset`, up to the high watermark
    /// (`read_committed`: the last stable offset). `bytes_max` bounds it, but with `at_least_one` the first batch goes
    /// out whatever its size. Empty at the end.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] below the log start or above the log end, and what the disk says.
    pub async fn read(
        &self,
        id: PartitionId,
        offset: i64,
        bytes_max: usize,
        at_least_one: bool,
        read_committed: bool,
    ) -> Result<ReadPlan<D>, ReadError> {
        let ask = Ask { offset, bytes_max, at_least_one, read_committed };
        loop {
            let replaced = self.core.look(id, |partition| partition.replaced);
            let mut plan = self.read_batches(id, ask).await?;
            if read_committed && plan.bytes > 0 {
                plan.aborted = changes::aborted(self, id, offset, plan.next_offset).await?;
                // The batches may be those of a segment that a compacted one has replaced meanwhile: that need not know of aborted
                // records which it doesn't have.
                if self.core.look(id, |partition| partition.replaced) != replaced {
                    continue;
                }
            }
            return Ok(plan);
        }
    }

    async fn read_batches(&self, id: PartitionId, mut ask: Ask) -> Result<ReadPlan<D>, ReadError> {
        let core = &self.core;
        let (bytes_max, at_least_one, next_offset) = (ask.bytes_max, ask.at_least_one, ask.offset);
        let empty = || ReadPlan { pieces: Vec::new(), bytes: 0, next_offset, aborted: Vec::new() };
        let (mut what, mut missing) = (None, None);
        let mut attempts = 0;
        while attempts < READ_ATTEMPTS {
            attempts += 1;
            let found = core.look(id, |partition| {
                let source = partition.source(&ask);
                // As it is now: a segment that takes the place of several while this one is read would be skipped.
                let next = match &source {
                    Ok(Source::Sealed(segment, _)) => partition.segment_after(segment.base_offset),
                    _ => None,
                };
                (source, next, partition.directory.clone())
            });
            let (source, next, directory) = match found {
                Some((source, next, directory)) => (source?, next, directory),
                None if core.slots.borrow().contains_key(&id) => {
                    self.ready(&[id]).await?;
                    continue;
                }
                None => return Err(ReadError::UnknownPartition),
            };
            match source {
                Source::Empty => return Ok(empty()),
                Source::Memory(plan) => return Ok(plan),
                Source::Sealed(segment, limit) => {
                    match read_sealed(&core.disk, &core.segments, (&directory, id, segment.base_offset), next, &ask, limit).await {
                        Ok(Some(plan)) => return Ok(plan),
                        // Compaction may have left nothing behind the offset in it: the next segment goes on.
                        Ok(None) => {
                            let Some(next) = next else { return Ok(empty()) };
                            if next > ask.offset {
                                ask.offset = next;
                                // That is progress: there may be any number of segments with nothing left in them.
                                attempts = 0;
                            }
                        }
                        // It may have been removed meanwhile.
                        Err(error) => what = Some(error),
                    }
                }
                Source::Active(view, limit) => match view.range(&core.disk, &ask, limit).await? {
                    Ok(range) => return Ok(view.plan(&range)),
                    Err(at) => {
                        let mut plan = core.look(id, |partition| partition.straddling(at)).flatten();
                        if plan.is_none() {
                            let header = view.header_bytes(&core.disk, at).await?;
                            plan = core.look(id, |partition| partition.straddling_offline(at, header)).flatten();
                        }
                        if let Some(plan) = plan {
                            let fits = plan.bytes <= bytes_max || at_least_one;
                            return Ok(if fits { plan } else { empty() });
                        }
                        let what = "no batch begins here, where one should".to_owned();
                        missing = Some(ReadError::Corrupt { path: view.path().to_owned(), position: at, what });
                    }
                },
            }
        }
        Err(what.or(missing).unwrap_or_else(|| {
            let what = format!("no batch is found at offset {}", ask.offset);
            ReadError::Corrupt { path: core.config.data_dir.clone(), position: 0, what }
        }))
    }

    /// A partition's offsets now; `None` if this core does not own it.
    #[must_use]
    pub fn offsets(&self, id: PartitionId) -> Option<Offsets> {
        Some(match self.core.slots.borrow().get(&id)? {
            Slot::Open(partition) if partition.is_deleted => return None,
            Slot::Open(partition) => Offsets {
                log_start: partition.log_start,
                high_watermark: partition.high_watermark,
                last_stable: partition.last_stable(),
                log_end: partition.log_end(),
                leader_epoch: partition.leader_epoch,
                offline: partition.offline.is_some(),
            },
            // Until it is opened its end is known from below only.
            Slot::Closed(unopened) => {
                let line = &unopened.recovered.line;
                let end = unopened.recovered.scanned.as_ref().map_or(line.segment_base, |scanned| scanned.log_end);
                let end = end.max(line.log_start);
                Offsets {
                    log_start: line.log_start,
                    high_watermark: end,
                    last_stable: end,
                    log_end: end,
                    leader_epoch: self.core.leader_epoch,
                    offline: unopened.refused.is_some(),
                }
            }
        })
    }

    /// Resolves when the offsets of one of the partitions have moved since the call (high watermark, log start), or one
    /// was deleted or went offline. Subscribes when it is called, not when it is first polled.
    pub fn changed(&self, ids: &[PartitionId]) -> impl Future<Output = ()> + use<D> {
        changes::Changed::new(&self.core, ids)
    }

    /// The record that a time query finds among the readable ones, as (timestamp in ms, offset); `None` if there is none.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub async fn offset_for(&self, id: PartitionId, query: TimeQuery) -> Result<Option<(i64, i64)>, ReadError> {
        changes::offset_for(self, id, query).await
    }

    /// The largest epoch at or below `epoch` and where it ends, as OffsetForLeaderEpoch answers (KIP-101, KIP-279);
    /// `None` if the partition has none.
    #[must_use]
    pub fn epoch_end(&self, id: PartitionId, epoch: i32) -> Option<(i32, i64)> {
        self.core.look(id, |partition| partition.epochs.end_offset_for(epoch, partition.high_watermark)).flatten()
    }
}
