//! One round of cleaning, from the decision to the last of its files that is ready to be swapped in.

use super::{
    backward,
    dirty::Dirty,
    filter::{Filter, Gone, Outcome},
    plan,
    progress::Progress,
    source::{Batches, Source},
    transactions::Transactions,
    writer::Writer,
};
use crate::{
    batch::Header,
    disk::{Disk, is_full, read_whole},
    ids::PartitionId,
    segment::{AbortedTxn, FileKind, ProducerState, SegmentError, TxnIndex, file_name},
};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Where jobs write, in the data directory. A start removes it.
pub const SCRATCH: &str = "cleaning";

/// As a rule [`Job::kept_bytes_max`], in bytes.
pub const KEPT_BYTES_MAX: u64 = 64 << 20;

/// The last that is known of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Its epoch.
    pub epoch: i16,
    /// The offset of its last record; `None` if only markers are left.
    pub data_offset: Option<i64>,
}

impl From<&ProducerState> for LastRecord {
    fn from(state: &ProducerState) -> LastRecord {
        LastRecord { epoch: state.epoch, data_offset: state.batches.last().map(|batch| batch.last_offset) }
    }
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
    /// When `max.compaction.lag.ms` has passed, or will have, for its oldest dirty record, in ms; `None` without that setting.
    pub overdue_ms: Option<i64>,
    /// The clock, in ms.
    pub now_ms: i64,
    /// Keys that are remembered at most: what has more is cleaned in several rounds.
    pub keys_max: usize,
    /// Bytes of batches that wait in memory, where the log is read once: what stays of a group. Beside these there may be as much again
    /// that a segment of it may keep, and of the group that is written meanwhile; 8 times as much waits in `scratch`. With 0 the log is read
    /// twice.
    pub kept_bytes_max: u64,
    /// The secret of its hashes: random.
    pub secret: (u64, u64),
    /// Bytes of log that it has read so far, of [`Job::bytes_to_read`], for whoever watches, and says whether it is to read gently.
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

/// What a job has done when it has come to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
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
    /// Dirty bytes that were read once only.
    pub read_once: u64,
}

impl Cleaned {
    /// Counts a group that was cleaned ahead.
    fn add(&mut self, group: &Cleaned) {
        self.records.0 += group.records.0;
        self.records.1 += group.records.1;
        self.gone += group.gone;
        self.bytes.0 += group.bytes.0;
        self.bytes.1 += group.bytes.1;
        self.read_once += group.read_once;
    }
}

/// A round that failed: what it has put in place before stays there. Why is what a segment can fail of.
pub type CleanError = SegmentError;

pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> CleanError + use<> {
    let path = path.to_path_buf();
    move |source| CleanError::Disk { path: path.clone(), source }
}

impl Job {
    /// Bytes of log that it reads if it gets to its end: segments that are clean already once, the others twice. What need be read once
    /// only counts twice.
    #[must_use]
    pub fn bytes_to_read(&self) -> u64 {
        let ends = self.segments.iter().skip(1).map(|next| next.base_offset).chain([self.end]);
        self.segments.iter().zip(ends).map(|(segment, end)| segment.bytes * if end > self.first_dirty { 2 } else { 1 }).sum()
    }

