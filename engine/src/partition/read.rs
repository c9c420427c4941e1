//! What a reader gets: recent batches from memory, older ones as ranges of files. Only durable ones, only whole ones.

use super::{
    Piece, ReadError, ReadPlan,
    state::{Partition, SealedSegment},
};
use crate::{
    batch::{HEADER_BYTES, Header, Scanner, Stop},
    disk::Disk,
    segment::{AbortedTxn, BatchRange, OpenSegments, Walk},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// What one read asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The first offset wanted.
    pub offset: i64,
    /// Bytes, at most.
    pub bytes_max: usize,
    /// The first batch goes out however large.
    pub at_least_one: bool,
    /// Up to the last stable offset only.
    pub read_committed: bool,
}

/// Where a read finds its batches.
pub enum Source<D: Disk> {
    /// Nothing to read yet.
    Empty,
    /// In memory: the plan is complete.
    Memory(ReadPlan<D>),
    /// In a sealed segment, and what is read from there on must be below this offset.
    Sealed(SealedSegment, i64),
    /// In the file of the active segment, below what memory has.
    Active(ActiveView<D>, i64),
}

/// The flushed part of an active segment, as a reader needs it: a copy, since the partition goes on.
pub struct ActiveView<D: Disk> {
    reader: D::Reader,
    path: PathBuf,
    base_offset: i64,
    from: u64,
    /// A known boundary that the range surely may reach to.
    known: u64,
    end: u64,
}

impl<D: Disk> Partition<D> {
    /// The last stable offset: the high watermark, or where the first open transaction begins.
    #[must_use]
    pub fn last_stable(&self) -> i64 {
        self.producers.first_unstable().map_or(self.high_watermark, |first| first.min(self.high_watermark))
    }

    /// Where `ask` is to be answered from.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] and [`ReadError::UnknownPartition`].
    pub fn source(&self, ask: &Ask) -> Result<Source<D>, ReadError> {
        if self.is_deleted {
            return Err(ReadError::UnknownPartition);
        }
        if ask.offset < self.log_start || ask.offset > self.log_end() {
            return Err(ReadError::OutOfRange);
        }
        let limit = if ask.read_committed { self.last_stable() } else { self.high_watermark };
        if ask.offset >= limit {
            return Ok(Source::Empty);
        }
        let front = self.front();
        if ask.offset < front.base_offset() {
            let at = self.sealed.partition_point(|sealed| sealed.base_offset <= ask.offset).checked_sub(1);
            return Ok(at.map_or(Source::Empty, |at| Source::Sealed(self.sealed[at], limit)));
        }
        let Some(first) = front.find(ask.offset) else { return Ok(Source::Active(self.view(ask, limit), limit)) };
        let durable = front.boundary(self.progress.durable()).0;
        let most = if limit < self.high_watermark { self.boundary_below(limit).min(durable) } else { durable };
        let start = first.position;
        let mut end = front.whole_end(start, most.min(start.saturating_add(ask.bytes_max as u64)));
        if end == start && ask.at_least_one && first.end() <= most {
            end = first.end();
        }
        let pieces = front.slices(start, end).into_iter().map(Piece::Memory).collect();
        let next_offset = front.boundary(end).1;
        Ok(Source::Memory(ReadPlan { pieces, bytes: (end - start) as usize, next_offset, aborted: Vec::new() }))
    }

    /// Where transactions that overlap the offsets from `from` up to but not including `to` may have been aborted: sealed
    /// segments that are still to be asked, and those whose marker is in the active one.
    #[must_use]
    pub fn aborted(&self, from: i64, to: i64) -> (Vec<SealedSegment>, Vec<AbortedTxn>) {
        let first = self.sealed.partition_point(|sealed| sealed.base_offset <= from).saturating_sub(1);
        let sealed = self.sealed[first..].iter().filter(|sealed| sealed.has_transactions).copied().collect();
        let mut active = Vec::new();
        self.indexes.transactions.collect(from, to, &mut active);
        (sealed, active)
    }

    /// The base offset of the segment behind the one with `base_offset`.
    #[must_use]
    pub fn segment_after(&self, base_offset: i64) -> Option<i64> {
        let at = self.sealed.partition_point(|sealed| sealed.base_offset <= base_offset);
        let next = self.sealed.get(at).map_or(self.front().base_offset(), |sealed| sealed.base_offset);
        (next > base_offset).then_some(next)
    }

