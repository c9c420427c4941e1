//! The memory of chunks: aligned to blocks, kept by a small pool of the thread, and for the largest ones in huge pages.
//!
//! Zeroing fresh memory was 12% of the CPU of a bulk produce, so what is dropped is kept and used again, unzeroed. In
//! pages of 4 KiB the kernel pins each of the 256 pages of a 1 MiB write by itself (5% of the CPU of a bulk produce, and
//! a fault for each page at first): two chunks share a slab that is one huge page.

use super::{BLOCK, CHUNK_BYTES};
use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    cell::RefCell,
    ptr::NonNull,
    rc::Rc,
};

/// What the sizes that are kept are a multiple of, in bytes.
pub const SPARE_UNIT_BYTES: usize = 256 << 10;

/// Memory that a thread keeps at most, in bytes.
pub const SPARE_BYTES_MAX: usize = 32 << 20;

/// A huge page of x86-64 and of most others, in bytes.
const SLAB_BYTES: usize = 2 << 20;

const _: () = assert!(SLAB_BYTES == 2 * CHUNK_BYTES && CHUNK_BYTES.is_multiple_of(SPARE_UNIT_BYTES));

/// Memory of some whole blocks, aligned to one. Its content is anything until it is written.
pub struct Memory(Option<Piece>);

impl Memory {
    /// `bytes` of it: whole blocks, not none.
    pub fn new(bytes: usize) -> Memory {
        assert!(bytes > 0 && (bytes as u64).is_multiple_of(BLOCK), "memory is whole blocks, not {bytes} bytes");
        if let Ok(Some(piece)) = SPARE.try_with(|spare| spare.borrow_mut().take(bytes)) {
            return Memory(Some(piece));
        }
        if bytes != CHUNK_BYTES {
            return Memory(Some(Piece { start: allocate(layout(bytes)), bytes, slab: None }));
        }
        let slab = Rc::new(Slab::new());
        let half = |at: usize| {
            // SAFETY: within the slab's allocation.
            let start = unsafe { slab.0.add(at * CHUNK_BYTES) };
            Memory(Some(Piece { start, bytes, slab: Some(Rc::clone(&slab)) }))
        };
        // The other half waits in the pool.
        drop(half(1));
        half(0)
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
    /// The slab that it is half of; otherwise it is an allocation of its own.
    slab: Option<Rc<Slab>>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.slab.is_none() {
            // SAFETY: allocated in `Memory::new` with this layout, and nobody has it any more.
            unsafe { dealloc(self.start.as_ptr(), layout(self.bytes)) };
        }
    }
}

/// A huge page, if the system gives one.
struct Slab(NonNull<u8>);

impl Slab {
    const LAYOUT: Layout = match Layout::from_size_align(SLAB_BYTES, SLAB_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    };

    fn new() -> Slab {
        let start = allocate(Self::LAYOUT);
        // SAFETY: the range is the allocation's; the advice changes no content. Without huge pages it is refused, and all
        // works as before.
        unsafe { libc::madvise(start.as_ptr().cast(), SLAB_BYTES, libc::MADV_HUGEPAGE) };
        Slab(start)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; both halves are gone.
        unsafe { dealloc(self.0.as_ptr(), Self::LAYOUT) };
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

    fn put(&mut self, piece: Piece) {
        if piece.bytes.is_multiple_of(SPARE_UNIT_BYTES) && self.bytes + piece.bytes <= SPARE_BYTES_MAX {
            self.bytes += piece.bytes;
            self.pieces.push(piece);
        }
    }
}

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { pieces: Vec::new(), bytes: 0 }) };
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
    }

    #[test]
    fn the_halves_of_a_slab_are_apart_and_all_of_it_can_be_written() {
        let halves = [Memory::new(CHUNK_BYTES), Memory::new(CHUNK_BYTES)];
        for (value, half) in (1..).zip(&halves) {
            assert!((half.start().as_ptr() as u64).is_multiple_of(BLOCK));
            // SAFETY: the memory is ours and so large.
            unsafe { half.start().as_ptr().write_bytes(value, half.bytes()) };
        }
        for (value, half) in (1u8..).zip(&halves) {
            // SAFETY: as above; it was written whole.
            let bytes = unsafe { std::slice::from_raw_parts(half.start().as_ptr(), half.bytes()) };
            assert!(bytes.iter().all(|byte| *byte == value));
        }
    }
}