    /// Runs it: reads the segments, and writes one new segment for each group into the scratch directory, durably: while it reads what is
    /// dirty for its keys, from the last segment to the first, where that may be (`backward`); else when all keys are known, for which it
    /// reads the segments again, and the next group is begun when this one is in place: so there need be room for one of them only, to
    /// which what waits gives way. `install` puts a new segment in the place of its group. It says false if the log is not any more what
    /// this job has seen: then the rest of the round is forgotten, and this returns `None`.
    ///
    /// A round may end behind any of its groups. They are in the order of the log: a record goes when a later one of its key is
    /// there, and a tombstone is given its horizon when everything that it ends is gone.
    ///
    /// # Errors
    /// [`CleanError`], also that of `install`. What is in place stays there; what else was written is removed by [`discard`].
    pub async fn run<D: Disk>(
        &self,
        disk: &D,
        mut install: impl AsyncFnMut(Group) -> Result<bool, CleanError>,
    ) -> Result<Option<Cleaned>, CleanError> {
        self.begin_scratch(disk).await?;
        // Before the first swap: what it is read from is replaced too.
        let aborted = self.all_aborted(disk).await?;
        let is_plain = aborted.is_empty() && self.segments.iter().all(|segment| !segment.has_transactions);
        let backward = if is_plain && self.kept_bytes_max > 0 { backward::read(self, disk).await? } else { None };
        let (dirty, mut ready) = match backward {
            Some(backward) => (backward.dirty, backward.ready),
            None => (Dirty::read(self, disk, aborted.clone()).await?, BTreeMap::new()),
        };
        let live = dirty.keys.last_offsets();
        let mut last_of_producers: Vec<i64> = self.producers.values().filter_map(|last| last.data_offset).collect();
        last_of_producers.sort_unstable();
        let filter = Filter {
            keys: &dirty.keys,
            live: &live,
            is_regular: dirty.is_regular,
            last_of_producers: &last_of_producers,
            first_dirty: self.first_dirty,
            end_offset: dirty.end_offset,
            round_end: self.end,
            producers: &self.producers,
            now_ms: self.now_ms,
            delete_retention_ms: self.delete_retention_ms,
        };
        let count = self.segments.partition_point(|segment| segment.base_offset < dirty.end_offset);
        let sizes = &self.sizes()[..count];
        let end = self.segments.get(count).map_or(self.end, |next| next.base_offset);
        let mut cleaned = Cleaned { clean_to: dirty.end_offset, is_partial: dirty.is_partial, ..Cleaned::default() };
        let mut transactions = Transactions::new(aborted);
        let mut rest = &self.segments[..count];
        for count in plan::groups(sizes, end, self.segment_bytes) {
            let (group, others) = rest.split_at(count);
            rest = others;
            let group = match ready.remove(&group[0].base_offset) {
                Some(ready) => {
                    cleaned.add(&ready.counted);
                    ready.group
                }
                None => {
                    let before = (!ready.is_empty()).then(|| (cleaned.clone(), transactions.clone(), self.progress.bytes()));
                    match (self.clean(disk, group, (&dirty, &filter), &mut transactions, &mut cleaned).await, before) {
                        // What waits may have taken its room: then each is cleaned when it is its turn.
                        (Err(CleanError::Disk { source, .. }), Some((counted, walked, read))) if is_full(&source) => {
                            self.progress.take_back((self.progress.bytes() - read) as usize);
                            backward::forget(self, disk, &mut ready).await?;
                            (cleaned, transactions) = (counted, walked);
                            self.clean(disk, group, (&dirty, &filter), &mut transactions, &mut cleaned).await?
                        }
                        (made, _) => made?,
                    }
                }
            };
            let Some(group) = group else { continue };
            disk.sync_dir(&self.scratch).await.map_err(at(&self.scratch))?;
            if !install(group).await? {
                return Ok(None);
            }
        }
        Ok(Some(cleaned))
    }

    /// Makes the scratch directory, empty.
    pub(super) async fn begin_scratch<D: Disk>(&self, disk: &D) -> Result<(), CleanError> {
        discard(disk, &self.scratch).await.map_err(at(&self.scratch))?;
        for path in self.scratch.parent().into_iter().chain([self.scratch.as_path()]) {
            disk.create_dir(path).await.map_err(at(path))?;
        }
        Ok(())
    }

