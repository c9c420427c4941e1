//! Retention and compaction, as the broker drives them.

use super::{
    Observer,
    compaction::{finish, install, next_job},
    keep,
};
use crate::{
    compaction::{CleanError, Cleaned, Group, Job},
    disk::Disk,
    log::Log,
    partition::PartitionId,
};
use std::collections::BTreeSet;

impl<D: Disk> Log<D> {
    /// Does what retention asks for of the partitions whose time has come, at `now_ms` of the broker's clock: segments are
    /// rolled by age, the log start is raised, files are removed. Returns when to call it again, in ms, unless
    /// [`Log::keep_sooner`] resolves before; `None` if nothing is to come. One call at a time. What fails is logged and
    /// tried again.
    pub async fn keep(&self, now_ms: i64) -> Option<i64> {
        keep(self, now_ms).await
    }

    /// The next round of compaction, if one is worth while: run it anywhere, have [`Log::install_cleaned`] put each of its groups
    /// in place, and bring back what came of it with [`Log::finish_cleaning`]. At most `keys_max` keys are remembered in it,
    /// [`crate::compaction::KEY_BYTES`] each; `secret` is random. [`Log::keep`] finds out what is worth while.
    pub async fn next_cleaning(&self, now_ms: i64, keys_max: usize, secret: (u64, u64)) -> Option<Job> {
        next_job(&self.core, now_ms, keys_max, secret).await
    }

    /// Swaps in a group that a job has cleaned. When this returns its new segment is in place, durably, and what it has replaced
    /// is removed. False if the log is not any more what the job has seen (deleted, shortened, offline, or it is being closed):
    /// then nothing was changed.
    ///
    /// # Errors
    /// The disk's. Nothing was changed, or the partition is offline and the next start tells what counts.
    pub async fn install_cleaned(&self, job: &Job, group: &Group) -> Result<bool, CleanError> {
        install(&self.core, job, group).await
    }

    /// Takes back what came of a round. If it has come to its end, how far the log is clean now is noted, durably. A failure is
    /// logged, and the round tried again later. Of a partition there is one round at a time.
    pub async fn finish_cleaning(&self, job: &Job, result: Result<Option<Cleaned>, CleanError>, now_ms: i64) {
        finish(&self.core, job, result, now_ms).await;
    }

    /// Resolves when [`Log::next_cleaning`] may have a job.
    pub async fn has_cleaning(&self) {
        self.core.keeper.has_work().await;
    }

    /// Tells `observer` of everything that retention and compaction do from now on, on this thread. It must not call the log.
    pub fn observe_keeping(&self, observer: Observer) {
        self.core.keeper.observe(observer);
    }

    /// Retention and compaction look at nothing but these partitions from now on, and at these at once.
    pub fn keep_only(&self, ids: &BTreeSet<PartitionId>) {
        self.core.keeper.only(ids);
    }

    /// Has [`Log::keep`] look at a partition as soon as possible, also if something of it has failed and is to be tried later.
    pub fn keep_soon(&self, id: PartitionId) {
        self.core.keeper.retry(id);
    }

    /// When retention or compaction of a partition is due next, in ms, as far as [`Log::keep`] knows; `None` if nothing is to
    /// come. Of a partition that is not open it is a time that is not later.
    #[must_use]
    pub fn next_keeping(&self, id: PartitionId) -> Option<i64> {
        self.core.keeper.deadline(id)
    }

    /// True if retention or compaction of a partition is under way, or due at `now_ms`.
    #[must_use]
    pub fn is_keeping(&self, id: PartitionId, now_ms: i64) -> bool {
        self.core.keeper.is_busy(id, now_ms)
    }

    /// Resolves when something has changed that [`Log::keep`] should look at.
    pub async fn keep_sooner(&self) {
        self.core.keeper.changed().await;
    }
}
