//! Compaction on the core: which partitions are worth a round, the job for it, and the swap of each group that it has cleaned.

use super::{super::core::Core, KeepEvent, Keeper, LookedAt, RETRY_MS, let_go};
use crate::{
    compaction::{
        CleanError, Cleaned, Group, Job, KEPT_BYTES_MAX, LastRecord, Progress, SCRATCH, Source, discard,
        plan::{self, Range},
        read_first_dirty, write_first_dirty,
    },
    disk::Disk,
    partition::{Partition, PartitionConfig, PartitionId, open::OpenError, state::SealedSegment},
    retention::earlier,
    segment::{first_timestamp, swap},
};
use std::{collections::BTreeMap, io, path::PathBuf};

/// A round that failed is tried again after this time at first, in ms; after each further failure twice as late.
const BACKOFF_MS_MIN: i64 = 5_000;
/// A round that failed is tried again after this time at the latest, in ms.
const BACKOFF_MS_MAX: i64 = 600_000;

/// What is known of a compacted partition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// The first offset that was not cleaned yet, once it was read.
    first_dirty: Option<i64>,
    /// The dirty part of it, if a round is worth while.
    ready: Option<f64>,
    /// A job of it is out.
    is_out: bool,
    /// The last round did not reach the end of what could be cleaned: there were too many keys, or it ended behind one of its groups.
    is_partial: bool,
    failures: u32,
    /// Not before, in ms.
    not_before: i64,
}

impl State {
    /// A round that failed is tried again at once.
    pub fn retry(&mut self) {
        self.not_before = 0;
    }

    /// A round of it is out or about to be.
    pub fn is_busy(&self) -> bool {
        self.is_out || self.ready.is_some()
    }
}

/// What a look at a compacted partition shows.
struct Look {
    config: PartitionConfig,
    directory: PathBuf,
    sealed: Vec<SealedSegment>,
    front_base: i64,
    journal_base: i64,
    log_start: i64,
    last_stable: i64,
}

fn look<D: Disk>(partition: &Partition<D>) -> Option<Look> {
    let config = &partition.spec.config;
    let is_at_work = config.compacted && !partition.is_deleted && !partition.is_closing && partition.offline.is_none();
    (is_at_work && !partition.jobs.swapping && !partition.sealed.is_empty()).then(|| Look {
        config: config.clone(),
        directory: partition.directory.clone(),
        sealed: partition.sealed.clone(),
        front_base: partition.front().base_offset(),
        journal_base: partition.journal_base,
        log_start: partition.log_start,
        last_stable: partition.last_stable(),
    })
}

impl Look {
    /// The range below `limit`, and what of the log is clean already.
    fn range(&self, first_dirty: i64, limit: i64) -> Range {
        plan::range(&self.sealed, self.front_base, first_dirty, limit.min(self.last_stable).min(self.front_base))
    }

    fn first_dirty(&self, noted: Option<i64>) -> i64 {
        plan::first_dirty(noted, self.log_start, self.sealed[0].base_offset, self.front_base)
    }

    /// Whether the round of an earlier life that has noted this was a partial one.
    fn is_partial(&self, noted: Option<i64>) -> bool {
        noted.is_some_and(|noted| self.first_dirty(Some(noted)) == noted && plan::is_within(&self.sealed, self.front_base, noted))
    }
}

