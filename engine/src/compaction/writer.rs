//! Writes one cleaned segment: its log a chunk at a time, the last one being written while the next one is filled, then its
//! indexes.

use super::job::{CleanError, at};
use crate::{
    batch::Header,
    disk::{BLOCK, CHUNK_BYTES, Chunk, Disk, Open, Pace, Slice, begin},
    segment::{AbortedTxn, FileKind, Indexes, swap::cleaned_name},
};
use futures_util::{future::LocalBoxFuture, join};
use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

/// By how much the file grows at a time, in bytes.
const ALLOCATION_BYTES: u64 = 16 << 20;

/// A segment that is being written.
pub(super) struct Writer<D: Disk> {
    disk: D,
    scratch: PathBuf,
    path: PathBuf,
    file: D::File,
    indexes: Indexes,
    chunk: Rc<Chunk>,
    /// Bytes in front of `chunk`.
    written: u64,
    allocated: u64,
    pace: Rc<Pace>,
    /// The write that is under way.
    writing: Option<LocalBoxFuture<'static, io::Result<()>>>,
}

impl<D: Disk> Writer<D> {
    /// An empty one in the scratch directory, written at that pace.
    pub async fn create(disk: &D, scratch: &Path, base_offset: i64, pace: Pace) -> Result<Writer<D>, CleanError> {
        let path = scratch.join(cleaned_name(base_offset, FileKind::Log));
        let file = disk.open(&path, Open::Create).await.map_err(at(&path))?;
        Ok(Writer {
            disk: disk.clone(),
            scratch: scratch.to_path_buf(),
            path,
            file,
            indexes: Indexes::new(base_offset),
            chunk: Chunk::new(CHUNK_BYTES),
            written: 0,
            allocated: 0,
            pace: Rc::new(pace),
            writing: None,
        })
    }

    /// Appends a batch.
    pub async fn push(&mut self, header: &Header, batch: &[u8]) -> Result<(), CleanError> {
        self.indexes.push(self.written + self.chunk.filled() as u64, header);
        let mut rest = batch;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.chunk.room()));
            self.chunk.append(now);
            rest = later;
            if self.chunk.room() == 0 {
                self.write_chunk().await?;
            }
        }
        Ok(())
    }

    /// Begins the write of what the chunk holds, the last block padded with zeros, and waits for the one before it.
    async fn write_chunk(&mut self) -> Result<(), CleanError> {
        let bytes = self.chunk.filled();
        let end = (self.written + bytes as u64).next_multiple_of(BLOCK);
        self.written_so_far().await?;
        if end > self.allocated {
            self.allocated = end.max(self.allocated + ALLOCATION_BYTES);
            self.disk.allocate(&self.file, self.allocated).await.map_err(at(&self.path))?;
        }
        let (disk, file, pace) = (self.disk.clone(), self.file.clone(), Rc::clone(&self.pace));
        let (position, slice) = (self.written, self.chunk.blocks(0, bytes));
        self.writing = Some(begin(async move { write(&disk, &file, position, &slice, &pace).await }).await);
        self.written += bytes as u64;
        self.chunk = Chunk::new(CHUNK_BYTES);
        Ok(())
    }

    async fn written_so_far(&mut self) -> Result<(), CleanError> {
        match self.writing.take() {
            Some(write) => write.await.map_err(at(&self.path)),
            None => Ok(()),
        }
    }

    /// Completes log and indexes, durably but for their names. Returns the log's bytes.
    pub async fn finish(mut self, aborted: &[AbortedTxn]) -> Result<u64, CleanError> {
        if self.chunk.filled() > 0 {
            self.write_chunk().await?;
        }
        self.written_so_far().await?;
        aborted.iter().for_each(|aborted| self.indexes.transactions.push(*aborted));
        self.indexes.seal();
        let log = async {
            self.disk.truncate(&self.file, self.written).await.map_err(at(&self.path))?;
            self.disk.sync(&self.file).await.map_err(at(&self.path))
        };
        // Each of them ends, also if another one fails: what is still on its way would come into a scratch directory that is emptied then.
        let (log, offsets, times, transactions) = join!(
            log,
            self.write_index(FileKind::Index, self.indexes.offsets.encode()),
            self.write_index(FileKind::TimeIndex, self.indexes.times.encode()),
            // Also an empty one: it takes the place of the one that is there.
            self.write_index(FileKind::TxnIndex, self.indexes.transactions.encode()),
        );
        log.and(offsets).and(times).and(transactions)?;
        Ok(self.written)
    }

    /// Writes a whole index, durable but for its name.
    async fn write_index(&self, kind: FileKind, bytes: Vec<u8>) -> Result<(), CleanError> {
        let path = self.scratch.join(cleaned_name(self.indexes.offsets.base_offset(), kind));
        let work = async {
            let file = self.disk.open(&path, Open::Create).await?;
            let mut position = 0;
            for part in bytes.chunks(CHUNK_BYTES) {
                self.disk.write(&file, position, vec![Chunk::padded(part)]).await?;
                position += part.len() as u64;
            }
            self.disk.truncate(&file, bytes.len() as u64).await?;
            self.disk.sync(&file).await
        };
        work.await.map_err(at(&path))
    }
}

/// Writes whole blocks at `position`, at that pace.
async fn write<D: Disk>(disk: &D, file: &D::File, position: u64, slice: &Slice, pace: &Pace) -> io::Result<()> {
    let mut written = 0;
    while written < slice.len() {
        let bytes = pace.bytes_at_once((slice.len() - written) as u64) as usize;
        let began_us = disk.now_us();
        disk.write(file, position + written as u64, vec![slice.sub(written, written + bytes)]).await?;
        pace.pause(disk, began_us).await;
        written += bytes;
    }
    Ok(())
}
