//! Aligned memory that is filled once, from front to back, and shared while it is: what O_DIRECT writes and what a
//! consumer at the head of the log is sent from.
//!
//! Its memory is used again ([`super::memory`]), so it is *not* zero in general; what pads the last block of a write is made
//! so.

use super::{
    BLOCK,
    memory::{Memory, SPARE_UNIT_BYTES},
};
use std::{cell::Cell, fmt, ops::Deref, rc::Rc};

/// The size of a tail's chunk, in bytes.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A block-aligned buffer. Bytes below `filled` don't change while anybody else has a part of it; bytes above belong to
/// whoever fills it.
pub struct Chunk {
    memory: Memory,
    /// Nothing is filled from here on: the capacity, or a block where its owner has ended it.
    limit: Cell<usize>,
    filled: Cell<usize>,
    /// Bytes from `filled` up to here are zero (none, if it is below `filled`).
    zeroed: Cell<usize>,
}

impl Chunk {
    /// An empty chunk of `capacity` bytes, a multiple of the block above 0.
    #[must_use]
    pub fn new(capacity: usize) -> Rc<Chunk> {
        let (limit, filled, zeroed) = (Cell::new(capacity), Cell::new(0), Cell::new(0));
        Rc::new(Chunk { memory: Memory::new(capacity), limit, filled, zeroed })
    }

    /// An empty chunk for `bytes` that a receiver brings, so placed that their first one lies at `phase` of a block: there
    /// a tail whose end has the same phase can adopt them. Returns the chunk, filled up to there.
    #[must_use]
    pub fn for_receiving(bytes: usize, phase: u64) -> Rc<Chunk> {
        let start = (phase % BLOCK) as usize;
        // Room for the rest of the last block.
        let chunk = Chunk::new((start + bytes).next_multiple_of(BLOCK as usize).next_multiple_of(SPARE_UNIT_BYTES));
        chunk.zero_to(start);
        chunk.filled.set(start);
        chunk
    }

    /// `bytes` in a chunk of their own, padded with zeros to whole blocks (one block at least).
    #[must_use]
    pub fn padded(bytes: &[u8]) -> Slice {
        let capacity = bytes.len().max(1).next_multiple_of(BLOCK as usize);
        let chunk = Chunk::new(capacity);
        chunk.append(bytes);
        chunk.zero_to(capacity);
        chunk.filled.set(capacity);
        chunk.slice(0, capacity)
    }

    /// Makes the bytes from `filled` to `end` zero.
    fn zero_to(&self, end: usize) {
        let from = self.filled.get().max(self.zeroed.get());
        if from < end {
            // SAFETY: within the allocation, and above `filled`. Only a write that pads with these bytes can read them,
            // and it made them zero before.
            unsafe { self.as_ptr().add(from).write_bytes(0, end - from) };
            self.zeroed.set(end);
        }
    }

    /// Bytes that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.bytes()
    }

    /// Bytes filled so far.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.filled.get()
    }

    /// Room that is left, in bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit.get() - self.filled.get()
    }

    /// Nothing more is filled in: what follows is in another chunk. It must end on a block.
    pub fn end_here(&self) {
        assert!((self.filled.get() as u64).is_multiple_of(BLOCK), "a chunk ends on a block");
        self.limit.set(self.filled.get());
    }

    /// Copies `bytes` behind what is filled. They must fit.
    pub fn append(&self, bytes: &[u8]) {
        let filled = self.filled.get();
        assert!(bytes.len() <= self.room(), "{} bytes do not fit", bytes.len());
        // SAFETY: the range lies within the allocation, and above `filled`, which no slice reaches.
        unsafe { self.as_ptr().add(filled).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.filled.set(filled + bytes.len());
    }

    /// The bytes from `start` to `end`, which must be filled, sharing the chunk.
    #[must_use]
    pub fn slice(self: &Rc<Self>, start: usize, end: usize) -> Slice {
        assert!(start <= end && end <= self.filled.get(), "{start}..{end} of {} filled bytes", self.filled.get());
        Slice { chunk: Rc::clone(self), start, end }
    }

    /// The bytes from the block floor of `start` to the block ceiling of `end`, for a direct write: what lies between
    /// `filled` and the ceiling is zero, and must not be filled before the write has completed.
    #[must_use]
    pub fn blocks(self: &Rc<Self>, start: usize, end: usize) -> Slice {
        let block = BLOCK as usize;
        assert!(start <= end && end <= self.filled.get(), "{start}..{end} of {} filled bytes", self.filled.get());
        let ceiling = end.next_multiple_of(block);
        self.zero_to(ceiling);
        Slice { chunk: Rc::clone(self), start: start / block * block, end: ceiling }
    }

    /// The address, for the kernel.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.start().as_ptr()
    }

    /// Marks the first `filled` bytes as filled by the kernel. It never goes back.
    ///
    /// # Safety
    /// Every byte between [`Chunk::filled`] and the new `filled` has been written: until then it is memory that may never have
    /// been initialised, and from now on it can be read. Nothing that writes there is in flight any more.
    pub unsafe fn set_filled(&self, filled: usize) {
        assert!(self.filled.get() <= filled && filled <= self.limit.get(), "filled only grows");
        self.filled.set(filled);
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} of {})", self.filled.get(), self.capacity())
    }
}

