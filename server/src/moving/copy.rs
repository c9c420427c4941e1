//! Copying one partition's directory: every batch is checked on its way, indexes are written anew, transactions that are
//! open at the end are aborted with a marker, as their coordinator would do when they time out.

use super::{failed, files, walk::Batches};
use crate::progress::Progress;
use anyhow::{Result, anyhow, bail};
use engine::{
    batch::{ControlRecord, Header, LEADER_EPOCH_AT, Stop, control_batch},
    partition::{Epochs, SEGMENT_BYTES_MAX},
    segment::{
        FileKind, Indexes, LEADER_EPOCH_CHECKPOINT, OpenTransactions, PARTITION_METADATA, decode_epochs, decode_snapshot, encode_epochs,
        file_name, parse_file_name,
    },
};
use rustix::fs::{Advice, fadvise, ioctl_ficlone};
use std::{
    collections::BTreeMap,
    fs::{self, File, FileTimes},
    io::{self, Write},
    num::NonZeroU64,
    path::PathBuf,
};

/// Who will read the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A Kafka: every batch gets leader epoch 0, since that cluster's epochs are others; no producer state goes along, since its
    /// producer ids are others too.
    Kafka,
    /// Thalweg: all is kept.
    Thalweg,
}

/// A partition to be copied.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Its name: `orders-0`.
    pub(super) name: String,
    /// Its directory.
    pub(super) from: PathBuf,
    /// The directory that is made.
    pub(super) to: PathBuf,
    /// Who will read it.
    pub(super) reader: Reader,
    /// The broker was not stopped cleanly: from the segment of this offset on a log may end early, as after Kafka's recovery.
    pub(super) torn_from: Option<i64>,
}

/// What is known of a partition that was copied.
#[derive(Clone, Debug, Default)]
pub(super) struct Copied {
    /// The offset behind its last batch.
    pub(super) log_end: i64,
    /// Batches and bytes.
    pub(super) batches: u64,
    pub(super) bytes: u64,
    /// The highest leader epoch of a batch or of the checkpoint, -1 if there is none.
    pub(super) leader_epoch: i32,
    /// The highest producer id, -1 if there is none.
    pub(super) producer_id: i64,
    /// Transactions that were open at its end.
    pub(super) aborted: usize,
    /// Where it was cut, if it was.
    pub(super) cut: Option<String>,
}

/// Copies a partition. The new directory and all its files are durable when this returns.
pub(super) fn partition(task: &Task, progress: &Progress) -> Result<Copied> {
    progress.on(task.name.as_str());
    fs::create_dir_all(&task.to).map_err(|error| failed("make", &task.to, error))?;
    let mut bases = Vec::new();
    let mut snapshots = Vec::new();
    for name in files::names(&task.from)? {
        match parse_file_name(&name) {
            Some((base, FileKind::Log)) => bases.push(base),
            Some((offset, FileKind::Snapshot)) => snapshots.push(offset),
            // Kafka's recovery would finish this swap; a copy of either side alone would lose records.
            None if name.ends_with(".swap") => bail!(
                "{} is left of a compaction that a crash has cut short: start that broker once, so that it finishes it, and stop it",
                task.from.join(name).display()
            ),
            _ => {}
        }
    }
    bases.sort_unstable();
    snapshots.sort_unstable();
    let mut copier = Copier::new(task, progress, bases.first().copied().unwrap_or(0), &snapshots)?;
    let mut last = bases.first().copied().unwrap_or(0);
    for (at, base) in bases.iter().enumerate() {
        last = *base;
        if !copier.segment(*base, bases.get(at + 1).copied())? {
            copier.cut_behind(&bases[at + 1..]);
            break;
        }
    }
    if bases.is_empty() {
        copier.write(FileKind::Log, 0, &[])?;
    }
    copier.abort_open(last)?;
    copier.finish(last, &snapshots)
}

struct Copier<'a> {
    task: &'a Task,
    progress: &'a Progress,
    next_offset: i64,
    leader_epoch: i32,
    open: OpenTransactions,
    /// The epoch of each producer with an open transaction, and its newest timestamp.
    producers: BTreeMap<i64, (i16, i64)>,
    epochs: Epochs,
    /// Of the segment that was copied last.
    indexes: Indexes,
    log_bytes: u64,
    buffer: Vec<u8>,
    copied: Copied,
}

