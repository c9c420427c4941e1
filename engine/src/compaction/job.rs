//! One round of cleaning, from the decision to the files that are ready to be swapped in.

use super::{
    filter::{Filter, Gone, Outcome},
    key_map::KeyMap,
    plan,
    progress::Progress,
    transactions::Transactions,
};
use crate::{
    batch::{ControlRecord, DECOMPRESSED_BYTES_MAX, Header, Record, Records, Scanner, Stop, payload},
    disk::{BLOCK, CHUNK_BYTES, Chunk, Disk, Open, read_whole},
    ids::PartitionId,
    partition::directory::log_path,
    segment::{AbortedTxn, FileKind, Indexes, SegmentError, TxnIndex, Walk, file_name, swap::cleaned_name},
};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Where jobs write, in the data directory. A start removes it.
pub const SCRATCH: &str = "cleaning";
/// By how much the file of a cleaned segment grows at a time, in bytes.
const ALLOCATION_BYTES: u64 = 16 << 20;

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

/// The last that is known of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Its epoch.
    pub epoch: i16,
    /// The offset of its last record; `None` if only markers are left.
    pub data_offset: Option<i64>,
}

/// A round of cleaning of one partition. Plain data: it can be sent to another thread.
#[derive(Clone, Debug)]
pub struct Job {
    /// The partition.
    pub partition: PartitionId,
    /// Its directory.
    pub directory: PathBuf,
    /// Where this job writes, below [`SCRATCH`].
    pub scratch: PathBuf,
    /// The segments to clean, in order, from the first of the log on.
    pub segments: Vec<Source>,
    /// The offset behind the last of them.
    pub end: i64,
    /// The first offset that was not cleaned yet.
    pub first_dirty: i64,
    /// Sealed segments behind them that have a `.txnindex`: markers of transactions that began before.
    pub later: Vec<i64>,
    /// Aborted transactions whose marker is in the active segment.
    pub aborted: Vec<AbortedTxn>,
    /// The producers that the partition remembers.
    pub producers: BTreeMap<i64, LastRecord>,
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// The clock, in ms.
    pub now_ms: i64,
    /// Keys that are remembered at most: what has more is cleaned in several rounds.
    pub keys_max: usize,
    /// The secret of its hashes: random.
    pub secret: (u64, u64),
    /// Bytes of log that it has read so far, of [`Job::bytes_to_read`], for whoever watches.
    pub progress: Progress,
}

/// Segments that become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Their base offsets. The first one is that of the new segment.
    pub bases: Vec<i64>,
    /// Their bytes.
    pub bytes_before: u64,
    /// The new segment's bytes.
    pub bytes: u64,
    /// The new segment has aborted transactions.
    pub has_transactions: bool,
}

/// What a job has done: files that wait to be swapped in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The groups that have changed.
    pub groups: Vec<Group>,
    /// The log is clean below this offset.
    pub clean_to: i64,
    /// There were more keys than could be remembered: another round is to follow.
    pub is_partial: bool,
    /// Records that were read, and that stayed.
    pub records: (u64, u64),
    /// Why the others went.
    pub gone: Gone,
    /// Bytes before, and after, of all segments that were looked at.
    pub bytes: (u64, u64),
}

/// A round that failed: nothing was changed. Why is what a segment can fail of.
pub type CleanError = SegmentError;

fn at(path: &Path) -> impl Fn(io::Error) -> CleanError + use<> {
    let path = path.to_path_buf();
    move |source| CleanError::Disk { path: path.clone(), source }
}

/// The keys of the dirty part, as far as they fitted.
struct Dirty {
    keys: KeyMap,
    end_offset: i64,
    is_partial: bool,
}

