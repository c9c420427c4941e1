//! Opening a partition that a start handed over: at its first use, or at once if the journal held bytes of it.

use super::{
    Epochs, PartitionSpec, Producers, directory,
    growth::Growth,
    limits::Limits,
    recovered::{Recovered, Scanned},
    state::{ActiveFile, Partition, Parts, SealedSegment},
    stretch::{Held, Stretch},
    tail::{block_ceiling, block_floor},
};
use crate::{
    batch::{HEADER_BYTES, Header, Scanner, Step, Stop},
    bugs::{self, Bug},
    disk::{BLOCK, Disk, Open, is_full, read_whole},
    journal::Line,
    segment::{
        FileKind, Indexes, LEADER_EPOCH_CHECKPOINT, OffsetIndex, PartitionFiles, SegmentFiles, TimeIndex, TxnIndex, Walk, decode_epochs,
        decode_snapshot, file_name, remove_segment, swap,
    },
};
use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

/// What an operator can do about damage that no crash leaves.
pub const MEND_DAMAGE: &str = "Restore it, or start with --accept-loss to go on without what is behind the damage";

/// A partition can't be opened: which file, and what the disk says.
pub type OpenError = (PathBuf, io::Error);

/// Opens a partition. Whatever lies behind its end is cut off, durably, before it can be appended to.
///
/// # Errors
/// The disk's; or [`io::ErrorKind::InvalidData`] if there are no whole batches up to where the journal says that they reach.
/// Nothing of the segment has changed then. A start that accepts the loss has cut it off before.
pub async fn open<D: Disk>(
    disk: &D,
    data_dir: &Path,
    recovered: &Recovered,
    leader_epoch: i32,
    limits: &Limits,
) -> Result<Partition<D>, OpenError> {
    let line = &recovered.line;
    let directory = data_dir.join(&recovered.spec.directory);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let path = directory.join(file_name(line.segment_base, FileKind::Log));
    if is_unused(recovered) {
        match is_created(disk, &directory, &recovered.spec).await.map_err(at(&directory))? {
            true => settle_created(disk, data_dir, &directory, &path).await.map_err(at(&directory))?,
            false => directory::create(disk, data_dir, &recovered.spec).await.map_err(at(&directory))?,
        }
    }
    swap::recover(disk, &directory, line.segment_base).await.map_err(at(&directory))?;
    let files = PartitionFiles::list(disk, &directory).await.map_err(at(&directory))?;
    let sealed = take_stock(disk, &directory, &files, line).await.map_err(at(&directory))?;
    let file = disk.open(&path, Open::Existing).await.map_err(at(&path))?;
    let reader = disk.open_reader(&path).await.map_err(at(&path))?;
    let size = disk.size(&file).await.map_err(at(&path))?;
    let log_end = recovered.scanned.as_ref().map_or(i64::MAX, |scanned| scanned.log_end);
    let mut indexes = load_indexes(disk, &directory, line, log_end).await.map_err(at(&directory))?;
    let mut index_end = if indexes.offsets.entries().is_empty() { 0 } else { line.index_end };
    let mut found = find_end(disk, &file, &reader, recovered, leader_epoch, &mut indexes).await;
    if found.as_ref().is_err_and(is_damage) && index_end > 0 {
        // An index is a shortcut, and may be what is damaged: the batches alone say where they begin.
        (indexes, index_end) = (Indexes::new(line.segment_base), 0);
        found = find_end(disk, &file, &reader, recovered, leader_epoch, &mut indexes).await;
    }
    let found = found.map_err(at(&path))?;
    indexes.transactions =
        load_transactions(disk, &directory, &files, line.segment_base, found.next_offset).await.map_err(at(&directory))?;
    let end = found.end();
    let mut size = size;
    // Below the line's flushed end too, if that lies within a batch: without entries it vouches for whole ones only.
    if recovered.scanned.is_none() && size > block_ceiling(end) {
        disk.truncate(&file, block_ceiling(end)).await.map_err(at(&path))?;
        disk.sync(&file).await.map_err(at(&path))?;
        size = block_ceiling(end);
    }
    let allocated = match recovered.scanned {
        Some(_) => promised(disk, &file, block_floor(size), block_floor(u64::from(line.flushed))).await.map_err(at(&path))?,
        None => block_floor(size),
    };
    let first_timestamp = rolls_from(disk, &reader, line.segment_base, end, &found.tail).await.map_err(at(&path))?;
    let mut stretch = Stretch::open(line.segment_base, found.next_offset, first_timestamp, found.tail_at, Rc::clone(&limits.budget));
    stretch.restore(&found.tail, found.held);
    let mut epochs = load_epochs(disk, &directory, &files, stretch.next_offset(), leader_epoch).await.map_err(at(&directory))?;
    recovered.epochs.iter().for_each(|epoch| {
        epochs.assign(epoch.epoch, epoch.start_offset);
    });
    epochs.assign(leader_epoch, stretch.next_offset());
    let producers = load_producers(disk, &directory, &files, recovered, limits).await.map_err(at(&directory))?;
    let first_offset = sealed.first().map_or(line.segment_base, |first: &SealedSegment| first.base_offset);
    let written_ms = files.segments.iter().find(|segment| segment.base_offset == line.segment_base).and_then(|active| active.changed_ms);
    let mut partition = Partition::new(Parts {
        spec: recovered.spec.clone(),
        directory,
        leader_epoch,
        log_start: line.log_start.max(first_offset),
        stretch,
        // Without entries it ends at a whole batch, which may be below what was flushed.
        flushed: u64::from(line.flushed).min(end),
        unmoved: recovered.scanned.iter().flat_map(unmoved).collect(),
        stale_until: u64::from(line.flushed),
        active: ActiveFile { path, file, reader, allocated, submitted: 0, growth: Growth::new() },
        indexes,
        index_end,
        sealed,
        journal_base: line.segment_base,
        producers,
        epochs,
    });
    // The file's change is not older than the last append: what counts if its timestamps are of a day to come.
    partition.appended_ms = written_ms.filter(|_| end > 0);
    Ok(partition)
}

