//! Retention and compaction of one log of a stopped Kafka, by the engine's rules and its job, without its journal.

use super::{
    super::{choice::Chosen, report::Ledger, watch::Watch},
    checkpoint::Checkpoint,
    log::Log,
};
use anyhow::{Context, Result};
use engine::{
    compaction::{CleanError, Group, Job, KEPT_BYTES_MAX, KEY_BYTES, Progress, Source, discard, plan},
    disk::Disk,
    log::KeepEvent,
    partition::{PartitionConfig, directory::log_path},
    retention::{Facts, Verdict, Why, earlier},
    segment::{Sealed, first_timestamp, kafka_swap, remove_segment},
};
use server::keeping::KEYS_BYTES_MAX;
use std::{io, path::Path};

/// Where a round writes, in the partition's directory: a Kafka looks at files there only, and takes a directory beside it for a
/// partition.
const SCRATCH: &str = "thalweg.cleaning";

/// What keeping a log needs to know.
pub(super) struct Keeping<'a, D: Disk> {
    pub(super) disk: &'a D,
    pub(super) chosen: &'a Chosen,
    /// The settings that are asked for.
    pub(super) config: &'a PartitionConfig,
    /// See [`Log::read`].
    pub(super) high_watermark: i64,
    pub(super) ledger: &'a Ledger,
    pub(super) watch: &'a Watch,
    pub(super) now_ms: i64,
}

/// How a log is left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Left {
    pub(super) log_start: i64,
    /// When something is due next, in ms.
    pub(super) next_ms: Option<i64>,
}

