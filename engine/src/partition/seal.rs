//! The end of a segment: cut to its exact length, completed with its other files, followed by the next one.
//!
//! The order is that of `JOURNAL.md`: the bytes are in the segment and flushed before this begins; then cut and fsync,
//! indexes, the snapshot of the new base, epochs, and last the new segment's empty file. Only then may a frame name it.
//! Without space the new file is removed again: a start must not find a segment that nothing was written to.

use super::{growth::Growth, state::ActiveFile};
use crate::{
    disk::{Disk, Open, write_whole},
    segment::{
        EpochStart, FileKind, Indexes, LEADER_EPOCH_CHECKPOINT, ProducerState, encode_epochs, encode_snapshot, file_name, remove_segment,
        store_indexes,
    },
};
use std::{io, path::PathBuf};

/// What is written when a segment ends.
pub struct Ending<D: Disk> {
    /// The partition's directory.
    pub directory: PathBuf,
    /// The active segment's file.
    pub file: D::File,
    /// Its exact length in bytes.
    pub bytes: u64,
    /// Its indexes, complete.
    pub indexes: Indexes,
    /// The offset behind it: the next segment's base.
    pub next_base: i64,
    /// The producers as of there.
    pub producers: Vec<ProducerState>,
    /// The epochs as of there.
    pub epochs: Vec<EpochStart>,
}

/// Why a segment could not be ended.
pub enum EndError {
    /// The segment itself failed: its partition goes offline.
    Segment(io::Error),
    /// The files beside it failed, most likely for want of space: it may be tried again.
    Beside(io::Error),
}

impl<D: Disk> Ending<D> {
    /// Cuts the segment to its length and writes its other files.
    ///
    /// # Errors
    /// [`EndError`].
    pub async fn complete(&self, disk: &D) -> Result<(), EndError> {
        disk.truncate(&self.file, self.bytes).await.map_err(EndError::Segment)?;
        disk.sync(&self.file).await.map_err(EndError::Segment)?;
        self.write_beside(disk).await.map_err(EndError::Beside)
    }

    async fn write_beside(&self, disk: &D) -> io::Result<()> {
        store_indexes(disk, &self.directory, &self.indexes).await?;
        let snapshot = self.directory.join(file_name(self.next_base, FileKind::Snapshot));
        write_whole(disk, &snapshot, &encode_snapshot(&self.producers)).await?;
        let epochs = self.directory.join(LEADER_EPOCH_CHECKPOINT);
        write_whole(disk, &epochs, encode_epochs(&self.epochs).as_bytes()).await
    }

    /// Creates the next segment, empty and durable.
    ///
    /// # Errors
    /// [`EndError::Beside`]: then it is gone again.
    pub async fn begin_next(&self, disk: &D) -> Result<ActiveFile<D>, EndError> {
        match self.create_next(disk).await {
            Ok(active) => Ok(active),
            Err(error) => {
                // Best effort: a start removes it as well, since nothing names it.
                let _ = remove_segment(disk, &self.directory, self.next_base).await;
                let _ = disk.sync_dir(&self.directory).await;
                Err(EndError::Beside(error))
            }
        }
    }

    async fn create_next(&self, disk: &D) -> io::Result<ActiveFile<D>> {
        let path = self.directory.join(file_name(self.next_base, FileKind::Log));
        let file = disk.open(&path, Open::Create).await?;
        // Left by an attempt that failed half-way.
        disk.truncate(&file, 0).await?;
        disk.sync(&file).await?;
        disk.sync_dir(&self.directory).await?;
        let reader = disk.open_reader(&path).await?;
        Ok(ActiveFile { path, file, reader, allocated: 0, submitted: 0, growth: Growth::new() })
    }
}