impl<'a> Copier<'a> {
    fn new(task: &'a Task, progress: &'a Progress, first: i64, snapshots: &[i64]) -> Result<Copier<'a>> {
        let mut copier = Copier {
            task,
            progress,
            next_offset: first,
            leader_epoch: i32::MIN,
            open: OpenTransactions::default(),
            producers: BTreeMap::new(),
            epochs: Epochs::default(),
            indexes: Indexes::new(first),
            log_bytes: 0,
            buffer: Vec::new(),
            copied: Copied { leader_epoch: -1, producer_id: -1, ..Copied::default() },
        };
        // Whatever was open where the log begins is open still; and producers whose batches are all gone are remembered here only.
        for offset in snapshots {
            let path = task.from.join(file_name(*offset, FileKind::Snapshot));
            let Ok(states) = decode_snapshot(&fs::read(&path).map_err(|error| failed("read", &path, error))?) else { continue };
            copier.copied.producer_id = states.iter().map(|state| state.producer_id).max().unwrap_or(-1).max(copier.copied.producer_id);
            if *offset == first {
                copier.open = OpenTransactions::of(&states);
                copier.producers = states.iter().map(|state| (state.producer_id, (state.epoch, state.last_timestamp))).collect();
            }
        }
        let path = task.from.join(LEADER_EPOCH_CHECKPOINT);
        if let Some(entries) = fs::read_to_string(&path).ok().and_then(|text| decode_epochs(&text).ok()) {
            copier.copied.leader_epoch = entries.iter().map(|entry| entry.epoch).max().unwrap_or(-1);
            copier.epochs = Epochs::stored(&entries);
        }
        Ok(copier)
    }

    /// Copies one segment. False if it was cut: nothing behind it counts.
    fn segment(&mut self, base: i64, next: Option<i64>) -> Result<bool> {
        let path = self.task.from.join(file_name(base, FileKind::Log));
        let reading = |error| failed("read", &path, error);
        if base < self.next_offset {
            bail!(
                "{} begins below offset {}, where the segment before it ends: segment-dump --verify shows more",
                path.display(),
                self.next_offset
            );
        }
        let mut walk = Batches::open(&path, base, self.leader_epoch, std::mem::take(&mut self.buffer)).map_err(reading)?;
        let to = self.task.to.join(file_name(base, FileKind::Log));
        let writing = |error| failed("write", &to, error);
        let mut out = File::create(&to).map_err(writing)?;
        let source = File::open(&path).map_err(reading)?;
        // Where the filesystem can share blocks nothing is written; the walk then only checks.
        let cloned = self.task.reader == Reader::Thalweg && ioctl_ficlone(&out, &source).is_ok();
        self.indexes = Indexes::new(base);
        let (mut write_error, mut written) = (None, Written::default());
        let stop = loop {
            let progress = self.progress;
            let mut sink = |bytes: &[u8]| {
                progress.add(bytes.len() as u64);
                if cloned { Ok(()) } else { written.write(&mut out, bytes).inspect_err(|error| write_error = Some(error.kind())) }
            };
            match walk.advance(&mut sink) {
                Ok(Ok((position, header, range))) => self.batch(position, &header, walk.bytes(range)),
                Ok(Err(stop)) => break stop,
                Err(error) if write_error.is_some() => return Err(writing(error)),
                Err(error) => return Err(reading(error)),
            }
        };
        let end = walk.scanner().position;
        let whole = match stop {
            Stop::End => true,
            // Allocated, and never written: only the last segment may be so.
            Stop::Zeros if next.is_none() => walk.is_zero_from_here().map_err(reading)?,
            _ => false,
        };
        if !whole && self.task.torn_from.is_none_or(|from| next.is_some_and(|next| next <= from)) {
            bail!(
                "{} is damaged at byte {end}: {stop}. segment-dump --verify {} shows it, and --repair takes it out and keeps it beside; or leave \
                 this topic out with --topics",
                path.display(),
                self.task.from.display()
            );
        }
        if !whole {
            self.copied.cut = Some(format!("{} at byte {end} of {}: {stop}", path.display(), walk.size()));
        }
        out.set_len(end).map_err(writing)?;
        let changed = source.metadata().and_then(|found| found.modified()).map_err(reading)?;
        // Retention goes by it where batches have no timestamps.
        out.set_times(FileTimes::new().set_modified(changed)).map_err(writing)?;
        out.sync_all().map_err(writing)?;
        self.log_bytes = end;
        self.copied.bytes += end;
        self.next_offset = self.next_offset.max(base).max(walk.scanner().next_offset);
        self.buffer = walk.close();
        self.write_indexes(base)?;
        Ok(whole)
    }

    fn batch(&mut self, position: u64, header: &Header, bytes: &mut [u8]) {
        self.indexes.push(position, header);
        self.copied.batches += 1;
        self.leader_epoch = header.leader_epoch();
        self.copied.leader_epoch = self.copied.leader_epoch.max(header.leader_epoch());
        self.epochs.assign(header.leader_epoch(), header.base_offset());
        if header.has_producer() {
            self.copied.producer_id = self.copied.producer_id.max(header.producer_id());
        }
        if header.is_transactional() {
            self.producers.insert(header.producer_id(), (header.producer_epoch(), header.max_timestamp()));
        }
        if let Some(aborted) = self.open.push(header, ControlRecord::of_batch(header, bytes)) {
            self.indexes.transactions.push(aborted);
        }
        if self.task.reader == Reader::Kafka {
            bytes[LEADER_EPOCH_AT..LEADER_EPOCH_AT + 4].fill(0);
        }
    }

    /// What is behind a cut does not count, as in Kafka's recovery.
    fn cut_behind(&mut self, bases: &[i64]) {
        if let Some(cut) = self.copied.cut.as_mut().filter(|_| !bases.is_empty()) {
            cut.push_str(&format!("; {} segments behind it are left out", bases.len()));
        }
    }

    /// Ends the transactions that are open at the log's end, in the last segment.
    fn abort_open(&mut self, last: i64) -> Result<()> {
        let mut batches = Vec::new();
        let open: Vec<(i64, i16, i64)> = self
            .producers
            .iter()
            .filter(|(id, _)| self.open.first_offset(**id).is_some())
            .map(|(id, (epoch, timestamp))| (*id, *epoch, *timestamp))
            .collect();
        for (id, epoch, timestamp) in &open {
            let leader_epoch = if self.task.reader == Reader::Kafka { 0 } else { self.leader_epoch.max(0) };
            let mut marker = control_batch(self.next_offset, leader_epoch, (*id, *epoch), false, *timestamp);
            let header = Header::read(&marker).expect("just built");
            let position = self.log_bytes + batches.len() as u64;
            if position + marker.len() as u64 > SEGMENT_BYTES_MAX {
                return Err(anyhow!(
                    "{} has no room for the end of an open transaction: its last segment is full",
                    self.task.from.display()
                ));
            }
            self.batch(position, &header, &mut marker);
            self.next_offset += 1;
            batches.extend(marker);
        }
        if open.is_empty() {
            return Ok(());
        }
        let to = self.task.to.join(file_name(last, FileKind::Log));
        let append = || {
            let mut log = File::options().append(true).open(&to)?;
            log.write_all(&batches)?;
            log.sync_all()
        };
        append().map_err(|error| failed("write", &to, error))?;
        self.copied.aborted = open.len();
        self.copied.bytes += batches.len() as u64;
        self.write_indexes(last)
    }

    fn write_indexes(&mut self, base: i64) -> Result<()> {
        let mut sealed = self.indexes.clone();
        sealed.seal();
        self.write(FileKind::Index, base, &sealed.offsets.encode())?;
        self.write(FileKind::TimeIndex, base, &sealed.times.encode())?;
        if !sealed.transactions.entries().is_empty() {
            self.write(FileKind::TxnIndex, base, &sealed.transactions.encode())?;
        }
        Ok(())
    }

    fn write(&self, kind: FileKind, base: i64, content: &[u8]) -> Result<()> {
        files::write(&self.task.to.join(file_name(base, kind)), content)
    }

    fn finish(mut self, last: i64, snapshots: &[i64]) -> Result<Copied> {
        self.copied.log_end = self.next_offset;
        if self.task.reader == Reader::Thalweg {
            for offset in snapshots.iter().filter(|offset| **offset <= last) {
                let name = file_name(*offset, FileKind::Snapshot);
                let path = self.task.from.join(&name);
                let bytes = fs::read(&path).map_err(|error| failed("read", &path, error))?;
                // What is damaged tells nothing that the log doesn't.
                if decode_snapshot(&bytes).is_ok() {
                    files::write(&self.task.to.join(name), &bytes)?;
                }
            }
            self.epochs.truncate_end(self.next_offset);
            files::write(&self.task.to.join(LEADER_EPOCH_CHECKPOINT), encode_epochs(self.epochs.entries()).as_bytes())?;
            let path = self.task.from.join(PARTITION_METADATA);
            let metadata = fs::read(&path).map_err(|error| failed("read", &path, error))?;
            files::write(&self.task.to.join(PARTITION_METADATA), &metadata)?;
        }
        files::sync_dir(&self.task.to)?;
        Ok(self.copied)
    }
}