/// Decides whether a partition is worth a round. Returns when to look again.
///
/// # Errors
/// The disk's.
pub(super) async fn consider<D: Disk>(core: &Core<D>, id: PartitionId, now_ms: i64) -> Result<Option<i64>, OpenError> {
    let Some(seen) = core.look(id, look).flatten() else {
        core.keeper.states.borrow_mut().entry(id).and_modify(|state| state.ready = None);
        return Ok(None);
    };
    let mut state = core.keeper.states.borrow().get(&id).copied().unwrap_or_default();
    if state.is_out {
        return Ok(None);
    }
    if state.not_before > now_ms {
        return Ok(Some(state.not_before));
    }
    if state.first_dirty.is_none() {
        let noted = read_first_dirty(&core.disk, &seen.directory).await.map_err(|error| (seen.directory.clone(), error))?;
        state.first_dirty = Some(seen.first_dirty(noted));
        state.is_partial |= seen.is_partial(noted);
    }
    let first_dirty = seen.first_dirty(state.first_dirty);
    let (limit, lag_ends) = lag_limit(core, id, &seen, first_dirty, now_ms).await?;
    let range = seen.range(first_dirty, limit);
    let overdue_at = overdue_at(core, &seen, first_dirty, &range, now_ms).await?;
    let is_overdue = overdue_at.is_some_and(|at_ms| at_ms <= now_ms);
    let is_worth = plan::is_worth(&range, seen.config.min_cleanable_dirty_ratio, is_overdue, state.is_partial);
    let needs = seen.sealed.get(range.segments).map_or(seen.front_base, |next| next.base_offset);
    if is_worth && seen.journal_base < needs && !let_go(core, id, needs).await {
        return Ok(Some(now_ms + RETRY_MS));
    }
    let mut states = core.keeper.states.borrow_mut();
    let kept = states.entry(id).or_default();
    if !kept.is_out {
        // What was read of an earlier life; later on rounds say it.
        kept.is_partial |= state.is_partial && kept.first_dirty.is_none();
        (kept.first_dirty, kept.ready) = (state.first_dirty, is_worth.then(|| range.dirty_ratio()));
    }
    drop(states);
    if is_worth {
        core.keeper.work.set();
        return Ok(None);
    }
    Ok(earlier(lag_ends, overdue_at.filter(|at_ms| *at_ms > now_ms)))
}

/// Up to where `min.compaction.lag.ms` lets a round go, and when that changes.
async fn lag_limit<D: Disk>(
    core: &Core<D>,
    id: PartitionId,
    seen: &Look,
    first_dirty: i64,
    now_ms: i64,
) -> Result<(i64, Option<i64>), OpenError> {
    let lag_ms = seen.config.min_compaction_lag_ms;
    if lag_ms <= 0 {
        return Ok((i64::MAX, None));
    }
    for segment in plan::dirty(&seen.sealed, seen.front_base, first_dirty) {
        let newest = super::retention::newest(core, id, &seen.directory, segment.base_offset).await?;
        if let Some(until) = plan::held_until(newest, segment.written_ms, lag_ms, now_ms) {
            return Ok((segment.base_offset, Some(until)));
        }
    }
    Ok((i64::MAX, None))
}

/// When `max.compaction.lag.ms` asks for a round, or has asked, in ms.
async fn overdue_at<D: Disk>(core: &Core<D>, seen: &Look, first_dirty: i64, range: &Range, now_ms: i64) -> Result<Option<i64>, OpenError> {
    let lag_ms = seen.config.max_compaction_lag_ms;
    let oldest = plan::oldest_dirty(&seen.sealed, range, first_dirty);
    let Some(oldest) = oldest.filter(|_| lag_ms < i64::MAX) else { return Ok(None) };
    let failed = |error| (seen.directory.clone(), error);
    let first = first_timestamp(&core.disk, &seen.directory, oldest.base_offset).await.map_err(failed)?;
    Ok(plan::overdue_at(first, lag_ms, now_ms))
}

impl Keeper {
    /// Resolves when there may be a job.
    pub async fn has_work(&self) {
        self.work.wait().await;
    }

    /// The partition with the most to gain.
    fn readiest(&self) -> Option<PartitionId> {
        let states = self.states.borrow();
        let ready = states.iter().filter(|(_, state)| !state.is_out).filter_map(|(id, state)| Some((state.ready?, *id)));
        ready.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, id)| id)
    }
}

/// The next job: the partition with the largest dirty part. `None` if none is worth it.
pub(in super::super) async fn next_job<D: Disk>(core: &Core<D>, now_ms: i64, keys_max: usize, secret: (u64, u64)) -> Option<Job> {
    loop {
        if core.is_over() {
            return None;
        }
        let id = core.keeper.readiest()?;
        core.keeper.looked_at.borrow_mut().insert(id);
        let _end = LookedAt { keeper: &core.keeper, id };
        let (noted, is_partial) = core.keeper.states.borrow_mut().get_mut(&id).map_or((None, false), |state| {
            state.ready = None;
            (state.first_dirty, state.is_partial)
        });
        let Some(seen) = core.look(id, look).flatten() else { continue };
        let first_dirty = seen.first_dirty(noted);
        let looked = async {
            let (limit, _) = lag_limit(core, id, &seen, first_dirty, now_ms).await?;
            let range = seen.range(first_dirty, limit.min(seen.journal_base));
            let overdue_ms = overdue_at(core, &seen, first_dirty, &range, now_ms).await?;
            Ok::<_, OpenError>((range, overdue_ms))
        };
        let (range, overdue_ms) = match looked.await {
            Ok(found) => found,
            Err((path, error)) => {
                tracing::warn!("{}: {error}; it is looked at again", path.display());
                core.keeper.soon(id);
                continue;
            }
        };
        if range.dirty_bytes == 0 {
            continue;
        }
        // What was removed meanwhile, a job would look for in vain.
        let Some(job) = core.look(id, |partition| job(core, partition, &seen, &range, first_dirty)).flatten() else { continue };
        core.keeper.states.borrow_mut().entry(id).or_default().is_out = true;
        // What has had too many keys for one round most likely still has.
        let kept_bytes_max = if is_partial { 0 } else { KEPT_BYTES_MAX };
        return Some(Job { overdue_ms, now_ms, keys_max, secret, kept_bytes_max, ..job });
    }
}

