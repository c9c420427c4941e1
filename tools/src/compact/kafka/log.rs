//! A log as a stopped Kafka has left it: its segments, and what its producers did last.

use anyhow::{Context, Result};
use engine::{
    batch::{ControlRecord, Scanner, Stop},
    compaction::LastRecord,
    disk::{Disk, read_whole},
    partition::{Producers, state::SealedSegment},
    segment::{AbortedTxn, FileKind, PartitionFiles, Sealed, SegmentError, TxnIndex, Walk, decode_snapshot, file_name},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A log. Its active segment, the last one, is left to that Kafka.
pub(super) struct Log {
    pub(super) directory: PathBuf,
    pub(super) sealed: Vec<SealedSegment>,
    pub(super) active_base: i64,
    pub(super) active_bytes: u64,
    /// The first offset that an open transaction could still abort, or that a new leader could still cut off, or the log's end.
    pub(super) last_stable: i64,
    pub(super) producers: BTreeMap<i64, LastRecord>,
    /// Aborted transactions whose marker is in the active segment.
    pub(super) aborted: Vec<AbortedTxn>,
}

impl Log {
    /// Reads it; `None` if there is none. Below `high_watermark` it is on all replicas.
    pub(super) async fn read<D: Disk>(disk: &D, directory: &Path, high_watermark: i64, now_ms: i64) -> Result<Option<Log>> {
        let files = PartitionFiles::list(disk, directory).await.with_context(|| format!("can't list {}", directory.display()))?;
        let Some((active, others)) = files.segments.split_last() else { return Ok(None) };
        let producers = producers(disk, directory, &files, now_ms).await?;
        let end = Sealed::open(disk, directory, active.base_offset).await?.next_offset(disk).await?;
        let sealed = others.iter().map(|segment| SealedSegment {
            base_offset: segment.base_offset,
            bytes: segment.log_bytes,
            has_transactions: segment.others.get(&FileKind::TxnIndex).is_some_and(|bytes| *bytes > 0),
            written_ms: segment.changed_ms,
        });
        Ok(Some(Log {
            directory: directory.to_owned(),
            sealed: sealed.collect(),
            active_base: active.base_offset,
            active_bytes: active.log_bytes,
            last_stable: producers.first_unstable().unwrap_or(end).min(high_watermark),
            producers: producers.snapshot().iter().map(|state| (state.producer_id, LastRecord::from(state))).collect(),
            aborted: aborted(disk, directory, active.base_offset, active.has(FileKind::TxnIndex)).await?,
        }))
    }

    /// The offset behind a sealed segment.
    pub(super) fn end_of(&self, at: usize) -> i64 {
        self.sealed.get(at + 1).map_or(self.active_base, |next| next.base_offset)
    }

    /// Its bytes, the active segment's included.
    pub(super) fn bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + self.active_bytes
    }
}

/// The producers as of the log's end: those of the newest snapshot, which a clean stop writes there, and what follows it.
async fn producers<D: Disk>(disk: &D, directory: &Path, files: &PartitionFiles, now_ms: i64) -> Result<Producers> {
    let mut producers = Producers::new(usize::MAX);
    let mut from = i64::MIN;
    for offset in files.snapshots.iter().rev() {
        let path = directory.join(file_name(*offset, FileKind::Snapshot));
        let bytes = read_whole(disk, &path).await.with_context(|| format!("can't read {}", path.display()))?;
        // As in a Kafka: an older one does as well, with more to be read.
        if let Ok(states) = decode_snapshot(&bytes) {
            states.iter().for_each(|state| producers.import(state, offset - 1));
            from = *offset;
            break;
        }
    }
    for segment in &files.segments[files.segment_of(from).unwrap_or(0)..] {
        let sealed = Sealed::open(disk, directory, segment.base_offset).await?;
        let Some((position, _)) = sealed.find(disk, from).await? else { continue };
        let mut walk = Walk::new(disk, &sealed.reader, Scanner::new(position, 0, i32::MIN), sealed.bytes);
        loop {
            let position = walk.scanner().position;
            match walk.next_batch().await.with_context(|| format!("can't read {}", sealed.path().display()))? {
                Ok((_, header, batch)) => drop(producers.replay(&header, ControlRecord::of_batch(&header, batch), now_ms)),
                Err(Stop::End) => break,
                Err(stop) => {
                    return Err(SegmentError::Corrupt { path: sealed.path().to_owned(), position, what: stop.to_string() }.into());
                }
            }
        }
    }
    Ok(producers)
}

async fn aborted<D: Disk>(disk: &D, directory: &Path, base_offset: i64, is_there: bool) -> Result<Vec<AbortedTxn>> {
    if !is_there {
        return Ok(Vec::new());
    }
    let path = directory.join(file_name(base_offset, FileKind::TxnIndex));
    let bytes = read_whole(disk, &path).await.with_context(|| format!("can't read {}", path.display()))?;
    Ok(TxnIndex::decode(&bytes).with_context(|| format!("{} is damaged", path.display()))?.entries().to_vec())
}
