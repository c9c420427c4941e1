//! What is in a partition's directory.

use super::names::{FileKind, LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA, file_name, parse_file_name};
use crate::disk::Disk;
use std::{collections::BTreeMap, io, path::Path};

/// One segment's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFiles {
    /// Its first offset.
    pub base_offset: i64,
    /// Its `.log` in bytes, which may be allocated beyond what was written.
    pub log_bytes: u64,
    /// When its `.log` was last changed, in ms, if the disk knows.
    pub changed_ms: Option<i64>,
    /// Its other files, with their sizes in bytes.
    pub others: BTreeMap<FileKind, u64>,
}

impl SegmentFiles {
    /// True if it has a file of this kind.
    #[must_use]
    pub fn has(&self, kind: FileKind) -> bool {
        kind == FileKind::Log || self.others.contains_key(&kind)
    }
}

/// A partition's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionFiles {
    /// Its segments: those that have a `.log`, by base offset.
    pub segments: Vec<SegmentFiles>,
    /// Offsets that have a `.snapshot`, rising; also those without a segment.
    pub snapshots: Vec<i64>,
    /// Files of segments whose `.log` is gone: leftovers of a deletion that a crash cut short.
    pub orphans: Vec<String>,
    /// Names that an operation set aside: `.deleted`, `.cleaned`, `.swap` (Kafka), `.tmp`. They are no part of the log.
    pub set_aside: Vec<String>,
    /// It has a `leader-epoch-checkpoint`.
    pub has_epochs: bool,
    /// It has a `partition.metadata`.
    pub has_metadata: bool,
}

/// Endings of names that an operation has set aside.
const SET_ASIDE: [&str; 4] = [".deleted", ".cleaned", ".swap", ".tmp"];

impl PartitionFiles {
    /// Lists a directory. Other files and directories are left alone.
    ///
    /// # Errors
    /// The disk's: `NotFound` if there is no such directory.
    pub async fn list<D: Disk>(disk: &D, directory: &Path) -> io::Result<PartitionFiles> {
        let mut found = PartitionFiles::default();
        let mut others: BTreeMap<i64, BTreeMap<FileKind, u64>> = BTreeMap::new();
        for entry in disk.list(directory).await?.into_iter().filter(|entry| !entry.is_dir) {
            match parse_file_name(&entry.name) {
                Some((base_offset, FileKind::Log)) => {
                    found.segments.push(SegmentFiles {
                        base_offset,
                        log_bytes: entry.bytes,
                        changed_ms: entry.changed_ms,
                        others: BTreeMap::new(),
                    });
                }
                Some((base_offset, kind)) => {
                    others.entry(base_offset).or_default().insert(kind, entry.bytes);
                }
                None if SET_ASIDE.iter().any(|ending| entry.name.ends_with(ending)) => found.set_aside.push(entry.name),
                None => {
                    found.has_epochs |= entry.name == LEADER_EPOCH_CHECKPOINT;
                    found.has_metadata |= entry.name == PARTITION_METADATA;
                }
            }
        }
        found.segments.sort_by_key(|segment| segment.base_offset);
        found.snapshots = others.iter().filter(|(_, kinds)| kinds.contains_key(&FileKind::Snapshot)).map(|(base, _)| *base).collect();
        for segment in &mut found.segments {
            segment.others = others.remove(&segment.base_offset).unwrap_or_default();
        }
        // A clean stop leaves a snapshot at the log's end, where no segment begins yet: that is no orphan.
        found.orphans = others
            .iter()
            .flat_map(|(base, kinds)| kinds.keys().map(move |kind| (*base, *kind)))
            .filter(|(_, kind)| *kind != FileKind::Snapshot)
            .map(|(base, kind)| file_name(base, kind))
            .collect();
        Ok(found)
    }

    /// The segment whose offsets begin at or below `offset` and end above it, as far as names tell: its place in
    /// `segments`. `None` below the first.
    #[must_use]
    pub fn segment_of(&self, offset: i64) -> Option<usize> {
        self.segments.partition_point(|segment| segment.base_offset <= offset).checked_sub(1)
    }

    /// The highest offset at or below `offset` that has a snapshot.
    #[must_use]
    pub fn snapshot_at(&self, offset: i64) -> Option<i64> {
        self.snapshots.partition_point(|base| *base <= offset).checked_sub(1).map(|at| self.snapshots[at])
    }
}

/// Removes all files of a segment. The directory has still to be flushed.
///
/// # Errors
/// The disk's; it is no error if one of them is gone.
pub async fn remove_segment<D: Disk>(disk: &D, directory: &Path, base_offset: i64) -> io::Result<()> {
    for kind in FileKind::ALL {
        match disk.remove(&directory.join(file_name(base_offset, kind))).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