impl Job {
    /// Bytes of log that it reads if it gets to its end: what is clean already once, what is dirty twice.
    #[must_use]
    pub fn bytes_to_read(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes * if segment.base_offset < self.first_dirty { 1 } else { 2 }).sum()
    }

    /// Runs it: reads the segments twice, writes what is to take their place into the scratch directory, durably.
    ///
    /// # Errors
    /// [`CleanError`]: nothing of the log has changed. What was written is removed by [`discard`].
    pub async fn run<D: Disk>(&self, disk: &D) -> Result<Cleaned, CleanError> {
        discard(disk, &self.scratch).await.map_err(at(&self.scratch))?;
        for path in self.scratch.parent().into_iter().chain([self.scratch.as_path()]) {
            disk.create_dir(path).await.map_err(at(path))?;
        }
        let aborted = self.all_aborted(disk).await?;
        let dirty = self.dirty(disk, aborted.clone()).await?;
        let filter = Filter {
            keys: &dirty.keys,
            end_offset: dirty.end_offset,
            round_end: self.end,
            producers: &self.producers,
            now_ms: self.now_ms,
            delete_retention_ms: self.delete_retention_ms,
        };
        let count = self.segments.partition_point(|segment| segment.base_offset < dirty.end_offset);
        let sizes: Vec<_> = self.segments[..count].iter().map(|segment| (segment.base_offset, segment.bytes)).collect();
        let end = self.segments.get(count).map_or(self.end, |next| next.base_offset);
        let mut cleaned = Cleaned { clean_to: dirty.end_offset, is_partial: dirty.is_partial, ..Cleaned::default() };
        let mut transactions = Transactions::new(aborted);
        let mut rest = &self.segments[..count];
        for count in plan::groups(&sizes, end, self.segment_bytes) {
            let (group, others) = rest.split_at(count);
            rest = others;
            self.clean(disk, group, &filter, &mut transactions, &mut cleaned).await?;
        }
        disk.sync_dir(&self.scratch).await.map_err(at(&self.scratch))?;
        Ok(cleaned)
    }

    /// The aborted transactions that have records in these segments.
    async fn all_aborted<D: Disk>(&self, disk: &D) -> Result<Vec<AbortedTxn>, CleanError> {
        let mut all = self.aborted.clone();
        let with = self.segments.iter().filter(|segment| segment.has_transactions).map(|segment| segment.base_offset);
        for base in with.chain(self.later.iter().copied()) {
            let path = self.directory.join(file_name(base, FileKind::TxnIndex));
            let bytes = match read_whole(disk, &path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.map_err(at(&path))?,
            };
            // Without it nobody could say what was aborted: then nothing is cleaned.
            let index = TxnIndex::decode(&bytes).map_err(|error| CleanError::Corrupt { path, position: 0, what: error.to_string() })?;
            all.extend_from_slice(index.entries());
        }
        Ok(all)
    }

    /// Reads the dirty part, and notes the last offset of each key.
    async fn dirty<D: Disk>(&self, disk: &D, aborted: Vec<AbortedTxn>) -> Result<Dirty, CleanError> {
        let span = usize::try_from(self.end - self.first_dirty).unwrap_or(usize::MAX);
        let mut keys = KeyMap::new(self.keys_max.min(span), self.secret);
        let mut transactions = Transactions::new(aborted);
        let next = |index: usize| self.segments.get(index + 1).map_or(self.end, |next| next.base_offset);
        let mut end_offset = self.first_dirty;
        for (index, segment) in self.segments.iter().enumerate().filter(|(index, _)| next(*index) > self.first_dirty) {
            let path = log_path(&self.directory, segment.base_offset);
            let reader = disk.open_reader(&path).await.map_err(at(&path))?;
            let mut walk = Walk::new(disk, &reader, Scanner::new(0, segment.base_offset, i32::MIN), segment.bytes);
            while let Some((position, header, batch)) = next_batch(&mut walk, &path).await? {
                self.progress.add(header.size());
                let is_aborted = match header.is_control() {
                    true => {
                        transactions.marker(&header, ControlRecord::of_batch(&header, batch));
                        true
                    }
                    false => transactions.is_aborted(&header),
                };
                if header.last_offset() < self.first_dirty {
                    continue;
                }
                if !is_aborted {
                    let corrupt = |what| CleanError::Corrupt { path: path.clone(), position, what };
                    if !note(&mut keys, &header, batch, self.first_dirty).map_err(corrupt)? {
                        return Ok(Dirty { keys, end_offset, is_partial: true });
                    }
                }
                end_offset = header.next_offset();
            }
            end_offset = next(index);
        }
        Ok(Dirty { keys, end_offset: end_offset.max(self.first_dirty), is_partial: false })
    }

    /// Cleans one group into one new segment. Where nothing changes, nothing is left to be swapped in.
    async fn clean<D: Disk>(
        &self,
        disk: &D,
        group: &[Source],
        filter: &Filter<'_>,
        transactions: &mut Transactions,
        cleaned: &mut Cleaned,
    ) -> Result<(), CleanError> {
        let mut writer = Writer::create(disk, &self.scratch, group[0].base_offset).await?;
        let mut is_same = group.len() == 1;
        for segment in group {
            let path = log_path(&self.directory, segment.base_offset);
            let reader = disk.open_reader(&path).await.map_err(at(&path))?;
            let mut walk = Walk::new(disk, &reader, Scanner::new(0, segment.base_offset, i32::MIN), segment.bytes);
            while let Some((position, header, batch)) = next_batch(&mut walk, &path).await? {
                let corrupt = |what| CleanError::Corrupt { path: path.clone(), position, what };
                self.progress.add(header.size());
                let (outcome, aborted) = filter.judge(&header, batch, transactions, &mut cleaned.gone).map_err(corrupt)?;
                cleaned.records.0 += header.record_count().max(0) as u64;
                match outcome {
                    Outcome::Same => {
                        cleaned.records.1 += header.record_count().max(0) as u64;
                        writer.push(disk, &header, batch).await?;
                    }
                    Outcome::Rewritten(batch) => {
                        let header = Header::read(&batch).expect("a whole batch");
                        cleaned.records.1 += header.record_count() as u64;
                        writer.push(disk, &header, &batch).await?;
                        is_same = false;
                    }
                    Outcome::Gone => is_same = false,
                }
                aborted.into_iter().for_each(|aborted| writer.indexes.transactions.push(aborted));
            }
        }
        let bytes_before = group.iter().map(|segment| segment.bytes).sum();
        cleaned.bytes.0 += bytes_before;
        let has_transactions = !writer.indexes.transactions.entries().is_empty();
        let bytes = writer.finish(disk).await?;
        cleaned.bytes.1 += bytes;
        if is_same && has_transactions == group[0].has_transactions {
            // A log that is clean already must not need twice its space.
            for kind in FileKind::ALL {
                let path = self.scratch.join(cleaned_name(group[0].base_offset, kind));
                match disk.remove(&path).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
                    _ => {}
                }
            }
            return Ok(());
        }
        let bases = group.iter().map(|segment| segment.base_offset).collect();
        cleaned.groups.push(Group { bases, bytes_before, bytes, has_transactions });
        Ok(())
    }
}