    /// Its segments for [`plan::groups`].
    pub(super) fn sizes(&self) -> Vec<(i64, u64)> {
        self.segments.iter().map(|segment| (segment.base_offset, segment.bytes)).collect()
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

    /// Cleans one group into one new segment. Where nothing changes, nothing is written, and there is none.
    async fn clean<D: Disk>(
        &self,
        disk: &D,
        group: &[Source],
        (dirty, filter): (&Dirty, &Filter<'_>),
        transactions: &mut Transactions,
        cleaned: &mut Cleaned,
    ) -> Result<Option<Group>, CleanError> {
        // A log that is clean already must neither be written nor need twice its space: as long as a segment that stays alone
        // stays as it is there is no new one, and what is in front of the first change is copied when it comes.
        let mut writer = match group {
            [_] => None,
            _ => Some(Writer::create(disk, &self.scratch, group[0].base_offset, self.progress.pace()).await?),
        };
        let mut still_aborted = Vec::new();
        for segment in group {
            let mut source = Batches::open(disk, &self.directory, segment, dirty.passes(segment, filter), &self.progress).await?;
            let mut seen = 0;
            loop {
                let front = source.stream.position();
                let next = source.next().await?;
                if source.stream.passed() > 0 && writer.is_none() {
                    writer = Some(self.copy(disk, segment, front).await?);
                }
                let Some(header) = next else { break };
                self.progress.add(header.size());
                seen += header.record_count().max(0) as u64;
                let position = source.position;
                let batch = if filter.is_superseded(&header) { None } else { Some(source.batch(&header).await?) };
                let judged = filter.judge(&header, batch, transactions, &mut cleaned.gone);
                cleaned.records.0 += header.record_count().max(0) as u64;
                let (outcome, aborted) = match judged {
                    Ok(judged) => judged,
                    Err(what) => return Err(source.corrupt(position, what)),
                };
                still_aborted.extend(aborted);
                if outcome != Outcome::Same && writer.is_none() {
                    writer = Some(self.copy(disk, segment, position).await?);
                }
                let stays = match &outcome {
                    Outcome::Same => batch,
                    Outcome::Rewritten(batch) => Some(&batch[..]),
                    Outcome::Gone => None,
                };
                let Some(stays) = stays else { continue };
                let header = Header::read(stays).expect("a whole batch");
                cleaned.records.1 += header.record_count().max(0) as u64;
                if let Some(writer) = &mut writer {
                    writer.push(&header, stays).await?;
                }
            }
            if source.stream.passed() > 0 {
                let unseen = dirty.records(segment) - seen;
                self.progress.add(source.stream.passed() as usize);
                cleaned.records.0 += unseen;
                cleaned.gone.superseded += unseen;
            }
        }
        let bytes_before = group.iter().map(|segment| segment.bytes).sum();
        cleaned.bytes.0 += bytes_before;
        let has_transactions = !still_aborted.is_empty();
        let writer = match writer {
            Some(writer) => writer,
            None if has_transactions == group[0].has_transactions => {
                cleaned.bytes.1 += bytes_before;
                return Ok(None);
            }
            None => self.copy(disk, &group[0], group[0].bytes).await?,
        };
        let bytes = writer.finish(&still_aborted).await?;
        cleaned.bytes.1 += bytes;
        let bases = group.iter().map(|segment| segment.base_offset).collect();
        Ok(Some(Group { bases, bytes_before, bytes, has_transactions }))
    }

    /// A new segment that begins with what is in front of `end`, in bytes, of this one.
    async fn copy<D: Disk>(&self, disk: &D, segment: &Source, end: u64) -> Result<Writer<D>, CleanError> {
        let mut writer = Writer::create(disk, &self.scratch, segment.base_offset, self.progress.pace()).await?;
        let mut source = Batches::open(disk, &self.directory, &Source { bytes: end, ..*segment }, Vec::new(), &self.progress).await?;
        while let Some(header) = source.next().await? {
            writer.push(&header, source.batch(&header).await?).await?;
        }
        Ok(writer)
    }
}

/// Removes a scratch directory and what is in it. It is no error if it is gone. It is flushed before: what was renamed out of it by a
/// round that a kill has cut short is durable only when both of its directories are, and nobody could flush this one later.
///
/// # Errors
/// The disk's.
pub async fn discard<D: Disk>(disk: &D, scratch: &Path) -> io::Result<()> {
    let entries = match disk.list(scratch).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    disk.sync_dir(scratch).await?;
    for entry in entries {
        match disk.remove(&scratch.join(entry.name)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    disk.remove_dir(scratch).await
}
