//! Retention of one open partition: the verdicts of [`crate::retention`], carried out.

use super::{super::core::Core, KeepEvent, RETRY_MS, let_go};
use crate::{
    disk::Disk,
    partition::{Partition, PartitionId, open::OpenError, state::SealedSegment},
    retention::{Facts, Retention, Verdict, Why, earlier},
    segment::{SegmentError, remove_segment},
};
use std::{io, path::PathBuf};

/// The active segment is at least this old, in ms, before it is rolled for its age: whoever writes records that are too old
/// already does not get a segment for each, and whoever reads them has a moment to do so.
const ROLL_PAUSE_MS: i64 = 5_000;

/// What was appended is durable by then, as a rule, in ms.
const SETTLE_MS: i64 = 1_000;

/// What a look at a partition's oldest segment shows.
enum Oldest {
    /// A sealed one, and the offset behind it.
    Sealed { segment: SealedSegment, next_base: i64 },
    /// There is only the one that is appended to: what is known of it.
    Active(Facts),
    /// What was appended is not durable yet.
    Unsettled,
    /// Nothing is there yet, or a segment is being ended: that is looked at when it has happened.
    None,
}

struct Look {
    retention: Option<Retention>,
    directory: PathBuf,
    oldest: Oldest,
    log_bytes: u64,
    last_stable: i64,
    has_dead: bool,
    /// When the active segment is to be rolled for its age.
    roll_at: Option<i64>,
    /// Not to be rolled before.
    roll_from: i64,
}

fn look<D: Disk>(partition: &Partition<D>) -> Look {
    let config = &partition.spec.config;
    let (front, is_rolling) = (partition.front(), partition.stretches.len() > 1);
    let next_base = |at: usize| partition.sealed.get(at).map_or(front.base_offset(), |sealed| sealed.base_offset);
    let is_settled = partition.high_watermark == partition.log_end();
    let oldest = match partition.sealed.first() {
        Some(segment) => Oldest::Sealed { segment: *segment, next_base: next_base(1) },
        None if is_rolling || front.end() == 0 => Oldest::None,
        None if !is_settled => Oldest::Unsettled,
        None => Oldest::Active(Facts {
            bytes: front.end(),
            newest_ms: partition.indexes.newest().map(|newest| newest.0),
            written_ms: partition.appended_ms,
        }),
    };
    let is_kept = config.retention.is_some() || config.compacted;
    let began_ms = front.began_ms().filter(|_| is_kept && !is_rolling && front.end() > 0);
    Look {
        retention: config.retention,
        directory: partition.directory.clone(),
        oldest,
        log_bytes: partition.size(),
        last_stable: partition.last_stable(),
        has_dead: partition.dead() > 0,
        roll_at: began_ms.map(|began| began.saturating_add(config.roll_ms()).saturating_add(1)),
        roll_from: partition.rolled_ms.max(front.began_ms().unwrap_or(i64::MIN)).saturating_add(ROLL_PAUSE_MS),
    }
}

/// Carries out what is due of a partition. Returns when something is due again.
///
/// # Errors
/// The disk's: what was not done is done by the next call.
pub(super) async fn keep<D: Disk>(core: &Core<D>, id: PartitionId, now_ms: i64) -> Result<Option<i64>, OpenError> {
    loop {
        remove_below_log_start(core, id).await?;
        let is_there = |partition: &Partition<D>| !partition.is_deleted && !partition.is_closing && partition.offline.is_none();
        let Some(look) = core.look(id, |partition| is_there(partition).then(|| look(partition))).flatten() else { return Ok(None) };
        if look.has_dead {
            // Something holds them, a swap or the end of the log: the verdicts on them are carried out already.
            return Ok(Some(now_ms + RETRY_MS));
        }
        let mut next = None;
        if let Some(roll_at) = look.roll_at {
            let roll_at = roll_at.max(look.roll_from);
            if roll_at <= now_ms && roll(core, id, now_ms).await {
                continue;
            }
            next = Some(later(roll_at, now_ms));
        }
        let Some(retention) = look.retention else { return Ok(next) };
        match look.oldest {
            Oldest::None => return Ok(next),
            Oldest::Unsettled => return Ok(earlier(next, Some(now_ms + SETTLE_MS))),
            Oldest::Active(facts) => {
                let Some(ends) = retention.age_ends(&facts, now_ms) else { return Ok(next) };
                let ends = ends.max(look.roll_from);
                if ends <= now_ms && roll(core, id, now_ms).await {
                    continue;
                }
                return Ok(earlier(next, Some(later(ends, now_ms))));
            }
            Oldest::Sealed { segment, next_base } => {
                let newest_ms = match retention.ms {
                    Some(_) => newest(core, id, &look.directory, segment.base_offset).await?,
                    None => None,
                };
                let facts = Facts { bytes: segment.bytes, newest_ms, written_ms: segment.written_ms };
                match retention.judge(&facts, look.log_bytes, now_ms) {
                    // An open transaction holds it.
                    Verdict::Remove(_) if next_base > look.last_stable => return Ok(earlier(next, Some(now_ms + RETRY_MS))),
                    Verdict::Remove(why) => {
                        if !raise_log_start(core, id, next_base).await {
                            return Ok(next);
                        }
                        tell(&look.directory, &segment, next_base, why);
                        let (base_offset, log_start) = (segment.base_offset, next_base);
                        let log_bytes = look.log_bytes;
                        core.keeper.tell(&KeepEvent::Condemned { partition: id, base_offset, log_start, why, facts, log_bytes });
                    }
                    Verdict::Keep(until) => {
                        watch_size(core, id, &retention, &segment);
                        return Ok(earlier(next, until));
                    }
                }
            }
        }
    }
}

