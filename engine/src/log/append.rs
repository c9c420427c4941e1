//! Appending: senders are let in, a batch gets its offsets and its place in the tail, and is waited for until it is durable.

use super::{
    AppendError, Appended, Log, closed,
    core::Slot,
    waiting::{self, Durable},
};
use crate::{
    disk::{BLOCK, Disk},
    partition::{Incoming, PartitionId},
};

impl<D: Disk> Log<D> {
    /// Waits until `bytes` more may be appended: this is how senders are slowed (bytes that are in no segment yet are
    /// bounded). Call it before [`Log::append`]; it returns at once while there is room.
    pub async fn admit(&self, bytes: usize) {
        waiting::admit(&self.core, bytes as u64).await;
    }

    /// Whether [`Log::admit`] would return at once.
    #[must_use]
    pub fn admits(&self, bytes: usize) -> bool {
        waiting::admits(&self.core, bytes as u64)
    }

    /// Validates a batch in Kafka's order, gives it offsets and takes it into the partition's tail: bytes are copied, memory that was
    /// received into is adopted where that is possible ([`Incoming`]). Not durable and not readable before [`Log::durable`] of its last
    /// offset. `now_ms` is the broker's clock.
    ///
    /// # Errors
    /// Each variant is one of Kafka's answers; nothing has changed then.
    pub fn append<'a>(&self, id: PartitionId, batch: impl Into<Incoming<'a>>, now_ms: i64) -> Result<Appended, AppendError> {
        self.take_in(id, batch.into(), now_ms)
    }

    /// Where in a block the next batch of a partition will begin, if nothing else is appended before and no segment is
    /// rolled: a hint, for whoever receives a large batch. `None` if the partition is not open here.
    #[must_use]
    pub fn append_phase(&self, id: PartitionId) -> Option<u64> {
        self.core.look(id, |partition| partition.back().end() % BLOCK)
    }

    fn take_in(&self, id: PartitionId, batch: Incoming<'_>, now_ms: i64) -> Result<Appended, AppendError> {
        let core = &self.core;
        if core.has_failed.get() || core.is_closing.get() {
            return Err(closed());
        }
        core.limits.now_ms.set(now_ms.max(core.limits.now_ms.get()));
        let mut slots = core.slots.borrow_mut();
        let partition = match slots.get_mut(&id) {
            None => return Err(AppendError::UnknownPartition),
            Some(Slot::Closed(_)) => return Err(AppendError::Storage("the partition is not open".into())),
            Some(Slot::Open(partition)) => partition,
        };
        partition.ask_for_space(now_ms, &core.limits);
        let result = partition.append(batch, now_ms, &core.limits);
        core.settle(partition);
        let (appended, chunks) = result?;
        core.has_work(now_ms);
        if chunks > 0 {
            if !std::mem::replace(&mut partition.holds_memory, true) {
                core.holders.borrow_mut().push_back(id);
            }
            core.release_memory(&mut slots);
        }
        Ok(appended)
    }

    /// Waits until what was appended is durable.
    ///
    /// # Errors
    /// [`AppendError::Storage`] if it never will be: it was dropped, the partition went offline, or the log closed.
    /// [`AppendError::UnknownPartition`] if the partition was deleted.
    pub fn durable_of(&self, id: PartitionId, appended: &Appended) -> Durable<D> {
        Durable::new(&self.core, id, appended.last_offset, appended.discards)
    }

    /// Waits until everything up to `last_offset` is durable, as the log is at this call: for an append that was made
    /// earlier, [`Log::durable_of`] is exact also if its offset was given again since.
    ///
    /// # Errors
    /// As [`Log::durable_of`].
    pub fn durable(&self, id: PartitionId, last_offset: i64) -> Durable<D> {
        let since = self.core.look(id, |partition| partition.discards()).unwrap_or_default();
        Durable::new(&self.core, id, last_offset, since)
    }
}
