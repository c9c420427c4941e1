//! A sealed segment, opened to be read: it never changes again.

use super::{
    index::{Indexes, OffsetIndex, TimeIndex},
    names::{FileKind, file_name},
    snapshot::decode_snapshot,
    transactions::{AbortedTxn, OpenTransactions, TxnIndex},
    walk::Walk,
};
use crate::{
    batch::{ControlRecord, DECOMPRESSED_BYTES_MAX, HEADER_BYTES, Header, Records, Scanner, Stop, payload},
    disk::{Disk, Open, read_whole, write_whole},
};
use std::{
    cell::Cell,
    io,
    path::{Path, PathBuf},
};

/// A segment can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// A file operation failed.
    #[error("{path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// The disk's word.
        source: io::Error,
    },
    /// A batch is damaged.
    #[error("{path} is corrupt at position {position}: {what}; see segment-dump")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where, in bytes.
        position: u64,
        /// What is wrong.
        what: String,
    },
}

/// Whole batches of a segment, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRange {
    /// Where the first begins, in bytes.
    pub position: u64,
    /// Their length together, in bytes. 0 if none fits.
    pub bytes: u64,
    /// An offset above all of theirs, and not above those that follow.
    pub next_offset: i64,
}

/// Places that readers came to lately, so that a sequential reader is not looked up again.
const MEMOS: usize = 8;

/// A sealed segment, opened. Its descriptor is closed with its last owner.
pub struct Sealed<D: Disk> {
    /// What sendfile reads from.
    pub reader: D::Reader,
    /// Its first offset.
    pub base_offset: i64,
    /// Its log in bytes.
    pub bytes: u64,
    /// Its indexes.
    pub indexes: Indexes,
    /// Its index files were missing or could not be right, so they were rebuilt in memory, up to the end of the log:
    /// [`store_indexes`] keeps them. Where the log is damaged they are never kept: once it is restored they would be short, and the
    /// newest timestamp wrong.
    pub rebuilt: bool,
    path: PathBuf,
    memos: [Cell<(i64, u64)>; MEMOS],
    next_memo: Cell<usize>,
}

impl<D: Disk> Sealed<D> {
    /// Opens the segment with this base offset. Nothing is written, even if an index has to be rebuilt.
    ///
    /// # Errors
    /// The disk's. Damage in the log is found by those who read it.
    pub async fn open(disk: &D, directory: &Path, base_offset: i64) -> Result<Sealed<D>, SegmentError> {
        let path = directory.join(file_name(base_offset, FileKind::Log));
        let failed = |source| SegmentError::Disk { path: path.clone(), source };
        let bytes = async { disk.size(&disk.open(&path, Open::Existing).await?).await }.await.map_err(failed)?;
        let reader = disk.open_reader(&path).await.map_err(failed)?;
        let mut sealed = Sealed {
            reader,
            base_offset,
            bytes,
            indexes: Indexes::new(base_offset),
            rebuilt: false,
            path,
            memos: Default::default(),
            next_memo: Cell::new(0),
        };
        sealed.load_indexes(disk, directory).await?;
        Ok(sealed)
    }