/// A time that is to come, or when to try again what was due and could not be done.
fn later(at_ms: i64, now_ms: i64) -> i64 {
    if at_ms > now_ms { at_ms } else { now_ms + RETRY_MS }
}

fn tell(directory: &std::path::Path, segment: &SealedSegment, next_base: i64, why: Why) {
    let (directory, base, bytes) = (directory.display(), segment.base_offset, segment.bytes);
    tracing::info!("{directory}: the segment at {base} ({bytes} bytes) goes by {why}; the log starts at {next_base}");
}

/// The newest timestamp of a sealed segment. Opening it may write its indexes: a deletion waits for that.
pub(super) async fn newest<D: Disk>(
    core: &Core<D>,
    id: PartitionId,
    directory: &std::path::Path,
    base: i64,
) -> Result<Option<i64>, OpenError> {
    core.with(id, |partition| partition.jobs.looking += 1);
    let segment = core.segments.get(&core.disk, directory, id, base).await;
    core.with(id, |partition| partition.jobs.looking -= 1);
    core.job_ended();
    match segment {
        Ok(segment) => Ok(segment.max_timestamp()),
        Err(SegmentError::Disk { path, source }) => Err((path, source)),
        Err(error @ SegmentError::Corrupt { .. }) => Err((directory.to_path_buf(), io::Error::other(error))),
    }
}

/// Has the partition looked at again when the active segment has grown so far that the oldest one is to go by size.
fn watch_size<D: Disk>(core: &Core<D>, id: PartitionId, retention: &Retention, oldest: &SealedSegment) {
    let Some(bytes) = retention.bytes else { return };
    core.with(id, |partition| {
        let others = partition.size() - partition.back().end();
        partition.keep_at_end = (bytes + oldest.bytes).saturating_sub(others);
        if partition.back().end() >= partition.keep_at_end {
            (partition.wants_keeping, partition.keep_at_end) = (true, u64::MAX);
        }
    });
}

/// Ends the active segment. True when the next one has begun.
async fn roll<D: Disk>(core: &Core<D>, id: PartitionId, now_ms: i64) -> bool {
    let rolled = core.with(id, |partition| {
        partition.rolled_ms = now_ms;
        partition.roll(&core.limits).then(|| partition.front().base_offset())
    });
    let Some(base) = rolled.flatten() else { return false };
    let stands = |partition: &Partition<D>| {
        partition.front().base_offset() == base && !partition.is_deleted && partition.offline.is_none() && partition.no_space.is_none()
    };
    core.wait_for(|core| core.is_over() || core.look(id, stands) != Some(true)).await;
    let begun = core.look(id, |partition| partition.front().base_offset()).filter(|begun| *begun > base);
    begun.inspect(|begun| core.keeper.tell(&KeepEvent::Rolled { partition: id, base_offset: *begun })).is_some()
}

/// Raises the log start durably, to `before`, which is not above the high watermark. False if the partition is gone or the log has ended before.
pub(in super::super) async fn raise_log_start<D: Disk>(core: &Core<D>, id: PartitionId, before: i64) -> bool {
    core.with(id, |partition| partition.log_start_wanted = partition.log_start_wanted.max(before));
    let is_raised = |core: &Core<D>| core.look(id, |partition| partition.is_deleted || partition.log_start >= before);
    core.wait_for(|core| core.has_failed.get() || core.ended.is_set() || is_raised(core) != Some(false)).await;
    core.look(id, |partition| !partition.is_deleted && partition.log_start >= before) == Some(true)
}

/// Removes all segments below the log start, also those that the journal has to let go of first.
async fn remove_below_log_start<D: Disk>(core: &Core<D>, id: PartitionId) -> Result<(), OpenError> {
    remove_dead(core, id).await?;
    let held = core.look(id, |partition| {
        let count = partition.dead();
        // What a swap is about to replace is removed when it has ended: that looks at the partition again.
        (count > 0 && !partition.jobs.swapping && !partition.is_deleted)
            .then(|| partition.sealed.get(count).map_or(partition.front().base_offset(), |next| next.base_offset))
    });
    if let Some(Some(base)) = held
        && let_go(core, id, base).await
    {
        remove_dead(core, id).await?;
    }
    Ok(())
}

/// Removes the segments below the log start that the journal doesn't need. From here on nobody finds them; whoever reads
/// them still has them open.
///
/// # Errors
/// The disk's: what is left of them is removed after the next start.
pub(in super::super) async fn remove_dead<D: Disk>(core: &Core<D>, id: PartitionId) -> Result<(), OpenError> {
    let taken = core.with(id, |partition| {
        partition.epochs.truncate_start(partition.log_start);
        if partition.jobs.swapping || partition.is_deleted {
            return (Vec::new(), PathBuf::new());
        }
        let (count, journal_base) = (partition.dead(), partition.journal_base);
        let count = partition.sealed[..count].iter().take_while(|sealed| sealed.base_offset < journal_base).count();
        (partition.sealed.drain(..count).map(|sealed| (sealed.base_offset, sealed.bytes)).collect(), partition.directory.clone())
    });
    let Some((removed, directory)) = taken.filter(|(removed, _)| !removed.is_empty()) else { return Ok(()) };
    for (base_offset, bytes) in removed {
        core.segments.remove(id, base_offset);
        // The oldest first: what a crash leaves is without a gap.
        remove_segment(&core.disk, &directory, base_offset).await.map_err(|error| (directory.clone(), error))?;
        core.keeper.tell(&KeepEvent::Removed { partition: id, base_offset, bytes });
    }
    core.disk.sync_dir(&directory).await.map_err(|error| (directory, error))
}
