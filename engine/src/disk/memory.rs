//! The memory of chunks: aligned to blocks, and kept by a small pool of the thread.
//!
//! Zeroing fresh memory was 12% of the CPU of a bulk produce, so what is dropped is kept and used again, unzeroed. Huge
//! pages gave nothing that could be shown (`docs/benchmarks.md`).

use super::BLOCK;
#[cfg(test)]
use super::CHUNK_BYTES;
use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    cell::RefCell,
    ptr::NonNull,
};

/// What the sizes that are kept are a multiple of, in bytes.
pub const SPARE_UNIT_BYTES: usize = 256 << 10;

/// Memory that a thread keeps at most, in bytes.
pub const SPARE_BYTES_MAX: usize = 32 << 20;

/// Memory of some whole blocks, aligned to one. Its content is anything until it is written.
pub struct Memory(Option<Piece>);

impl Memory {
    /// `bytes` of it: whole blocks, not none.
    pub fn new(bytes: usize) -> Memory {
        assert!(bytes > 0 && (bytes as u64).is_multiple_of(BLOCK), "memory is whole blocks, not {bytes} bytes");
        if let Ok(Some(piece)) = SPARE.try_with(|spare| spare.borrow_mut().take(bytes)) {
            return Memory(Some(piece));
        }
        Memory(Some(Piece { start: allocate(layout(bytes)), bytes }))
    }

    fn piece(&self) -> &Piece {
        self.0.as_ref().expect("it is taken by the drop only")
    }

    /// Its first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.piece().start
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.piece().bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(piece) = self.0.take() {
            // What there is no room for, or what is dropped when the thread ends, is freed.
            let _ = SPARE.try_with(|spare| spare.borrow_mut().put(piece));
        }
    }
}

/// Memory in use or kept.
struct Piece {
    start: NonNull<u8>,
    bytes: usize,
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: allocated in `Memory::new` with this layout, and nobody has it any more.
        unsafe { dealloc(self.start.as_ptr(), layout(self.bytes)) };
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, BLOCK as usize).expect("a block is a power of two")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout's size is not 0.
    NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

/// What was dropped, the newest last.
#[derive(Default)]
struct Spare {
    pieces: Vec<Piece>,
    bytes: usize,
}

impl Spare {
    fn take(&mut self, bytes: usize) -> Option<Piece> {
        let at = self.pieces.iter().rposition(|piece| piece.bytes == bytes)?;
        self.bytes -= bytes;
        Some(self.pieces.remove(at))
    }

    /// Keeps a piece, in the place of the oldest ones: they may have a size that nobody wants any more.
    fn put(&mut self, piece: Piece) {
        if !piece.bytes.is_multiple_of(SPARE_UNIT_BYTES) || piece.bytes > SPARE_BYTES_MAX {
            return;
        }
        while self.bytes + piece.bytes > SPARE_BYTES_MAX {
            self.bytes -= self.pieces.remove(0).bytes;
        }
        self.bytes += piece.bytes;
        self.pieces.push(piece);
    }
}

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { pieces: Vec::new(), bytes: 0 }) };
}

/// Gives the memory that the thread keeps back to the system, and with it what the allocator has of free pages.
pub fn give_back() {
    let kept = SPARE.try_with(|spare| std::mem::take(&mut *spare.borrow_mut()));
    drop(kept);
    // The allocator keeps what was freed below something that is still in use.
    // SAFETY: it only gives free pages back.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_out_again_within_the_bound() {
        let first = Memory::new(CHUNK_BYTES);
        let (start, most) = (first.start(), SPARE_BYTES_MAX / CHUNK_BYTES);
        drop(first);
        let again = Memory::new(CHUNK_BYTES);
        assert_eq!(again.start(), start);
        let many: Vec<_> = (0..most + 3).map(|_| Memory::new(CHUNK_BYTES)).collect();
        drop((again, many));
        SPARE.with(|spare| assert_eq!(spare.borrow().bytes, SPARE_BYTES_MAX));
        drop(Memory::new(BLOCK as usize));
        SPARE.with(|spare| assert_eq!(spare.borrow().pieces.len(), most, "small ones are not kept"));
        drop(Memory::new(SPARE_UNIT_BYTES));
        SPARE.with(|spare| assert_eq!(spare.borrow().bytes, SPARE_BYTES_MAX - CHUNK_BYTES + SPARE_UNIT_BYTES, "the oldest made room"));
    }
}