fn job<D: Disk>(core: &Core<D>, partition: &Partition<D>, seen: &Look, range: &Range, first_dirty: i64) -> Option<Job> {
    let segments = partition.sealed.get(..range.segments).filter(|segments| *segments == &seen.sealed[..range.segments])?;
    let later = partition.sealed[range.segments..].iter().filter(|segment| segment.has_transactions);
    // All of them, as of the durable end.
    let producers = partition.producers.for_checkpoint(i64::MIN, 0, core.limits.now_ms.get());
    Some(Job {
        partition: partition.spec.id,
        directory: partition.directory.clone(),
        scratch: core.config.data_dir.join(SCRATCH).join(partition.spec.id.0.to_string()),
        segments: segments.iter().map(Source::from).collect(),
        end: range.end,
        first_dirty,
        later: later.map(|segment| segment.base_offset).collect(),
        aborted: partition.indexes.transactions.entries().to_vec(),
        producers: producers.iter().map(|state| (state.producer_id, LastRecord::from(state))).collect::<BTreeMap<_, _>>(),
        segment_bytes: partition.spec.config.segment_bytes,
        delete_retention_ms: partition.spec.config.delete_retention_ms,
        overdue_ms: None,
        now_ms: 0,
        keys_max: 0,
        kept_bytes_max: 0,
        secret: (0, 0),
        progress: Progress::default(),
    })
}

/// Takes back what became of a round: how far the log is clean now is noted, or why it failed.
pub(in super::super) async fn finish<D: Disk>(core: &Core<D>, job: &Job, result: Result<Option<Cleaned>, CleanError>, now_ms: i64) {
    let id = job.partition;
    let result = match result {
        Ok(Some(cleaned)) => note(core, job, &cleaned).await.map(|is_noted| is_noted.then_some(cleaned)),
        unfinished => unfinished,
    };
    if let Err(error) = discard(&core.disk, &job.scratch).await {
        tracing::warn!("{}: {error}; the next start removes it", job.scratch.display());
    }
    let is_there = core.look(id, |partition| !partition.is_deleted) == Some(true);
    // Retention may have taken what the job was about to read: that is no failure.
    let first = |partition: &Partition<D>| partition.sealed.first().map(|sealed| sealed.base_offset);
    let was_shortened = core.look(id, first).flatten() != job.segments.first().map(|segment| segment.base_offset);
    let mut states = core.keeper.states.borrow_mut();
    if !is_there {
        states.remove(&id);
        return;
    }
    let state = states.entry(id).or_default();
    state.is_out = false;
    match result {
        // The next look finds out what is to be done of what the log is now.
        Ok(None) => {}
        Err(_) if was_shortened => {}
        Ok(Some(cleaned)) => {
            (state.first_dirty, state.is_partial, state.failures) = (Some(cleaned.clean_to), cleaned.is_partial, 0);
            tracing::info!(
                "{}: compacted up to {}: {} of {} bytes and {} of {} records stay",
                job.directory.display(),
                cleaned.clean_to,
                cleaned.bytes.1,
                cleaned.bytes.0,
                cleaned.records.1,
                cleaned.records.0
            );
            core.keeper.tell(&KeepEvent::Compacted { partition: id, cleaned });
        }
        Err(error) => {
            let backoff = BACKOFF_MS_MIN.saturating_mul(1 << state.failures.min(20)).min(BACKOFF_MS_MAX);
            (state.failures, state.not_before) = (state.failures + 1, now_ms + backoff);
            tracing::warn!("compaction of {} failed: {error}; it is tried again in {} s", job.directory.display(), backoff / 1_000);
            core.keeper.tell(&KeepEvent::Failed { partition: id, what: format!("compaction: {error}") });
        }
    }
    drop(states);
    core.keeper.soon(id);
}