    /// Where the first batch in memory begins that has an offset at or above `limit`.
    fn boundary_below(&self, limit: i64) -> u64 {
        self.front().find(limit).map_or(self.front().end(), |held| held.position)
    }

    fn view(&self, ask: &Ask, limit: i64) -> ActiveView<D> {
        let from = self.indexes.offsets.lookup(ask.offset);
        // The file of an offline partition was cut within the block that memory begins with.
        let end = if self.offline.is_some() { self.progress.flushed().min(self.front().tail().start()) } else { self.progress.flushed() };
        ActiveView {
            reader: self.active.reader.clone(),
            path: self.active.path.clone(),
            base_offset: self.front().base_offset(),
            from,
            known: self.indexes.offsets.boundary(from.saturating_add(ask.bytes_max as u64).min(end), limit),
            // The last batch that begins in the file may end in memory: it is found there.
            end,
        }
    }

    /// The bytes of one batch that begins in the file and ends in memory, as a plan.
    #[must_use]
    pub fn straddling(&self, position: u64) -> Option<ReadPlan<D>> {
        let held = self.front().batch_at(position)?;
        self.half_in_memory(position, &held.header)
    }

    /// The same for a batch that memory doesn't know, with what the file holds of its header: an offline partition's, whose
    /// file was cut within a block that was all in it before.
    #[must_use]
    pub fn straddling_offline(&self, position: u64, mut header: Vec<u8>) -> Option<ReadPlan<D>> {
        let front = self.front();
        let start = front.tail().start();
        self.offline.as_ref().filter(|_| position + header.len() as u64 <= start)?;
        let rest = (start + (HEADER_BYTES - header.len()) as u64).min(front.end());
        front.slices(start, rest).iter().for_each(|slice| header.extend_from_slice(slice));
        self.half_in_memory(position, &Header::read(&header)?)
    }

    fn half_in_memory(&self, position: u64, header: &Header) -> Option<ReadPlan<D>> {
        let front = self.front();
        let (start, end) = (front.tail().start(), position + header.size() as u64);
        if end > self.progress.durable() || start >= end {
            return None;
        }
        let mut pieces = Vec::new();
        if position < start {
            pieces.push(Piece::File { reader: self.active.reader.clone(), position, len: (start - position) as usize });
        }
        pieces.extend(front.slices(start.max(position), end).into_iter().map(Piece::Memory));
        let next_offset = header.next_offset();
        Some(ReadPlan { pieces, bytes: (end - position) as usize, next_offset, aborted: Vec::new() })
    }
}

impl<D: Disk> ActiveView<D> {
    fn walk<'a>(&'a self, disk: &'a D, from: u64) -> Walk<'a, D> {
        Walk::new(disk, &self.reader, Scanner::new(from, self.base_offset, i32::MIN).in_segment(self.base_offset), self.end)
    }

    async fn step(&self, walk: &mut Walk<'_, D>) -> Result<Option<(u64, Header)>, ReadError> {
        match walk.next_header().await.map_err(|source| ReadError::Storage { path: self.path.clone(), source })? {
            Ok(found) => Ok(Some(found)),
            // What is left of the file may be the first bytes of a header that goes on in memory.
            Err(Stop::End | Stop::Zeros | Stop::Truncated { .. }) => Ok(None),
            Err(stop) => {
                let position = walk.scanner().position;
                Err(ReadError::Corrupt { path: self.path.clone(), position, what: stop.to_string() })
            }
        }
    }

    /// The batch that holds `offset` or the first one above it: `Err` with where the walk ended if none is whole in the
    /// file.
    ///
    /// # Errors
    /// The disk's, and damage on the way.
    pub async fn find(&self, disk: &D, offset: i64) -> Result<Result<(u64, Header), u64>, ReadError> {
        let mut walk = self.walk(disk, self.from);
        while let Some((position, header)) = self.step(&mut walk).await? {
            if header.last_offset() >= offset {
                return Ok(Ok((position, header)));
            }
        }
        Ok(Err(walk.scanner().position))
    }

