//! What a read hands out: memory, or ranges of files, and never a copy.

use crate::disk::{Disk, Slice};
use std::io;

/// One run of bytes of a read.
#[derive(Clone)]
pub enum Piece<D: Disk> {
    /// From the tail.
    Memory(Slice),
    /// From a segment, for sendfile.
    File {
        /// The segment's buffered descriptor.
        reader: D::Reader,
        /// Where the run begins, in bytes.
        position: u64,
        /// Its length in bytes.
        len: usize,
    },
}

/// A transaction that was aborted within what was read (`read_committed` only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Its first offset in the partition.
    pub first_offset: i64,
}

/// What a read hands out: whole batches, in order.
pub struct ReadPlan<D: Disk> {
    /// The runs, in order.
    pub pieces: Vec<Piece<D>>,
    /// Their length together, in bytes.
    pub bytes: usize,
    /// An offset above all of theirs, and not above those that follow.
    pub next_offset: i64,
    /// Aborted transactions that overlap it.
    pub aborted: Vec<AbortedTransaction>,
}

impl<D: Disk> ReadPlan<D> {
    /// Collects the bytes, for readers inside the broker.
    ///
    /// # Errors
    /// The disk's.
    pub async fn collect(&self, disk: &D) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.bytes);
        for piece in &self.pieces {
            match piece {
                Piece::Memory(slice) => bytes.extend_from_slice(slice),
                Piece::File { reader, position, len } => {
                    let part = disk.read_buffered(reader, *position, *len).await?;
                    if part.len() < *len {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    bytes.extend_from_slice(&part);
                }
            }
        }
        Ok(bytes)
    }
}
