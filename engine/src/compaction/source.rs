//! A sealed segment as a job sees it, and its batches.

use super::{
    job::{CleanError, at},
    progress::Progress,
};
use crate::{
    batch::{Header, Stop},
    disk::Disk,
    partition::{directory::log_path, state::SealedSegment},
    segment::{BatchStream, Pass},
};
use std::path::{Path, PathBuf};

/// A sealed segment as a job sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its first offset.
    pub base_offset: i64,
    /// Its size in bytes.
    pub bytes: u64,
    /// It has a `.txnindex`.
    pub has_transactions: bool,
}

impl From<&SealedSegment> for Source {
    fn from(segment: &SealedSegment) -> Source {
        Source { base_offset: segment.base_offset, bytes: segment.bytes, has_transactions: segment.has_transactions }
    }
}

/// The batches of a source, with its path for what is wrong with them.
pub(super) struct Batches<D: Disk> {
    path: PathBuf,
    pub stream: BatchStream<D>,
    /// Where the batch begins whose header came last.
    pub position: u64,
}

impl<D: Disk> Batches<D> {
    /// Those of the segment, but for those in `passes`, read as `progress` says.
    pub async fn open(
        disk: &D,
        directory: &Path,
        source: &Source,
        passes: Vec<Pass>,
        progress: &Progress,
    ) -> Result<Batches<D>, CleanError> {
        let path = log_path(directory, source.base_offset);
        let stream = BatchStream::open(disk, &path, source.base_offset, source.bytes, passes).await.map_err(at(&path))?;
        Ok(Batches { path, stream: stream.paced(progress.pace()), position: 0 })
    }

    /// The header of the next one.
    pub async fn next(&mut self) -> Result<Option<Header>, CleanError> {
        match self.stream.next_header().await.map_err(at(&self.path))? {
            Ok(header) => {
                self.position = self.stream.position() - header.size() as u64;
                Ok(Some(header))
            }
            Err(Stop::End) => Ok(None),
            Err(stop) => Err(self.corrupt(self.stream.position(), stop.to_string())),
        }
    }

    /// The bytes of the batch whose header came last.
    pub async fn batch(&mut self, header: &Header) -> Result<&[u8], CleanError> {
        let Batches { path, stream, position } = self;
        let corrupt = |stop: Stop| CleanError::Corrupt { path: path.clone(), position: *position, what: stop.to_string() };
        stream.batch(header).await.map_err(at(path))?.map_err(corrupt)
    }

    /// What is wrong with the batch at `position`.
    pub fn corrupt(&self, position: u64, what: String) -> CleanError {
        CleanError::Corrupt { path: self.path.clone(), position, what }
    }
}
