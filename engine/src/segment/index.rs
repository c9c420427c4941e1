//! Kafka's index files in memory: offsets to positions (`.index`) and timestamps to offsets (`.timeindex`).
//!
//! An entry may be left out anywhere, so one per [`INDEX_INTERVAL_BYTES`] is enough: a reader scans on from the last
//! entry that is not too far.

use super::transactions::TxnIndex;
use crate::batch::{Header, NO_TIMESTAMP};

/// Log bytes between two entries. Kafka's default is 4 KiB, but this lives in memory: 4 KiB over 50 GB would be 244 MB.
pub const INDEX_INTERVAL_BYTES: u64 = 64 << 10;
/// The size of a `.index` entry.
pub const INDEX_ENTRY_BYTES: usize = 8;
/// The size of a `.timeindex` entry.
pub const TIME_ENTRY_BYTES: usize = 12;

/// An index file that can't be right. It is rebuilt from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The file is not a whole number of entries.
    #[error("{bytes} bytes are not a whole number of entries of {entry}")]
    Length {
        /// The file, in bytes.
        bytes: usize,
        /// An entry, in bytes.
        entry: usize,
    },
    /// An entry is not above the one before it, or out of its bounds. Zeros of a preallocated file are such entries.
    #[error("entry {entry} is out of order or out of bounds")]
    Entry {
        /// Which, counted from 0.
        entry: usize,
    },
    /// The format version of an entry is unknown.
    #[error("entry {entry} has version {version}")]
    Version {
        /// Which, counted from 0.
        entry: usize,
        /// Its version.
        version: i16,
    },
}

/// One `.index` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The last offset of a batch, less the segment's base offset.
    pub relative_offset: u32,
    /// Where this batch begins in the log, in bytes.
    pub position: u32,
}

/// `.index`: which batch begins where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetIndex {
    base_offset: i64,
    entries: Vec<IndexEntry>,
}

impl OffsetIndex {
    /// Empty.
    #[must_use]
    pub fn new(base_offset: i64) -> OffsetIndex {
        OffsetIndex { base_offset, entries: Vec::new() }
    }

    /// Adds a batch. It is left out where it can't be expressed: offsets and positions only rise, and fit 31 bits.
    pub fn push(&mut self, last_offset: i64, position: u64) {
        let entry = last_offset.checked_sub(self.base_offset).and_then(|relative| u32::try_from(relative).ok());
        let (Some(relative_offset), Ok(position)) = (entry, u32::try_from(position)) else { return };
        let fits = relative_offset <= i32::MAX as u32 && position <= i32::MAX as u32 && position > 0;
        let rises = self.entries.last().is_none_or(|last| last.relative_offset < relative_offset && last.position < position);
        if fits && rises {
            self.entries.push(IndexEntry { relative_offset, position });
        }
    }

    /// Where to begin looking for `offset`: at a batch that is not above it. 0 below the first entry.
    #[must_use]
    pub fn lookup(&self, offset: i64) -> u64 {
        let relative = offset.saturating_sub(self.base_offset);
        let above = self.entries.partition_point(|entry| i64::from(entry.relative_offset) <= relative);
        above.checked_sub(1).map_or(0, |at| u64::from(self.entries[at].position))
    }

    /// The last batch boundary at or below `position` that the index knows and before which all offsets are below
    /// `offset_limit`; 0 if it knows none.
    #[must_use]
    pub fn boundary(&self, position: u64, offset_limit: i64) -> u64 {
        let limit = offset_limit.saturating_sub(self.base_offset);
        let above = self.entries.partition_point(|entry| u64::from(entry.position) <= position && i64::from(entry.relative_offset) < limit);
        above.checked_sub(1).map_or(0, |at| u64::from(self.entries[at].position))
    }

    /// Its entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// The base offset of its segment.
    #[must_use]
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Drops the entries of batches that begin at or behind `position`.
    pub fn truncate(&mut self, position: u64) {
        let keep = self.entries.partition_point(|entry| u64::from(entry.position) < position);
        self.entries.truncate(keep);
    }

    /// The file's content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| [entry.relative_offset.to_be_bytes(), entry.position.to_be_bytes()]).flatten().collect()
    }

    /// Reads a file that belongs to a log of `log_bytes`.
    ///
    /// # Errors
    /// [`IndexError`]: rebuild it.
    pub fn decode(base_offset: i64, bytes: &[u8], log_bytes: u64) -> Result<OffsetIndex, IndexError> {
        let mut index = OffsetIndex::new(base_offset);
        for (at, entry) in whole_entries::<INDEX_ENTRY_BYTES>(bytes)?.enumerate() {
            let relative = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let position = u32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let offset = base_offset.checked_add(i64::from(relative)).ok_or(IndexError::Entry { entry: at })?;
            index.push(offset, u64::from(position));
            if index.entries.len() != at + 1 || u64::from(position) >= log_bytes {
                return Err(IndexError::Entry { entry: at });
            }
        }
        Ok(index)
    }
}