/// True if its directory is there, is its own, and has its first segment.
async fn is_created<D: Disk>(disk: &D, path: &Path, spec: &PartitionSpec) -> io::Result<bool> {
    let found = directory::read(disk, path).await?;
    Ok(found.is_some_and(|found| found.topic_id == Some(spec.topic_id) && found.mark.is_some() && !found.files.segments.is_empty()))
}

/// True if no byte of it was ever durable: its creation may have been cut short.
fn is_unused(recovered: &Recovered) -> bool {
    let line = &recovered.line;
    let has_bytes = recovered.scanned.as_ref().is_some_and(|scanned| scanned.end_position > 0);
    line.segment_base == 0 && line.flushed == 0 && !has_bytes
}

fn unmoved(scanned: &Scanned) -> impl Iterator<Item = (u64, u64)> + '_ {
    scanned.unmoved.iter().map(|range| (u64::from(range.start), u64::from(range.end)))
}

/// The segments before the active one. Files of later ones (a roll that a crash cut short) and those that an operation set
/// aside are removed.
async fn take_stock<D: Disk>(disk: &D, directory: &Path, files: &PartitionFiles, line: &Line) -> io::Result<Vec<SealedSegment>> {
    let mut removed = false;
    for name in &files.set_aside {
        if name.ends_with(".tmp") {
            disk.remove(&directory.join(name)).await?;
            removed = true;
        }
    }
    for segment in files.segments.iter().filter(|segment| segment.base_offset > line.segment_base) {
        remove_segment(disk, directory, segment.base_offset).await?;
        removed = true;
    }
    if removed {
        disk.sync_dir(directory).await?;
    }
    let before = files.segments.iter().filter(|segment| segment.base_offset < line.segment_base);
    let sealed = |segment: &SegmentFiles| SealedSegment {
        base_offset: segment.base_offset,
        bytes: segment.log_bytes,
        has_transactions: segment.has(FileKind::TxnIndex),
        written_ms: segment.changed_ms,
    };
    Ok(before.map(sealed).collect())
}

