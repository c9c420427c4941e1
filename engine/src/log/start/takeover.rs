//! Partitions that a Kafka wrote: finding their directories, and the scan that takes them over.

use super::{
    super::LogError,
    image::Image,
    journals::Journaled,
    producers::Producers,
    recover::{Found, Outcome, Recovery, disk_error},
};
use crate::{
    batch::Scanner,
    disk::{Disk, write_whole},
    kafka::{CLUSTER_METADATA, LOG_START_CHECKPOINT, decode_offsets},
    partition::{
        PartitionSpec, SEGMENT_BYTES_MAX,
        directory::{self, Directory, log_path, read_text},
    },
    segment::{FileKind, OffsetIndex, Sealed, SegmentError, TxnIndex, file_name, parse_directory_name, store_indexes},
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// A partition's directory that a Kafka wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// The topic's name.
    pub topic: String,
    /// The partition's index.
    pub partition: i32,
    /// The topic's id, which is kept.
    pub topic_id: Uuid,
    /// The directory, relative to the data directory.
    pub directory: PathBuf,
}

/// The directories of the data directory that were copied in from a Kafka: `topic-N` with a `partition.metadata`, not
/// made by Thalweg and not among `known` (what the catalog has). Those that Kafka set aside (`-stray`, `-delete`,
/// `-future`) and its cluster metadata are left alone. Sorted by topic and partition.
///
/// # Errors
/// The disk's.
pub async fn find_foreign<D: Disk>(disk: &D, data_dir: &Path, known: &BTreeSet<PathBuf>) -> Result<Vec<Foreign>, LogError> {
    let mut foreign = Vec::new();
    let entries = match disk.list(data_dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(foreign),
        Err(source) => return Err(LogError::Disk { path: data_dir.to_path_buf(), source }),
    };
    for entry in entries.into_iter().filter(|entry| entry.is_dir && !known.contains(Path::new(&entry.name))) {
        let Some((topic, partition)) = parse_directory_name(&entry.name) else { continue };
        if topic == CLUSTER_METADATA {
            continue;
        }
        let path = data_dir.join(&entry.name);
        let found = directory::read(disk, &path).await.map_err(disk_error(&path))?;
        if let Some(Directory { topic_id: Some(topic_id), mark: None, .. }) = found {
            foreign.push(Foreign { topic: topic.to_owned(), partition, topic_id, directory: PathBuf::from(&entry.name) });
        }
    }
    foreign.sort();
    Ok(foreign)
}

/// Takes a directory over: bad indexes are rebuilt, the last segment is scanned from its start. Transactions that are
/// still open are aborted: nobody here could end them, and read_committed would never see anything behind them. They get markers, which are
/// there with the commit: only a marker holds the place of what compaction removes of them, and says to another Kafka how they ended. What
/// follows the last valid batch there was never acknowledged by that Kafka's recovery rules either.
pub(super) async fn take_over<D: Disk>(recovery: &Recovery<'_, D>, spec: PartitionSpec, found: Directory) -> Result<Outcome, LogError> {
    let disk = recovery.disk;
    let path = recovery.config.data_dir.join(&spec.directory);
    let (last, sealed) = found.files.segments.split_last().expect("a directory with data has a segment");
    for segment in sealed {
        let opened = Sealed::open(disk, &path, segment.base_offset).await.map_err(segment_error)?;
        if opened.rebuilt {
            store_indexes(disk, &path, &opened.indexes).await.map_err(disk_error(&path))?;
        }
    }
    let base = last.base_offset;
    let log = log_path(&path, base);
    let first = Scanner::new(0, base, i32::MIN).in_segment(base);
    let mut image = Image::open(disk, &log, first, Vec::new(), u64::MAX).await.map_err(disk_error(&log))?;
    let mut producers =
        Producers::read(disk, &path, found.files.snapshot_at(base), &Journaled::default(), i32::MAX).await.map_err(disk_error(&path))?;
    let scan = image.scan(first, i64::MAX, |header, batch| producers.push(header, batch)).await.map_err(disk_error(&log))?;
    if !scan.stop.is_end() {
        tracing::warn!("{} is cut at byte {} of {}: {}", log.display(), scan.end.position, image.file_bytes(), scan.stop);
    }
    // What a Kafka wrote was flushed by its stop or its recovery, or copied, by an import with a flush; what we wrote and no journal
    // names may be neither.
    let flushed = if found.mark.is_some() && !found.flushed { 0 } else { scan.end.position };
    recovery.settle(&mut image, flushed, scan.end.position).await.map_err(disk_error(&log))?;
    let markers = producers.abort_open(scan.end.next_offset);
    if !markers.is_empty() {
        tracing::warn!("{}: {} open transactions are aborted, since their coordinator is gone", path.display(), markers.len());
    }
    let added = markers.concat();
    let last_offset = scan.end.next_offset.saturating_add(markers.len() as i64 - 1);
    if !added.is_empty() && (scan.end.position + added.len() as u64 > SEGMENT_BYTES_MAX || last_offset - base > i64::from(i32::MAX)) {
        return Err(LogError::NoRoomForMarkers { path: log });
    }
    // A start that was cut off may have left one with markers that are not there, if that Kafka has gone on.
    if !producers.aborted.is_empty() || last.has(FileKind::TxnIndex) {
        let mut transactions = TxnIndex::default();
        producers.aborted.drain(..).for_each(|aborted| transactions.push(aborted));
        let path = path.join(file_name(base, FileKind::TxnIndex));
        write_whole(disk, &path, &transactions.encode()).await.map_err(disk_error(&path))?;
    }
    let first = found.files.segments[0].base_offset;
    let log_start = first.max(kafka_log_start(disk, &recovery.config.data_dir, &spec.directory).await?);
    let leftovers = Vec::new();
    let found = Found { spec, log_start, base, log, leftovers, producers, index: OffsetIndex::new(base) };
    Ok(Outcome { taken_over: true, added, ..recovery.conclude(found, image, scan).await? })
}

fn segment_error(error: SegmentError) -> LogError {
    match error {
        SegmentError::Disk { path, source } => LogError::Disk { path, source },
        SegmentError::Corrupt { path, position, what } => LogError::Damaged { path, what: format!("at byte {position}, {what}") },
    }
}

/// The log start that Kafka's checkpoint has for a directory, if the checkpoint was copied too; 0 otherwise.
async fn kafka_log_start<D: Disk>(disk: &D, data_dir: &Path, partition: &Path) -> Result<i64, LogError> {
    let path = data_dir.join(LOG_START_CHECKPOINT);
    let text = read_text(disk, &path).await.map_err(disk_error(&path))?.unwrap_or_default();
    let wanted = partition.to_str().and_then(parse_directory_name);
    let entries = decode_offsets(text.as_bytes()).unwrap_or_else(|error| {
        tracing::warn!("{} can't be read ({error}), and counts as empty", path.display());
        Vec::new()
    });
    let offset = entries.into_iter().find(|(topic, partition, _)| Some((*topic, *partition)) == wanted).map(|(_, _, offset)| offset);
    Ok(offset.unwrap_or(0))
}