/// One `.timeindex` entry: no record at or before the offset has a newer timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// The newest timestamp up to here, in ms.
    pub timestamp: i64,
    /// The last offset of the batch that has it, less the segment's base offset.
    pub relative_offset: u32,
}

/// `.timeindex`: from where on timestamps are newer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeIndex {
    base_offset: i64,
    entries: Vec<TimeEntry>,
}

impl TimeIndex {
    /// Empty.
    #[must_use]
    pub fn new(base_offset: i64) -> TimeIndex {
        TimeIndex { base_offset, entries: Vec::new() }
    }

    /// Adds an entry if the timestamp is newer than that of the last one.
    pub fn push(&mut self, timestamp: i64, offset: i64) {
        let relative = offset.checked_sub(self.base_offset).and_then(|relative| u32::try_from(relative).ok());
        let Some(relative_offset) = relative.filter(|relative| *relative <= i32::MAX as u32) else { return };
        let last = self.entries.last();
        if timestamp > last.map_or(NO_TIMESTAMP, |last| last.timestamp) && last.is_none_or(|last| last.relative_offset < relative_offset) {
            self.entries.push(TimeEntry { timestamp, relative_offset });
        }
    }

    /// The offset from which to look for a timestamp at or above `timestamp`: all before it are older.
    #[must_use]
    pub fn lookup(&self, timestamp: i64) -> i64 {
        let above = self.entries.partition_point(|entry| entry.timestamp <= timestamp);
        above.checked_sub(1).map_or(self.base_offset, |at| self.base_offset + i64::from(self.entries[at].relative_offset))
    }

    /// The last entry's timestamp and offset: of a sealed segment the newest timestamp and where it is.
    #[must_use]
    pub fn newest(&self) -> Option<(i64, i64)> {
        self.entries.last().map(|entry| (entry.timestamp, self.base_offset + i64::from(entry.relative_offset)))
    }

    /// Its entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[TimeEntry] {
        &self.entries
    }

    /// Drops the entries at or above `offset`.
    pub fn truncate(&mut self, offset: i64) {
        let base = self.base_offset;
        let keep = self.entries.partition_point(|entry| base + i64::from(entry.relative_offset) < offset);
        self.entries.truncate(keep);
    }

    /// The file's content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * TIME_ENTRY_BYTES);
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.timestamp.to_be_bytes());
            bytes.extend_from_slice(&entry.relative_offset.to_be_bytes());
        }
        bytes
    }

    /// Reads a file. Kafka begins some with an entry that says nothing (timestamp -1 or 0 at offset 0); it is dropped.
    ///
    /// # Errors
    /// [`IndexError`]: rebuild it.
    pub fn decode(base_offset: i64, bytes: &[u8]) -> Result<TimeIndex, IndexError> {
        let mut index = TimeIndex::new(base_offset);
        for (at, entry) in whole_entries::<TIME_ENTRY_BYTES>(bytes)?.enumerate() {
            let (timestamp, relative) = entry.split_at(8);
            let timestamp = i64::from_be_bytes(timestamp.try_into().expect("8 bytes"));
            let relative = u32::from_be_bytes(relative.try_into().expect("4 bytes"));
            let before = index.entries.len();
            let offset = base_offset.checked_add(i64::from(relative)).ok_or(IndexError::Entry { entry: at })?;
            index.push(timestamp, offset);
            let says_nothing = at == 0 && timestamp == NO_TIMESTAMP;
            if index.entries.len() == before && !says_nothing {
                return Err(IndexError::Entry { entry: at });
            }
        }
        Ok(index)
    }
}

fn whole_entries<const N: usize>(bytes: &[u8]) -> Result<impl Iterator<Item = &[u8; N]>, IndexError> {
    let (entries, rest) = bytes.as_chunks::<N>();
    if rest.is_empty() { Ok(entries.iter()) } else { Err(IndexError::Length { bytes: bytes.len(), entry: N }) }
}

/// The indexes of one segment, built batch by batch as it grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    /// `.index`.
    pub offsets: OffsetIndex,
    /// `.timeindex`.
    pub times: TimeIndex,
    /// `.txnindex`.
    pub transactions: TxnIndex,
    newest: Option<(i64, i64)>,
    bytes_since_entry: u64,
}

impl Indexes {
    /// Those of an empty segment.
    #[must_use]
    pub fn new(base_offset: i64) -> Indexes {
        Indexes {
            offsets: OffsetIndex::new(base_offset),
            times: TimeIndex::new(base_offset),
            transactions: TxnIndex::default(),
            newest: None,
            bytes_since_entry: 0,
        }
    }

    /// Those of a sealed segment, from its files.
    #[must_use]
    pub fn sealed(offsets: OffsetIndex, times: TimeIndex, transactions: TxnIndex) -> Indexes {
        let newest = times.newest();
        Indexes { offsets, times, transactions, newest, bytes_since_entry: 0 }
    }