/// Bytes of a file after which the kernel is told to begin writing them out.
const WRITE_OUT_BYTES: u64 = 32 << 20;

/// How much of a file was written, and how much of that the kernel was told to write out. The flush at the end then waits for little, and
/// the copy doesn't drive other files' pages out of memory.
#[derive(Default)]
struct Written {
    bytes: u64,
    told: u64,
}

impl Written {
    fn write(&mut self, out: &mut File, bytes: &[u8]) -> io::Result<()> {
        out.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        if self.bytes - self.told >= WRITE_OUT_BYTES {
            // From the beginning: what was written out since the last time gives up its memory.
            let _ = fadvise(&*out, 0, NonZeroU64::new(self.bytes), Advice::DontNeed);
            self.told = self.bytes;
        }
        Ok(())
    }
}

/// Copies many partitions on several threads. The first failure ends it.
pub(super) fn all(tasks: &[Task], progress: &Progress) -> Result<Vec<Copied>> {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![None; tasks.len()]);
    let first_error = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(tasks.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(at) else { return };
                    match partition(task, progress) {
                        Ok(copied) => results.lock().expect("no panic holds it")[at] = Some(copied),
                        Err(error) => {
                            first_error.lock().expect("no panic holds it").get_or_insert(error);
                            next.store(tasks.len(), Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    match first_error.into_inner().expect("no panic holds it") {
        Some(error) => Err(error),
        None => {
            Ok(results.into_inner().expect("no panic holds it").into_iter().map(|copied| copied.expect("every task was done")).collect())
        }
    }
}

/// More threads than this wait for the disk only.
const THREADS_MAX: usize = 4;