    /// Whole batches from the one that holds the offset on: `Err` as [`ActiveView::find`].
    ///
    /// # Errors
    /// The disk's, and damage at the first of them.
    pub async fn range(&self, disk: &D, ask: &Ask, limit: i64) -> Result<Result<BatchRange, u64>, ReadError> {
        let (start, first) = match self.find(disk, ask.offset).await? {
            Ok(found) => found,
            Err(at) => return Ok(Err(at)),
        };
        let bytes_max = ask.bytes_max as u64;
        let mut range = BatchRange { position: start, bytes: 0, next_offset: first.base_offset() };
        if first.last_offset() >= limit {
            // Offsets that are damaged could hide for ever what lies below the limit: those of the batch behind tell.
            let mut walk = self.walk(disk, start);
            for _ in 0..2 {
                self.step(&mut walk).await?;
            }
            return Ok(Ok(range));
        }
        if first.size() as u64 > bytes_max && !ask.at_least_one {
            return Ok(Ok(range));
        }
        range.bytes = first.size() as u64;
        range.next_offset = first.next_offset();
        let behind_first = start + range.bytes;
        // `known` was looked up from a position before the start, so it never goes beyond what is allowed.
        let from = self.known.max(behind_first);
        range.bytes = from - start;
        if from > behind_first {
            range.next_offset = limit;
        }
        let mut walk = self.walk(disk, from);
        while let Ok(Some((position, header))) = self.step(&mut walk).await {
            let bytes = position + header.size() as u64 - start;
            if bytes > bytes_max || header.last_offset() >= limit {
                range.next_offset = header.base_offset();
                break;
            }
            range.bytes = bytes;
            range.next_offset = header.next_offset();
        }
        Ok(Ok(range))
    }

    /// The segment's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds of the header of the batch at `position`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn header_bytes(&self, disk: &D, position: u64) -> Result<Vec<u8>, ReadError> {
        let len = self.end.saturating_sub(position).min(HEADER_BYTES as u64) as usize;
        let read = disk.read_buffered(&self.reader, position, len).await;
        read.map_err(|source| ReadError::Storage { path: self.path.clone(), source })
    }

    /// A plan of a range of the file.
    #[must_use]
    pub fn plan(&self, range: &BatchRange) -> ReadPlan<D> {
        file_plan(&self.reader, range)
    }

    /// The bytes of one batch.
    ///
    /// # Errors
    /// The disk's.
    pub async fn batch(&self, disk: &D, position: u64, header: &Header) -> Result<Vec<u8>, ReadError> {
        let failed = |source| ReadError::Storage { path: self.path.clone(), source };
        let bytes = disk.read_buffered(&self.reader, position, header.size()).await.map_err(failed)?;
        if bytes.len() < header.size() { Err(failed(io::ErrorKind::UnexpectedEof.into())) } else { Ok(bytes) }
    }
}

fn file_plan<D: Disk>(reader: &D::Reader, range: &BatchRange) -> ReadPlan<D> {
    let piece = || Piece::File { reader: reader.clone(), position: range.position, len: range.bytes as usize };
    let pieces = if range.bytes > 0 { vec![piece()] } else { Vec::new() };
    ReadPlan { pieces, bytes: range.bytes as usize, next_offset: range.next_offset, aborted: Vec::new() }
}

/// Reads from a sealed segment: `None` if no batch of it reaches the offset, so that the next one must be asked. That begins at
/// `next`.
///
/// # Errors
/// The disk's, and damage on the way.
pub async fn read_sealed<D: Disk>(
    disk: &D,
    segments: &OpenSegments<D>,
    (directory, partition, base_offset): (&Path, crate::ids::PartitionId, i64),
    next: Option<i64>,
    ask: &Ask,
    limit: i64,
) -> Result<Option<ReadPlan<D>>, ReadError> {
    let sealed = segments.get(disk, directory, partition, base_offset).await?;
    let Some(range) = sealed.range(disk, ask.offset, ask.bytes_max as u64, ask.at_least_one, limit).await? else { return Ok(None) };
    // The offsets of the last batch may be what is damaged: then nothing would ever be read of what lies behind.
    if range.bytes == 0
        && let Some((position, header)) = sealed.find(disk, ask.offset).await?
        && let Some(next) = next.filter(|next| header.last_offset() >= *next)
    {
        let what = format!("last offset {} is not below {next}, where the next segment begins", header.last_offset());
        return Err(ReadError::Corrupt { path: sealed.path().to_owned(), position, what });
    }
    Ok(Some(file_plan(&sealed.reader, &range)))
}