/// A part of a chunk; keeps the chunk alive.
#[derive(Clone)]
pub struct Slice {
    chunk: Rc<Chunk>,
    start: usize,
    end: usize,
}

impl Slice {
    /// A part of this slice.
    #[must_use]
    pub fn sub(&self, start: usize, end: usize) -> Slice {
        assert!(start <= end && end <= self.end - self.start, "{start}..{end} of {} bytes", self.end - self.start);
        Slice { chunk: Rc::clone(&self.chunk), start: self.start + start, end: self.start + end }
    }

    /// Overwrites its first bytes, if nobody else has a part of the chunk and this is the last part of it: then it may
    /// also go on being filled. False, and nothing has changed, if somebody has.
    pub fn overwrite_front(&mut self, bytes: &[u8]) -> bool {
        assert!(bytes.len() <= self.end - self.start, "{} bytes do not fit", bytes.len());
        let alone = Rc::strong_count(&self.chunk) == 1 && Rc::weak_count(&self.chunk) == 0 && self.end == self.chunk.filled();
        if alone {
            // SAFETY: within the allocation; no other slice exists, and none is made while `self` is borrowed.
            unsafe { self.chunk.as_ptr().add(self.start).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        alone
    }

    /// The chunk, and where in it the slice is.
    #[must_use]
    pub fn into_chunk(self) -> (Rc<Chunk>, std::ops::Range<usize>) {
        (self.chunk, self.start..self.end)
    }

    /// Where in a block its first byte lies.
    #[must_use]
    pub fn phase(&self) -> u64 {
        self.start as u64 % BLOCK
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: within the allocation. Bytes below `filled` change only through the sole slice, borrowed mutably
        // (`Slice::overwrite_front`); those of a padded last block are not
        // filled while a write of them is in flight (`Chunk::blocks`).
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.start), self.end - self.start) }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.end - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_chunk_pads_its_last_block_with_zeros() {
        let first = Chunk::new(CHUNK_BYTES);
        first.append(&vec![0xff; CHUNK_BYTES]);
        let memory = first.as_ptr();
        drop(first);
        let second = Chunk::new(CHUNK_BYTES);
        assert_eq!(second.as_ptr(), memory, "the pool gives back what it got");
        second.append(b"ab");
        let blocks = second.blocks(0, 2);
        assert_eq!((blocks.len(), &blocks[..2]), (4096, &b"ab"[..]));
        assert!(blocks[2..].iter().all(|byte| *byte == 0));
        drop(blocks);
        second.append(&[1; 5000]);
        let blocks = second.blocks(4096, 5002);
        assert_eq!(blocks.len(), 4096);
        assert!(blocks[..906].iter().all(|byte| *byte == 1) && blocks[906..].iter().all(|byte| *byte == 0));
        let padded = Chunk::padded(&[7; 100]);
        assert!(padded[..100].iter().all(|byte| *byte == 7) && padded[100..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn only_the_sole_owner_of_the_end_of_a_chunk_overwrites_it() {
        let chunk = Chunk::for_receiving(100, 5000);
        assert_eq!((chunk.filled(), chunk.capacity()), (5000 - 4096, SPARE_UNIT_BYTES));
        chunk.append(&[1; 100]);
        let mut slice = chunk.slice(904, 1004);
        assert!(!slice.overwrite_front(&[2; 10]), "the chunk is held elsewhere");
        drop(chunk);
        let other = slice.clone();
        assert!(!slice.overwrite_front(&[2; 10]));
        drop(other);
        assert!(slice.overwrite_front(&[2; 10]));
        assert_eq!((&slice[..10], &slice[10..], slice.phase()), (&[2; 10][..], &[1; 90][..], 904));
        let mut front = slice.sub(0, 50);
        drop(slice);
        assert!(!front.overwrite_front(&[3; 10]), "bytes follow it");
    }
}