    /// Its `.log`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn load_indexes(&mut self, disk: &D, directory: &Path) -> Result<(), SegmentError> {
        let file = |kind| directory.join(file_name(self.base_offset, kind));
        let offsets = existing(disk, &file(FileKind::Index)).await?;
        let offsets = offsets.and_then(|bytes| OffsetIndex::decode(self.base_offset, &bytes, self.bytes).ok());
        let times = existing(disk, &file(FileKind::TimeIndex)).await?;
        let times = times.and_then(|bytes| TimeIndex::decode(self.base_offset, &bytes).ok());
        // An empty time index is right only for a log without timestamps, which is rare enough to look.
        let times = times.filter(|times| self.bytes == 0 || !times.entries().is_empty());
        let transactions = match existing(disk, &file(FileKind::TxnIndex)).await? {
            None => Some(TxnIndex::default()),
            Some(bytes) => TxnIndex::decode(&bytes).ok(),
        };
        if let (Some(offsets), Some(times), Some(transactions)) = (offsets, times, transactions.clone())
            && self.agrees(disk, &offsets).await?
        {
            self.indexes = Indexes::sealed(offsets, times, transactions);
            return Ok(());
        }
        let open = match &transactions {
            Some(_) => None,
            None => {
                let producers = existing(disk, &file(FileKind::Snapshot)).await?.and_then(|bytes| decode_snapshot(&bytes).ok());
                Some(OpenTransactions::of(&producers.unwrap_or_default()))
            }
        };
        (self.indexes, self.rebuilt) = self.rebuild(disk, open).await?;
        if let Some(transactions) = transactions {
            self.indexes.transactions = transactions;
        }
        Ok(())
    }

    /// True if the last entry of the index points at a batch that begins at or below the entry's offset.
    async fn agrees(&self, disk: &D, offsets: &OffsetIndex) -> Result<bool, SegmentError> {
        let Some(last) = offsets.entries().last() else { return Ok(true) };
        let mut walk = self.walk(disk, u64::from(last.position));
        let header = walk.next_header().await.map_err(|source| self.failed(source))?;
        Ok(header.is_ok_and(|(_, header)| header.base_offset() <= self.base_offset + i64::from(last.relative_offset)))
    }

    /// The indexes as the log has them, up to the first batch whose header can't be; true if that is its end. With `open`, the
    /// transactions that were open at its base offset, also the aborted ones.
    async fn rebuild(&self, disk: &D, mut open: Option<OpenTransactions>) -> Result<(Indexes, bool), SegmentError> {
        let mut indexes = Indexes::new(self.base_offset);
        let mut walk = self.walk(disk, 0);
        let stop = loop {
            let (position, header) = match walk.next_header().await.map_err(|source| self.failed(source))? {
                Ok(found) => found,
                Err(stop) => break stop,
            };
            indexes.push(position, &header);
            if let Some(open) = &mut open {
                let control = match header.is_control() {
                    true => ControlRecord::of_batch(&header, &self.batch(disk, position, &header).await?),
                    false => None,
                };
                open.push(&header, control).into_iter().for_each(|aborted| indexes.transactions.push(aborted));
            }
        };
        indexes.seal();
        Ok((indexes, stop == Stop::End))
    }

    fn walk<'a>(&'a self, disk: &'a D, position: u64) -> Walk<'a, D> {
        let from = Scanner::new(position, self.base_offset, i32::MIN).in_segment(self.base_offset);
        Walk::new(disk, &self.reader, from, self.bytes)
    }

    fn failed(&self, source: io::Error) -> SegmentError {
        SegmentError::Disk { path: self.path.clone(), source }
    }

    fn corrupt(&self, position: u64, what: impl ToString) -> SegmentError {
        SegmentError::Corrupt { path: self.path.clone(), position, what: what.to_string() }
    }

    /// The next batch of a walk; `None` at the end of the log.
    async fn step(&self, walk: &mut Walk<'_, D>) -> Result<Option<(u64, Header)>, SegmentError> {
        match walk.next_header().await.map_err(|source| self.failed(source))? {
            Ok(found) => Ok(Some(found)),
            Err(Stop::End) => Ok(None),
            Err(stop) => Err(self.corrupt(walk.scanner().position, stop)),
        }
    }

    /// The bytes of the batch at `position`.
    async fn batch(&self, disk: &D, position: u64, header: &Header) -> Result<Vec<u8>, SegmentError> {
        let batch = disk.read_buffered(&self.reader, position, header.size()).await.map_err(|source| self.failed(source))?;
        if batch.len() == header.size() { Ok(batch) } else { Err(self.corrupt(position, "a batch is cut short")) }
    }

    /// The batch that holds `offset`, or the first one above it: its position and header. `None` if all are below.
    ///
    /// # Errors
    /// The disk's, and damage on the way.
    pub async fn find(&self, disk: &D, offset: i64) -> Result<Option<(u64, Header)>, SegmentError> {
        let memo = self.memos.iter().map(Cell::get).find(|memo| memo.0 == offset && memo.1 > 0);
        let mut walk = self.walk(disk, memo.map_or_else(|| self.indexes.offsets.lookup(offset), |memo| memo.1));
        while let Some((position, header)) = self.step(&mut walk).await? {
            if header.last_offset() >= offset {
                return Ok(Some((position, header)));
            }
        }
        Ok(None)
    }

    /// Whole batches from the one that holds `offset` on: at most `bytes_max` bytes (but with `at_least_one` the first
    /// batch, however large), all of whose offsets are below `limit`. `None` if no batch reaches `offset`.
    ///
    /// # Errors
    /// The disk's, and damage on the way.
    pub async fn range(
        &self,
        disk: &D,
        offset: i64,
        bytes_max: u64,
        at_least_one: bool,
        limit: i64,
    ) -> Result<Option<BatchRange>, SegmentError> {
        let Some((start, first)) = self.find(disk, offset).await? else { return Ok(None) };
        let mut range = BatchRange { position: start, bytes: 0, next_offset: first.base_offset() };
        if first.last_offset() >= limit {
            // Offsets that are damaged could hide for ever what lies below the limit: those of the batch behind tell.
            let mut walk = self.walk(disk, start);
            for _ in 0..2 {
                self.step(&mut walk).await?;
            }
            return Ok(Some(range));
        }
        if first.size() as u64 > bytes_max && !at_least_one {
            return Ok(Some(range));
        }
        range.bytes = first.size() as u64;
        range.next_offset = first.next_offset();
        // What the index knows to lie wholly within is not walked.
        let known = self.indexes.offsets.boundary(start.saturating_add(bytes_max), limit);
        let behind_first = start + range.bytes;
        let mut walk = self.walk(disk, known.max(behind_first));
        if known > behind_first {
            range.bytes = known - start;
        }
        loop {
            let (position, header) = match self.step(&mut walk).await {
                Ok(Some(found)) => found,
                Ok(None) => break,
                // What is whole goes out; who comes to the damage learns of it.
                Err(SegmentError::Corrupt { .. }) => break,
                Err(error) => return Err(error),
            };
            if position + header.size() as u64 - start > bytes_max || header.last_offset() >= limit {
                range.next_offset = range.next_offset.max(header.base_offset());
                self.remember(header.base_offset(), position);
                break;
            }
            range.bytes = position + header.size() as u64 - start;
            range.next_offset = header.next_offset();
        }
        Ok(Some(range))
    }

    fn remember(&self, offset: i64, position: u64) {
        let at = self.next_memo.get();
        self.memos[at].set((offset, position));
        self.next_memo.set((at + 1) % MEMOS);
    }

    /// Timestamp and offset of the first record at or above `offset_min` whose timestamp is at or above `timestamp`.
    ///
    /// # Errors
    /// The disk's, and damage on the way.
    pub async fn find_time(&self, disk: &D, timestamp: i64, offset_min: i64) -> Result<Option<(i64, i64)>, SegmentError> {
        if self.indexes.newest().is_none_or(|newest| newest.0 < timestamp) {
            return Ok(None);
        }
        let from = self.indexes.times.lookup(timestamp).max(offset_min);
        let mut walk = self.walk(disk, self.indexes.offsets.lookup(from));
        while let Some((position, header)) = self.step(&mut walk).await? {
            if header.max_timestamp() < timestamp || header.last_offset() < offset_min {
                continue;
            }
            let batch = self.batch(disk, position, &header).await?;
            if let Some(found) = first_at_or_after(&header, &batch, timestamp, offset_min).map_err(|what| self.corrupt(position, what))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The newest timestamp in ms; `None` if no record has one.
    #[must_use]
    pub fn max_timestamp(&self) -> Option<i64> {
        self.indexes.newest().map(|newest| newest.0)
    }

    /// The newest timestamp and the offset of the first record that has it; `None` if no record has one.
    ///
    /// # Errors
    /// The disk's, and damage on the way.
    pub async fn find_newest(&self, disk: &D) -> Result<Option<(i64, i64)>, SegmentError> {
        match self.max_timestamp() {
            Some(newest) => self.find_time(disk, newest, self.base_offset).await,
            None => Ok(None),
        }
    }

    /// Adds the aborted transactions that overlap the offsets from `from` up to but not including `to`, whose markers are
    /// in this segment. True if no later segment can hold another.
    pub fn aborted(&self, from: i64, to: i64, into: &mut Vec<AbortedTxn>) -> bool {
        self.indexes.transactions.collect(from, to, into)
    }

    /// The offset behind its last batch.
    ///
    /// # Errors
    /// The disk's, and damage behind the last index entry.
    pub async fn next_offset(&self, disk: &D) -> Result<i64, SegmentError> {
        let mut walk = self.walk(disk, self.indexes.offsets.lookup(i64::MAX));
        while self.step(&mut walk).await?.is_some() {}
        Ok(walk.scanner().next_offset)
    }
}

/// Timestamp and offset of the first record of `batch` at or above both bounds. A batch of which the records can't be
/// read is an error.
///
/// # Errors
/// What is wrong with the records.
pub fn first_at_or_after(header: &Header, batch: &[u8], timestamp: i64, offset_min: i64) -> Result<Option<(i64, i64)>, String> {
    let payload = payload(header, batch, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
    for record in Records::new(header, &payload) {
        let record = record.map_err(|error| error.to_string())?;
        let found = (record.timestamp(header), record.offset(header));
        if found.0 >= timestamp && found.1 >= offset_min {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A whole small file; `None` if there is none.
async fn existing<D: Disk>(disk: &D, path: &Path) -> Result<Option<Vec<u8>>, SegmentError> {
    match read_whole(disk, path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SegmentError::Disk { path: path.to_owned(), source }),
    }
}

/// Writes a segment's index files, durably. Without an aborted transaction there is no `.txnindex`.
///
/// # Errors
/// The disk's; each file is then either the old or the new one, whole.
pub async fn store_indexes<D: Disk>(disk: &D, directory: &Path, indexes: &Indexes) -> io::Result<()> {
    let file = |kind| directory.join(file_name(indexes.offsets.base_offset(), kind));
    write_whole(disk, &file(FileKind::Index), &indexes.offsets.encode()).await?;
    write_whole(disk, &file(FileKind::TimeIndex), &indexes.times.encode()).await?;
    if !indexes.transactions.entries().is_empty() {
        return write_whole(disk, &file(FileKind::TxnIndex), &indexes.transactions.encode()).await;
    }
    match disk.remove(&file(FileKind::TxnIndex)).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The newest timestamp of a segment's first batch, in ms; `None` without a batch.
///
/// # Errors
/// The disk's.
pub async fn first_timestamp<D: Disk>(disk: &D, directory: &Path, base_offset: i64) -> io::Result<Option<i64>> {
    let reader = disk.open_reader(&directory.join(file_name(base_offset, FileKind::Log))).await?;
    let bytes = disk.read_buffered(&reader, 0, HEADER_BYTES).await?;
    Ok(Header::read(&bytes).filter(|header| header.size() > 0).map(|header| header.max_timestamp()))
}
