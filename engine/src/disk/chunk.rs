//! Aligned memory that is filled once, from front to back, and shared while it is: what O_DIRECT writes and what a
//! consumer at the head of the log is sent from.
//!
//! Large chunks come from a small pool of the thread and go back to it: zeroing them afresh was 12% of the CPU of a bulk
//! produce. So a chunk's memory is *not* zero in general; what pads the last block of a write is made so.

use super::BLOCK;
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    cell::{Cell, RefCell},
    fmt,
    ops::Deref,
    ptr::NonNull,
    rc::Rc,
};

/// The size of a tail's chunk, in bytes.
pub const CHUNK_BYTES: usize = 1 << 20;

/// What the sizes of chunks that are kept are a multiple of, in bytes.
pub const SPARE_UNIT_BYTES: usize = 256 << 10;

/// Memory of spare chunks that a thread keeps at most, in bytes.
pub const SPARE_BYTES_MAX: usize = 32 << 20;

/// Memory of chunks that were dropped, the newest last.
struct Spare {
    memories: Vec<(NonNull<u8>, usize)>,
    bytes: usize,
}

impl Spare {
    fn take(&mut self, capacity: usize) -> Option<NonNull<u8>> {
        let at = self.memories.iter().rposition(|(_, held)| *held == capacity)?;
        self.bytes -= capacity;
        Some(self.memories.remove(at).0)
    }

    /// Whether there was room for it.
    fn put(&mut self, memory: NonNull<u8>, capacity: usize) -> bool {
        let keeps = capacity.is_multiple_of(SPARE_UNIT_BYTES) && self.bytes + capacity <= SPARE_BYTES_MAX;
        if keeps {
            self.memories.push((memory, capacity));
            self.bytes += capacity;
        }
        keeps
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        for (memory, capacity) in self.memories.drain(..) {
            // SAFETY: allocated in `Chunk::new` with this layout, and no chunk holds it.
            unsafe { dealloc(memory.as_ptr(), Chunk::layout(capacity)) };
        }
    }
}

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { memories: Vec::new(), bytes: 0 }) };
}

/// A block-aligned buffer. Bytes below `filled` never change; bytes above belong to whoever fills it.
pub struct Chunk {
    memory: NonNull<u8>,
    capacity: usize,
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
        assert!(capacity > 0 && (capacity as u64).is_multiple_of(BLOCK), "a chunk is whole blocks, not {capacity} bytes");
        let made = |memory, zeroed| {
            Rc::new(Chunk { memory, capacity, limit: Cell::new(capacity), filled: Cell::new(0), zeroed: Cell::new(zeroed) })
        };
        if let Ok(Some(memory)) = SPARE.try_with(|spare| spare.borrow_mut().take(capacity)) {
            return made(memory, 0);
        }
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        made(memory, capacity)
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
            unsafe { self.memory.as_ptr().add(from).write_bytes(0, end - from) };
            self.zeroed.set(end);
        }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK as usize).expect("a block is a power of two")
    }

    /// Bytes that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
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
        unsafe { self.memory.as_ptr().add(filled).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
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
        self.memory.as_ptr()
    }

    /// Marks the first `filled` bytes as filled by the kernel. It never goes back.
    pub fn set_filled(&self, filled: usize) {
        assert!(self.filled.get() <= filled && filled <= self.limit.get(), "filled only grows");
        self.filled.set(filled);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if SPARE.try_with(|spare| spare.borrow_mut().put(self.memory, self.capacity)) == Ok(true) {
            return;
        }
        // SAFETY: allocated in `new` with the same layout; the last owner is gone.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) };
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} of {})", self.filled.get(), self.capacity)
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
            unsafe { self.chunk.memory.as_ptr().add(self.start).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
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
        // SAFETY: within the allocation. Bytes below `filled` never change; those of a padded last block are not
        // filled while a write of them is in flight (`Chunk::blocks`).
        unsafe { std::slice::from_raw_parts(self.chunk.memory.as_ptr().add(self.start), self.end - self.start) }
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
    fn the_pool_is_bounded() {
        let most = SPARE_BYTES_MAX / CHUNK_BYTES;
        let chunks: Vec<_> = (0..most + 3).map(|_| Chunk::new(CHUNK_BYTES)).collect();
        drop(chunks);
        SPARE.with(|spare| assert_eq!(spare.borrow().bytes, SPARE_BYTES_MAX));
        drop(Chunk::new(BLOCK as usize));
        SPARE.with(|spare| assert_eq!(spare.borrow().memories.len(), most, "small ones are not kept"));
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