    /// Takes in a batch that begins at `position`. Batches come in order. (Aborted transactions are for whoever tracks
    /// producers to push to `transactions`.)
    pub fn push(&mut self, position: u64, header: &Header) {
        let (timestamp, last_offset) = (header.max_timestamp(), header.last_offset());
        if timestamp > self.newest.map_or(NO_TIMESTAMP, |newest| newest.0) {
            self.newest = Some((timestamp, last_offset));
        }
        if self.bytes_since_entry > INDEX_INTERVAL_BYTES {
            self.offsets.push(last_offset, position);
            self.push_newest();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.size() as u64;
    }

    /// Completes them when the segment is sealed: the last time entry must be the segment's newest timestamp.
    pub fn seal(&mut self) {
        self.push_newest();
    }

    fn push_newest(&mut self) {
        if let Some((timestamp, offset)) = self.newest {
            self.times.push(timestamp, offset);
        }
    }

    /// The newest timestamp in ms and the last offset of the first batch that has it; `None` if no batch has any.
    #[must_use]
    pub fn newest(&self) -> Option<(i64, i64)> {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;
    use proptest::prelude::*;

    fn pushed(batches: &[(i64, i64, usize)]) -> (Indexes, Vec<(u64, i64, i64)>) {
        let (mut indexes, mut position, mut all) = (Indexes::new(100), 0, Vec::new());
        for (offset, timestamp, size) in batches {
            let batch = BatchBuilder::new().at(*offset, 0).record(*timestamp, None, Some(&vec![1; *size])).build();
            indexes.push(position, &Header::read(&batch).expect("whole"));
            all.push((position, *offset, *timestamp));
            position += batch.len() as u64;
        }
        indexes.seal();
        (indexes, all)
    }

    proptest! {
        #[test]
        fn lookups_never_begin_behind_what_they_look_for(
            batches in prop::collection::vec((1i64..50, 0i64..1_000, 1usize..100_000), 1..80),
            wanted_time in 0i64..1_000,
        ) {
            let mut offset = 100;
            let batches: Vec<_> = batches.into_iter().map(|(gap, time, size)| { offset += gap; (offset, time, size) }).collect();
            let (indexes, all) = pushed(&batches);
            for (position, offset, _) in &all {
                let start = indexes.offsets.lookup(*offset);
                prop_assert!(start <= *position && all.iter().any(|batch| batch.0 == start));
                let boundary = indexes.offsets.boundary(*position, *offset);
                prop_assert!(boundary <= *position && all.iter().any(|batch| batch.0 == boundary));
            }
            if let Some((_, offset, _)) = all.iter().find(|batch| batch.2 >= wanted_time) {
                prop_assert!(indexes.times.lookup(wanted_time) <= *offset);
            }
            let newest = all.iter().map(|batch| batch.2).max().expect("not empty");
            prop_assert_eq!(indexes.newest().map(|newest| newest.0), Some(newest));
            prop_assert_eq!(indexes.times.newest(), indexes.newest());
            let bytes = indexes.offsets.encode();
            prop_assert_eq!(OffsetIndex::decode(100, &bytes, u64::MAX), Ok(indexes.offsets.clone()));
            prop_assert_eq!(TimeIndex::decode(100, &indexes.times.encode()), Ok(indexes.times));
        }

        #[test]
        fn any_bytes_are_an_index_or_an_error(bytes: Vec<u8>) {
            let _ = OffsetIndex::decode(i64::MAX, &bytes, 1_000);
            let _ = TimeIndex::decode(i64::MAX, &bytes);
            let _ = TxnIndex::decode(&bytes);
        }
    }

    #[test]
    fn a_preallocated_tail_is_not_taken_for_entries() {
        let mut index = OffsetIndex::new(0);
        index.push(9, 70_000);
        let mut bytes = index.encode();
        bytes.extend_from_slice(&[0; 800]);
        assert_eq!(OffsetIndex::decode(0, &bytes, 100_000), Err(IndexError::Entry { entry: 1 }));
        assert_eq!(OffsetIndex::decode(0, &[0; 800], 100_000), Err(IndexError::Entry { entry: 0 }));
        assert_eq!(OffsetIndex::decode(0, &[0; 7], 100_000), Err(IndexError::Length { bytes: 7, entry: 8 }));
        assert_eq!(TimeIndex::decode(0, &[0; 1_200]), Err(IndexError::Entry { entry: 1 }));
    }

    #[test]
    fn an_entry_beyond_the_log_is_refused() {
        let mut index = OffsetIndex::new(0);
        index.push(9, 70_000);
        assert!(OffsetIndex::decode(0, &index.encode(), 70_001).is_ok());
        assert_eq!(OffsetIndex::decode(0, &index.encode(), 70_000), Err(IndexError::Entry { entry: 0 }));
    }
}