impl<D: Disk> Keeping<'_, D> {
    /// Does all that is due of the log in `directory`.
    pub(super) async fn run(&self, directory: &Path, log_starts: &mut Checkpoint, cleaner: &mut Checkpoint) -> Result<Left> {
        let (topic, partition) = (&self.chosen.topic, self.chosen.partition);
        let scratch = directory.join(SCRATCH);
        let tidy = async {
            discard(self.disk, &scratch).await?;
            kafka_swap::recover(self.disk, directory).await
        };
        tidy.await.with_context(|| format!("{}: what an earlier run has begun can't be finished", directory.display()))?;
        let Some(mut log) = Log::read(self.disk, directory, self.high_watermark, self.now_ms).await? else { return Ok(Left::default()) };
        let noted = log_starts.get(topic, partition);
        let by_age = self.retention(&mut log, noted.unwrap_or(0)).await?;
        let first = log.sealed.first().map_or(log.active_base, |first| first.base_offset);
        // Kafka's checkpoint has those starts only that are within a segment.
        log_starts.set(self.disk, topic, partition, noted.filter(|noted| *noted > first)).await?;
        let log_start = noted.unwrap_or(0).max(first);
        let by_lag = if self.config.compacted { self.compaction(log, log_start, &scratch, cleaner).await? } else { None };
        Ok(Left { log_start, next_ms: earlier(by_age, by_lag) })
    }

    /// Removes the segments that have had their time, the oldest first: what a crash leaves is without a gap. Returns when the
    /// next one has.
    async fn retention(&self, log: &mut Log, log_start: i64) -> Result<Option<i64>> {
        let mut next_ms = None;
        while let Some(oldest) = log.sealed.first().copied() {
            let end = log.end_of(0);
            if end > log_start {
                let Some(retention) = self.config.retention.filter(|_| end <= log.last_stable) else { break };
                let newest_ms = Sealed::open(self.disk, &log.directory, oldest.base_offset).await?.max_timestamp();
                let facts = Facts { bytes: oldest.bytes, newest_ms, written_ms: oldest.written_ms };
                let log_bytes = log.bytes();
                match retention.judge(&facts, log_bytes, self.now_ms) {
                    Verdict::Remove(why) => self.condemn(oldest.base_offset, end, why, facts, log_bytes),
                    Verdict::Keep(until) => {
                        next_ms = until;
                        break;
                    }
                }
            }
            let removed = async {
                remove_segment(self.disk, &log.directory, oldest.base_offset).await?;
                self.disk.sync_dir(&log.directory).await
            };
            removed
                .await
                .with_context(|| format!("{}: the segment at {} can't be removed", log.directory.display(), oldest.base_offset))?;
            log.sealed.remove(0);
            self.ledger.note(&KeepEvent::Removed { partition: self.chosen.id, base_offset: oldest.base_offset, bytes: oldest.bytes });
        }
        Ok(next_ms)
    }

    fn condemn(&self, base_offset: i64, log_start: i64, why: Why, facts: Facts, log_bytes: u64) {
        let partition = self.chosen.id;
        self.ledger.note(&KeepEvent::Condemned { partition, base_offset, log_start, why, facts, log_bytes });
    }

    /// Rounds of compaction, as long as one is worth it. Returns when the next one may be.
    async fn compaction(&self, mut log: Log, log_start: i64, scratch: &Path, cleaner: &mut Checkpoint) -> Result<Option<i64>> {
        let (topic, partition) = (&self.chosen.topic, self.chosen.partition);
        let mut is_partial = false;
        loop {
            let Some(first) = log.sealed.first() else { return Ok(None) };
            let first_dirty = plan::first_dirty(cleaner.get(topic, partition), log_start, first.base_offset, log.active_base);
            let (limit, lag_ends) = self.lag_limit(&log, first_dirty).await?;
            let range = plan::range(&log.sealed, log.active_base, first_dirty, limit.min(log.last_stable).min(log.active_base));
            let overdue_at = self.overdue_at(&log, first_dirty, &range).await?;
            let is_overdue = overdue_at.is_some_and(|at_ms| at_ms <= self.now_ms);
            if !plan::is_worth(&range, self.config.min_cleanable_dirty_ratio, is_overdue, is_partial) {
                return Ok(earlier(lag_ends, overdue_at));
            }
            let job = self.job(&log, &range, first_dirty, scratch);
            let round = job.run(self.disk, async |group| self.install(scratch, &log.directory, group).await);
            let cleaned = match self.watch.on(&job, round).await {
                Ok(cleaned) => cleaned.expect("no group was refused"),
                Err(error) => {
                    let _ = discard(self.disk, scratch).await;
                    return Err(error).context("compaction");
                }
            };
            discard(self.disk, scratch).await.with_context(|| format!("can't remove {}", scratch.display()))?;
            cleaner.set(self.disk, topic, partition, Some(cleaned.clean_to)).await?;
            is_partial = cleaned.is_partial;
            self.ledger.note(&KeepEvent::Compacted { partition: self.chosen.id, cleaned });
            let Some(after) = Log::read(self.disk, &log.directory, self.high_watermark, self.now_ms).await? else { return Ok(None) };
            log = after;
        }
    }

    /// Puts a compacted segment in the place of its group.
    async fn install(&self, scratch: &Path, directory: &Path, group: Group) -> Result<bool, CleanError> {
        if let Err(error) = kafka_swap::replace(self.disk, scratch, directory, &group.bases).await {
            let source = io::Error::new(error.kind(), format!("putting compacted segments in place: {error}; run this again"));
            return Err(CleanError::Disk { path: directory.to_owned(), source });
        }
        self.ledger.note(&KeepEvent::Replaced { partition: self.chosen.id, group });
        Ok(true)
    }

    /// Up to where `min.compaction.lag.ms` lets a round go, and when that changes.
    async fn lag_limit(&self, log: &Log, first_dirty: i64) -> Result<(i64, Option<i64>)> {
        if self.config.min_compaction_lag_ms > 0 {
            for segment in plan::dirty(&log.sealed, log.active_base, first_dirty) {
                let newest_ms = Sealed::open(self.disk, &log.directory, segment.base_offset).await?.max_timestamp();
                let until = plan::held_until(newest_ms, segment.written_ms, self.config.min_compaction_lag_ms, self.now_ms);
                if until.is_some() {
                    return Ok((segment.base_offset, until));
                }
            }
        }
        Ok((i64::MAX, None))
    }

    /// When `max.compaction.lag.ms` asks for a round.
    async fn overdue_at(&self, log: &Log, first_dirty: i64, range: &plan::Range) -> Result<Option<i64>> {
        let lag_ms = self.config.max_compaction_lag_ms;
        let oldest = plan::oldest_dirty(&log.sealed, range, first_dirty);
        let Some(oldest) = oldest.filter(|_| lag_ms < i64::MAX) else { return Ok(None) };
        let first = first_timestamp(self.disk, &log.directory, oldest.base_offset).await;
        let first_ms = first.with_context(|| format!("can't read {}", log_path(&log.directory, oldest.base_offset).display()))?;
        Ok(plan::overdue_at(first_ms, lag_ms, self.now_ms))
    }

    fn job(&self, log: &Log, range: &plan::Range, first_dirty: i64, scratch: &Path) -> Job {
        let (segments, later) = log.sealed.split_at(range.segments);
        Job {
            partition: self.chosen.id,
            directory: log.directory.clone(),
            scratch: scratch.to_owned(),
            segments: segments.iter().map(Source::from).collect(),
            end: range.end,
            first_dirty,
            later: later.iter().filter(|segment| segment.has_transactions).map(|segment| segment.base_offset).collect(),
            aborted: log.aborted.clone(),
            producers: log.producers.clone(),
            segment_bytes: self.config.segment_bytes,
            delete_retention_ms: self.config.delete_retention_ms,
            overdue_ms: None,
            now_ms: self.now_ms,
            keys_max: KEYS_BYTES_MAX / KEY_BYTES,
            kept_bytes_max: KEPT_BYTES_MAX,
            secret: (rand::random(), rand::random()),
            progress: Progress::default(),
        }
    }
}