/// Notes the keys of a batch. False if there is no room for all of them, and none is noted then.
fn note(keys: &mut KeyMap, header: &Header, batch: &[u8], first_dirty: i64) -> Result<bool, String> {
    let records = payload(header, batch, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
    let is_noted = |record: &Record<'_>| record.key.is_some() && record.offset(header) >= first_dirty;
    // There are never more of them than the header says, which is a client's word: where there is no room for that many they
    // are counted, and memory is taken for those that are there.
    if !keys.has_room(header.record_count().max(0) as usize) {
        let mut count = 0;
        for record in Records::new(header, &records) {
            count += usize::from(is_noted(&record.map_err(|error| error.to_string())?));
        }
        if !keys.has_room(count) {
            if !keys.is_empty() {
                return Ok(false);
            }
            keys.reserve(count);
        }
    }
    for record in Records::new(header, &records) {
        let record = record.map_err(|error| error.to_string())?;
        if is_noted(&record) {
            keys.put(record.key.expect("it has one"), record.offset(header));
        }
    }
    Ok(true)
}

async fn next_batch<'w, D: Disk>(walk: &'w mut Walk<'_, D>, path: &Path) -> Result<Option<(u64, Header, &'w [u8])>, CleanError> {
    let position = walk.scanner().position;
    match walk.next_batch().await.map_err(at(path))? {
        Ok(found) => Ok(Some(found)),
        Err(Stop::End) => Ok(None),
        Err(stop) => Err(CleanError::Corrupt { path: path.to_path_buf(), position, what: stop.to_string() }),
    }
}