/// The active segment's indexes as far as they are on disk and below what the line vouches for; none if one of them is damaged. A
/// start goes by the same ones. Offsets are below `log_end`.
pub async fn load_indexes<D: Disk>(disk: &D, directory: &Path, line: &Line, log_end: i64) -> io::Result<Indexes> {
    if line.index_end == 0 {
        return Ok(Indexes::new(line.segment_base));
    }
    let file = |kind| directory.join(file_name(line.segment_base, kind));
    let read = async |kind| match read_whole(disk, &file(kind)).await {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut bytes = read(FileKind::Index).await?;
    bytes.truncate(line.index_end as usize);
    let times = TimeIndex::decode(line.segment_base, &read(FileKind::TimeIndex).await?).ok();
    let offsets = OffsetIndex::decode(line.segment_base, &bytes, u64::from(line.batch_start)).ok();
    Ok(match (offsets, times) {
        (Some(offsets), Some(mut times)) => {
            times.truncate(log_end);
            Indexes::sealed(offsets, times, TxnIndex::default())
        }
        _ => Indexes::new(line.segment_base),
    })
}

/// The transactions whose abort marker is in the active segment, below `log_end`: a Kafka wrote them.
async fn load_transactions<D: Disk>(
    disk: &D,
    directory: &Path,
    files: &PartitionFiles,
    base_offset: i64,
    log_end: i64,
) -> io::Result<TxnIndex> {
    if !files.segments.iter().any(|segment| segment.base_offset == base_offset && segment.has(FileKind::TxnIndex)) {
        return Ok(TxnIndex::default());
    }
    let path = directory.join(file_name(base_offset, FileKind::TxnIndex));
    let mut transactions = TxnIndex::decode(&read_whole(disk, &path).await?).unwrap_or_else(|error| {
        tracing::warn!("{} is not used: {error}", path.display());
        TxnIndex::default()
    });
    transactions.truncate(log_end);
    Ok(transactions)
}

/// What the files and the journal say of the active segment's end.
struct Found {
    /// Where the bytes in memory begin.
    tail_at: u64,
    tail: Vec<u8>,
    /// The batches that end behind that.
    held: Vec<Held>,
    next_offset: i64,
}

impl Found {
    fn end(&self) -> u64 {
        self.tail_at + self.tail.len() as u64
    }
}

/// The end of the active segment. The indexes have all of its batches then.
async fn find_end<D: Disk>(
    disk: &D,
    file: &D::File,
    reader: &D::Reader,
    recovered: &Recovered,
    epoch_max: i32,
    indexes: &mut Indexes,
) -> io::Result<Found> {
    let base = recovered.line.segment_base;
    let from = Scanner::new(indexed_end(indexes), base, i32::MIN).in_segment(base).with_epochs_to(epoch_max);
    match &recovered.scanned {
        Some(scanned) => of_scan(disk, reader, from, &recovered.line, scanned, indexes).await,
        None => of_walk(disk, file, reader, from, &recovered.line, indexes).await,
    }
}

/// What no crash leaves: there is no batch at `position`, below what is acked.
#[must_use]
pub fn no_batch(position: u64, stop: Stop, acked: u64) -> String {
    format!("no batch at byte {position} ({stop}), where the journal says that batches reach to {acked}")
}

/// The same as an error that says what to do. [`is_damage`] knows it.
pub fn damage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}. {MEND_DAMAGE}"))
}

