//! Aligned memory that is filled once, from front to back, and shared while it is: what O_DIRECT writes and what a
//! consumer at the head of the log is sent from.
//!
//! Chunks of [`CHUNK_BYTES`] come from a small pool of the thread and go back to it: zeroing them afresh was 12% of the
//! CPU of a bulk produce. So a chunk's memory is *not* zero in general; what pads the last block of a write is made so.

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

/// Spare chunks that a thread keeps at most: 32 MiB.
pub const SPARE_CHUNKS_MAX: usize = 32;

/// Memory of chunks that were dropped.
struct Spare(Vec<NonNull<u8>>);

impl Drop for Spare {
    fn drop(&mut self) {
        for memory in self.0.drain(..) {
            // SAFETY: allocated in `Chunk::new` with this layout, and no chunk holds it.
            unsafe { dealloc(memory.as_ptr(), Chunk::layout(CHUNK_BYTES)) };
        }
    }
}

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare(Vec::new())) };
}

/// A block-aligned buffer. Bytes below `filled` never change; bytes above belong to whoever fills it.
pub struct Chunk {
    memory: NonNull<u8>,
    capacity: usize,
    filled: Cell<usize>,
    /// Bytes from `filled` up to here are zero (none, if it is below `filled`).
    zeroed: Cell<usize>,
}

impl Chunk {
    /// An empty chunk of `capacity` bytes, a multiple of the block above 0.
    #[must_use]
    pub fn new(capacity: usize) -> Rc<Chunk> {
        assert!(capacity > 0 && (capacity as u64).is_multiple_of(BLOCK), "a chunk is whole blocks, not {capacity} bytes");
        if capacity == CHUNK_BYTES
            && let Ok(Some(memory)) = SPARE.try_with(|spare| spare.borrow_mut().0.pop())
        {
            return Rc::new(Chunk { memory, capacity, filled: Cell::new(0), zeroed: Cell::new(0) });
        }
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Rc::new(Chunk { memory, capacity, filled: Cell::new(0), zeroed: Cell::new(capacity) })
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
        self.capacity - self.filled.get()
    }

    /// Copies `bytes` behind what is filled. They must fit.
    pub fn append(&self, bytes: &[u8]) {
        let filled = self.filled.get();
        assert!(bytes.len() <= self.capacity - filled, "{} bytes do not fit", bytes.len());
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
        assert!(self.filled.get() <= filled && filled <= self.capacity, "filled only grows");
        self.filled.set(filled);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.capacity == CHUNK_BYTES {
            let kept = SPARE.try_with(|spare| {
                let spare = &mut spare.borrow_mut().0;
                let room = spare.len() < SPARE_CHUNKS_MAX;
                if room {
                    spare.push(self.memory);
                }
                room
            });
            if kept == Ok(true) {
                return;
            }
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
        let chunks: Vec<_> = (0..SPARE_CHUNKS_MAX + 3).map(|_| Chunk::new(CHUNK_BYTES)).collect();
        drop(chunks);
        SPARE.with(|spare| assert_eq!(spare.borrow().0.len(), SPARE_CHUNKS_MAX));
    }
}