/// Notes how far a round has come. False if the log is not there any more, or about to be closed.
async fn note<D: Disk>(core: &Core<D>, job: &Job, cleaned: &Cleaned) -> Result<bool, CleanError> {
    if core.is_over() || core.look(job.partition, |partition| !partition.is_deleted) != Some(true) {
        return Ok(false);
    }
    let _held = Hold::new(core, job.partition);
    let failed = |source| CleanError::Disk { path: job.directory.clone(), source };
    write_first_dirty(&core.disk, &job.directory, cleaned.clean_to).await.map_err(failed)?;
    Ok(true)
}

/// Keeps a deletion and a clean stop from the directory while it is worked on.
struct Hold<'a, D: Disk> {
    core: &'a Core<D>,
    id: PartitionId,
}

impl<'a, D: Disk> Hold<'a, D> {
    fn new(core: &'a Core<D>, id: PartitionId) -> Self {
        core.with(id, |partition| partition.jobs.swapping = true);
        Hold { core, id }
    }
}

impl<D: Disk> Drop for Hold<'_, D> {
    fn drop(&mut self) {
        self.core.with(self.id, |partition| partition.jobs.swapping = false);
        self.core.job_ended();
    }
}

/// Puts one new segment in the place of its group. False if the log is not any more what the job has seen: deleted, offline, shortened
/// meanwhile, or about to be closed.
pub(in super::super) async fn install<D: Disk>(core: &Core<D>, job: &Job, group: &Group) -> Result<bool, CleanError> {
    let (id, base) = (job.partition, group.bases[0]);
    let place = |partition: &Partition<D>| {
        let at = partition.sealed.iter().position(|sealed| sealed.base_offset == base)?;
        let there = partition.sealed.get(at..at + group.bases.len())?;
        let is_same = there.iter().map(|sealed| sealed.base_offset).eq(group.bases.iter().copied());
        let is_usable = !partition.is_deleted && partition.offline.is_none() && !partition.jobs.swapping && base < partition.journal_base;
        (is_same && is_usable && there.iter().map(|sealed| sealed.bytes).sum::<u64>() == group.bytes_before).then_some(at)
    };
    if core.is_over() || core.look(id, place).flatten().is_none() {
        return Ok(false);
    }
    let _held = Hold::new(core, id);
    let disk_error = |path: &PathBuf, source: io::Error| CleanError::Disk { path: path.clone(), source };
    core.segments.pin(&core.disk, &job.directory, id, &group.bases).await?;
    let done = match swap::commit(&core.disk, &job.scratch, &job.directory, base).await {
        Ok(()) => swap::complete(&core.disk, &job.directory, base, &group.bases[1..]).await.map_err(|error| (error, true)),
        Err(error) => Err(error),
    };
    if let Err((error, is_committed)) = done {
        if is_committed {
            // What is on the disk only a start can tell now. Readers go on with the files that are open.
            core.with(id, |partition| {
                if partition.offline.is_none() {
                    partition.go_offline(format!("replacing segments by compacted ones failed: {error}"));
                }
            });
        } else {
            core.segments.unpin(id, &group.bases);
            let active = core.look(id, |partition| partition.front().base_offset()).unwrap_or(0);
            if let Err(error) = swap::recover(&core.disk, &job.directory, active).await {
                tracing::warn!("{}: {error}; the next start tidies up", job.directory.display());
            }
        }
        return Err(disk_error(&job.directory, error));
    }
    core.with(id, |partition| {
        let at = partition.sealed.iter().position(|sealed| sealed.base_offset == base).expect("nothing was removed meanwhile");
        let written_ms = partition.sealed[at..at + group.bases.len()].iter().map(|sealed| sealed.written_ms).max().flatten();
        let new = SealedSegment { base_offset: base, bytes: group.bytes, has_transactions: group.has_transactions, written_ms };
        partition.sealed.splice(at..at + group.bases.len(), [new]);
        partition.replaced += 1;
    });
    core.segments.unpin(id, &group.bases);
    // A part of the dirty bytes is gone, and the others may be fewer than a round begins for: it is brought to its end all the same.
    core.keeper.states.borrow_mut().entry(id).and_modify(|state| state.is_partial = true);
    core.keeper.tell(&KeepEvent::Replaced { partition: id, group: group.clone() });
    // Retention may have waited for the swap.
    core.keeper.soon(id);
    Ok(true)
}