/// True if a partition can't be opened since it is damaged: nothing mends that while the broker runs.
#[must_use]
pub fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// The end that the scan found: the file below the block floor of the flushed end, then the bytes that were handed over.
async fn of_scan<D: Disk>(
    disk: &D,
    reader: &D::Reader,
    from: Scanner,
    line: &Line,
    scanned: &Scanned,
    indexes: &mut Indexes,
) -> io::Result<Found> {
    let tail_at = block_floor(u64::from(line.flushed).min(u64::from(scanned.end_position)));
    let end = u64::from(scanned.end_position);
    if tail_at + scanned.tail.len() as u64 != end {
        return Err(io::Error::other(format!("{} bytes were recovered from {tail_at} to {end}", scanned.tail.len())));
    }
    // The header of a batch that begins in the file may end in the tail: it is read from both.
    let mut walk = Walk::new(disk, reader, from, tail_at);
    let mut held = Vec::new();
    let mut position = from.position;
    let stop = loop {
        match walk.next_header().await? {
            Ok((at, header)) => {
                indexes.push(at, &header);
                position = at + header.size() as u64;
            }
            Err(stop) => break stop,
        }
    };
    let mut scanner = *walk.scanner();
    while position < end {
        let header = match scanner.step_header(&header_at(disk, reader, position, tail_at, &scanned.tail).await?, end - position) {
            Step::Batch(header) if scanner.position > tail_at => header,
            Step::Stop(stop) => return Err(damage(&no_batch(position, stop, end))),
            Step::Batch(_) | Step::Need(_) => return Err(damage(&no_batch(position, stop, end))),
        };
        indexes.push(position, &header);
        held.push(Held { position, header });
        position = scanner.position;
    }
    if position > end {
        return Err(damage(&no_batch(end, stop, end)));
    }
    Ok(Found { tail_at, tail: scanned.tail.clone(), held, next_offset: scanned.log_end })
}

/// The header of a batch that ends in the tail. It may begin in the file, and end in the tail itself.
async fn header_at<D: Disk>(disk: &D, reader: &D::Reader, position: u64, tail_at: u64, tail: &[u8]) -> io::Result<Vec<u8>> {
    if position >= tail_at {
        let rest = &tail[(position - tail_at) as usize..];
        return Ok(rest[..rest.len().min(HEADER_BYTES)].to_vec());
    }
    let in_file = (tail_at - position).min(HEADER_BYTES as u64) as usize;
    let mut bytes = disk.read_buffered(reader, position, in_file).await?;
    bytes.extend_from_slice(&tail[..tail.len().min(HEADER_BYTES - in_file)]);
    Ok(bytes)
}

/// The end without entries: behind the last whole batch at or below the flushed end.
async fn of_walk<D: Disk>(
    disk: &D,
    file: &D::File,
    reader: &D::Reader,
    from: Scanner,
    line: &Line,
    indexes: &mut Indexes,
) -> io::Result<Found> {
    let flushed = u64::from(line.flushed).min(disk.size(file).await?);
    let Walked { end, next_offset, last, held, stop } = walk_file(disk, reader, from, flushed, indexes).await?;
    if end < u64::from(line.batch_start) && !bugs::on(Bug::DamageAsTornEnd) {
        return Err(damage(&no_batch(end, stop, u64::from(line.batch_start))));
    }
    check_last(disk, reader, last, end).await?;
    let tail_at = block_floor(end);
    let mut tail = Vec::new();
    if tail_at < end {
        tail.extend_from_slice(&disk.read(file, tail_at, BLOCK as usize).await?[..(end - tail_at) as usize]);
    }
    // All of them, not the last one alone: once the partition is offline its file is read below the tail only.
    Ok(Found { tail_at, tail, held: held.into(), next_offset })
}

/// How far the batches of a file reach.
struct Walked {
    end: u64,
    next_offset: i64,
    /// Where the last one begins.
    last: Option<u64>,
    /// Those that end behind the start of the partial block.
    held: VecDeque<Held>,
    /// Why there is no further one.
    stop: Stop,
}

/// The last batch has its CRC: the log ends where its header says. Of those before it the next one's offset tells, and readers check
/// the rest. Here, and not when the broker starts: it is one more read for each partition.
async fn check_last<D: Disk>(disk: &D, reader: &D::Reader, last: Option<u64>, end: u64) -> io::Result<()> {
    let Some(position) = last.filter(|_| !bugs::on(Bug::DamageAsTornEnd)) else { return Ok(()) };
    let batch = disk.read_buffered(reader, position, (end - position) as usize).await?;
    match Scanner::new(position, 0, i32::MIN).step(&batch, batch.len() as u64) {
        Step::Stop(stop) => Err(damage(&no_batch(position, stop, end))),
        Step::Batch(_) | Step::Need(_) => Ok(()),
    }
}