/// Writes one cleaned segment.
struct Writer<D: Disk> {
    scratch: PathBuf,
    path: PathBuf,
    file: D::File,
    indexes: Indexes,
    buffer: Vec<u8>,
    /// Bytes that are in the file.
    written: u64,
    allocated: u64,
}

impl<D: Disk> Writer<D> {
    async fn create(disk: &D, scratch: &Path, base_offset: i64) -> Result<Writer<D>, CleanError> {
        let path = scratch.join(cleaned_name(base_offset, FileKind::Log));
        let file = disk.open(&path, Open::Create).await.map_err(at(&path))?;
        let indexes = Indexes::new(base_offset);
        Ok(Writer { scratch: scratch.to_path_buf(), path, file, indexes, buffer: Vec::new(), written: 0, allocated: 0 })
    }

    async fn push(&mut self, disk: &D, header: &Header, batch: &[u8]) -> Result<(), CleanError> {
        self.indexes.push(self.written + self.buffer.len() as u64, header);
        self.buffer.extend_from_slice(batch);
        while self.buffer.len() >= CHUNK_BYTES {
            self.flush_part(disk, CHUNK_BYTES).await?;
        }
        Ok(())
    }

    /// Writes the first `length` bytes of the buffer, padded to whole blocks.
    async fn flush_part(&mut self, disk: &D, length: usize) -> Result<(), CleanError> {
        let end = (self.written + length as u64).next_multiple_of(BLOCK);
        if end > self.allocated {
            self.allocated = end.max(self.allocated + ALLOCATION_BYTES);
            disk.allocate(&self.file, self.allocated).await.map_err(at(&self.path))?;
        }
        let slice = Chunk::padded(&self.buffer[..length]);
        disk.write(&self.file, self.written, vec![slice]).await.map_err(at(&self.path))?;
        self.buffer.drain(..length);
        self.written += length as u64;
        Ok(())
    }

    /// Completes log and indexes, durably but for their names. Returns the log's bytes.
    async fn finish(mut self, disk: &D) -> Result<u64, CleanError> {
        if !self.buffer.is_empty() {
            self.flush_part(disk, self.buffer.len()).await?;
        }
        disk.truncate(&self.file, self.written).await.map_err(at(&self.path))?;
        disk.sync(&self.file).await.map_err(at(&self.path))?;
        self.indexes.seal();
        let (base, indexes) = (self.indexes.offsets.base_offset(), &self.indexes);
        let files = [
            (FileKind::Index, indexes.offsets.encode()),
            (FileKind::TimeIndex, indexes.times.encode()),
            // Also an empty one: it takes the place of the one that is there.
            (FileKind::TxnIndex, indexes.transactions.encode()),
        ];
        for (kind, bytes) in files {
            let path = self.scratch.join(cleaned_name(base, kind));
            write_synced(disk, &path, &bytes).await.map_err(at(&path))?;
        }
        Ok(self.written)
    }
}

/// Writes a whole small file, durable but for its name.
async fn write_synced<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, Open::Create).await?;
    let mut position = 0;
    for part in bytes.chunks(CHUNK_BYTES) {
        disk.write(&file, position, vec![Chunk::padded(part)]).await?;
        position += part.len() as u64;
    }
    disk.truncate(&file, bytes.len() as u64).await?;
    disk.sync(&file).await
}

/// Removes a scratch directory and what is in it. It is no error if it is gone.
///
/// # Errors
/// The disk's.
pub async fn discard<D: Disk>(disk: &D, scratch: &Path) -> io::Result<()> {
    let entries = match disk.list(scratch).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        match disk.remove(&scratch.join(entry.name)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    disk.remove_dir(scratch).await
}