/// Walks the batches of a file from its last index entry on, up to `limit`, a position in bytes.
async fn walk_file<D: Disk>(disk: &D, reader: &D::Reader, from: Scanner, limit: u64, indexes: &mut Indexes) -> io::Result<Walked> {
    let mut walk = Walk::new(disk, reader, from, limit);
    let (mut held, mut last) = (VecDeque::<Held>::new(), None);
    let (mut end, mut next_offset) = (from.position, from.next_offset);
    loop {
        let (position, header) = match walk.next_header().await? {
            Ok(found) => found,
            Err(stop) => return Ok(Walked { end, next_offset, last, held, stop }),
        };
        indexes.push(position, &header);
        held.push_back(Held { position, header });
        (end, next_offset, last) = (position + header.size() as u64, header.next_offset(), Some(position));
        while held.front().is_some_and(|first| first.end() <= block_floor(end)) {
            held.pop_front();
        }
    }
}

/// What a creation that was cut off has left may be seen and not be durable: it is made so before anything is acked.
async fn settle_created<D: Disk>(disk: &D, data_dir: &Path, directory: &Path, segment: &Path) -> io::Result<()> {
    disk.sync(&disk.open(segment, Open::Existing).await?).await?;
    disk.sync_dir(directory).await?;
    disk.sync_dir(data_dir).await
}

/// How much of a segment has its blocks, in bytes: what the journal still holds may have none, if a crash or a full disk came
/// between the size and the space. `flushed` bytes surely have.
async fn promised<D: Disk>(disk: &D, file: &D::File, size: u64, flushed: u64) -> io::Result<u64> {
    if size <= flushed {
        return Ok(size);
    }
    match disk.allocate(file, size).await {
        Ok(()) => Ok(size),
        Err(error) if is_full(&error) => Ok(flushed),
        Err(error) => Err(error),
    }
}

/// Where the walk begins: at the batch of the last index entry, which is there already.
fn indexed_end(indexes: &Indexes) -> u64 {
    indexes.offsets.entries().last().map_or(0, |entry| u64::from(entry.position))
}

/// The timestamp that `segment.ms` counts from: that of the active segment's first batch, which may be in memory only.
async fn rolls_from<D: Disk>(disk: &D, reader: &D::Reader, base: i64, end: u64, tail: &[u8]) -> io::Result<Option<i64>> {
    if end == 0 {
        return Ok(None);
    }
    if end == tail.len() as u64 {
        return Ok(Header::read(tail).map(|header| header.max_timestamp()));
    }
    let mut walk = Walk::new(disk, reader, Scanner::new(0, base, i32::MIN), end);
    Ok(walk.next_header().await?.ok().map(|(_, header)| header.max_timestamp()))
}

/// The epochs of the checkpoint; none if it is damaged, or has an epoch that nobody has given.
async fn load_epochs<D: Disk>(disk: &D, directory: &Path, files: &PartitionFiles, log_end: i64, leader_epoch: i32) -> io::Result<Epochs> {
    if !files.has_epochs {
        return Ok(Epochs::default());
    }
    let bytes = read_whole(disk, &directory.join(LEADER_EPOCH_CHECKPOINT)).await?;
    let entries = decode_epochs(&String::from_utf8_lossy(&bytes)).unwrap_or_default();
    let is_given = entries.iter().all(|start| start.epoch <= leader_epoch);
    let mut epochs = Epochs::stored(if is_given { &entries } else { &[] });
    epochs.truncate_end(log_end.saturating_add(1));
    Ok(epochs)
}

/// The snapshot of the active segment, and over it what the start found to be newer.
async fn load_producers<D: Disk>(
    disk: &D,
    directory: &Path,
    files: &PartitionFiles,
    recovered: &Recovered,
    limits: &Limits,
) -> io::Result<Producers> {
    let base = recovered.line.segment_base;
    let mut producers = Producers::new(limits.producers_max);
    if let Some(offset) = files.snapshot_at(base) {
        let bytes = read_whole(disk, &directory.join(file_name(offset, FileKind::Snapshot))).await?;
        decode_snapshot(&bytes).unwrap_or_default().iter().for_each(|state| producers.import(state, base - 1));
    }
    recovered.producers.iter().for_each(|state| producers.import(state, base));
    Ok(producers)
}
