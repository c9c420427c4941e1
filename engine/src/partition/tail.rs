//! The recent bytes of one segment in memory: aligned chunks in phase with the file, so that what is kept for readers at
//! the head of the log is also what a direct write takes.

use crate::disk::{BLOCK, CHUNK_BYTES, Chunk, Slice};
use std::{cell::Cell, collections::VecDeque, rc::Rc};

/// The first chunk of a quiet partition, in bytes; each next one is twice as large, up to [`CHUNK_BYTES`].
pub const CHUNK_BYTES_MIN: usize = 16 << 10;

/// A chunk is condensed if no more than this part of it is still needed: a copy of 1 MiB is not worth it, one of 4 KiB is.
const CONDENSED_PART: usize = 8;

/// Rounds down to a whole block.
#[must_use]
pub const fn block_floor(position: u64) -> u64 {
    position / BLOCK * BLOCK
}

/// Rounds up to a whole block.
#[must_use]
pub const fn block_ceiling(position: u64) -> u64 {
    position.next_multiple_of(BLOCK)
}

/// The memory of all tails of a core, in bytes, counted and bounded.
#[derive(Debug)]
pub struct Budget {
    held: Cell<u64>,
    max: u64,
}

impl Budget {
    /// A budget of `max` bytes.
    #[must_use]
    pub fn new(max: u64) -> Rc<Budget> {
        Rc::new(Budget { held: Cell::new(0), max })
    }

    /// Bytes of chunks that tails hold now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    /// True if tails should give back what is in their segments already.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.held.get() > self.max
    }

    fn take(&self, bytes: usize) {
        self.held.set(self.held.get() + bytes as u64);
    }

    fn give_back(&self, bytes: usize) {
        self.held.set(self.held.get() - bytes as u64);
    }
}

struct Held {
    /// Where it begins in the segment: a multiple of the block.
    position: u64,
    /// Where that is in the chunk, a multiple of the block: what lies before it is none of the segment's.
    offset: usize,
    chunk: Rc<Chunk>,
}

impl Held {
    fn end(&self) -> u64 {
        self.position + (self.chunk.filled() - self.offset) as u64
    }

    /// A range of the segment that it holds.
    fn slice(&self, start: u64, end: u64) -> Slice {
        self.chunk.slice((start - self.position) as usize + self.offset, (end - self.position) as usize + self.offset)
    }

    /// What it holds from a block on, copied to a chunk of its own, which has room for no more than the last block.
    fn from(&self, block: u64) -> Held {
        let chunk = Chunk::new(block_ceiling(self.end() - block) as usize);
        chunk.append(&self.slice(block, self.end()));
        Held { position: block, offset: 0, chunk }
    }
}

/// The bytes of a segment from a block boundary to its end. Slices of it stay valid when it gives chunks back.
pub struct Tail {
    chunks: VecDeque<Held>,
    end: u64,
    chunk_bytes_next: usize,
    budget: Rc<Budget>,
}

impl Tail {
    /// An empty tail at `position`, a multiple of the block.
    #[must_use]
    pub fn new(position: u64, budget: Rc<Budget>) -> Tail {
        assert!(position.is_multiple_of(BLOCK), "a tail begins at a block, not at {position}");
        Tail { chunks: VecDeque::new(), end: position, chunk_bytes_next: CHUNK_BYTES_MIN, budget }
    }

    /// The first position that is held, a multiple of the block; the end if nothing is.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.chunks.front().map_or(self.end, |held| held.position)
    }

    /// Behind the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Copies `bytes` behind the end: their only copy on the way to the disk. Returns how many chunks were added.
    pub fn append(&mut self, mut bytes: &[u8]) -> usize {
        let mut added = 0;
        while !bytes.is_empty() {
            if self.chunks.back().is_none_or(|held| held.chunk.room() == 0) {
                self.add_chunk(bytes.len());
                added += 1;
            }
            let chunk = &self.chunks.back().expect("just added").chunk;
            let (now, rest) = bytes.split_at(bytes.len().min(chunk.room()));
            chunk.append(now);
            self.end += now.len() as u64;
            bytes = rest;
        }
        added
    }

    fn add_chunk(&mut self, wanted: usize) {
        debug_assert!(self.end.is_multiple_of(BLOCK), "chunks are whole blocks");
        let bytes = self.chunk_bytes_next.max(wanted.min(CHUNK_BYTES).next_power_of_two());
        self.chunk_bytes_next = (bytes * 2).min(CHUNK_BYTES);
        self.budget.take(bytes);
        self.chunks.push_back(Held { position: self.end, offset: 0, chunk: Chunk::new(bytes) });
    }

    /// Takes over the memory of `bytes` as what is behind the end, if their first one lies where the end is in its block:
    /// only the rest of that block is copied. The chunk behind `bytes` must be free to be filled. Returns how many chunks
    /// were added, or gives the bytes back.
    ///
    /// # Errors
    /// The slice, if it lies elsewhere in its block.
    pub fn adopt(&mut self, bytes: Slice) -> Result<usize, Slice> {
        let copied = (block_ceiling(self.end) - self.end) as usize;
        if bytes.phase() != self.end % BLOCK || bytes.len() <= copied {
            return Err(bytes);
        }
        let added = self.append(&bytes[..copied]);
        if let Some(last) = self.chunks.back() {
            last.chunk.end_here();
        }
        let len = (bytes.len() - copied) as u64;
        let (chunk, range) = bytes.into_chunk();
        assert!(range.end == chunk.filled() && Rc::strong_count(&chunk) == 1, "an adopted chunk is nobody else's, and filled to its end");
        self.budget.take(chunk.capacity());
        self.chunks.push_back(Held { position: self.end, offset: range.start + copied, chunk });
        self.end += len;
        Ok(added + 1)
    }

    /// The bytes from `start` to `end`, shared. They must be held.
    #[must_use]
    pub fn slices(&self, start: u64, end: u64) -> Vec<Slice> {
        assert!(self.start() <= start && start <= end && end <= self.end, "{start}..{end} is not in {}..{}", self.start(), self.end);
        if start == end {
            return Vec::new();
        }
        let first = self.chunks.partition_point(|held| held.end() <= start);
        let of_chunk = |held: &Held| held.slice(start.max(held.position), end.min(held.end()));
        self.chunks.range(first..).take_while(|held| held.position < end).map(of_chunk).collect()
    }

    /// Whole blocks from `start` to `end`, for a direct write. A last block that isn't filled is a padded copy, so that
    /// the tail can go on filling its own.
    #[must_use]
    pub fn blocks(&self, start: u64, end: u64) -> Vec<Slice> {
        assert!(start.is_multiple_of(BLOCK), "a direct write begins at a block, not at {start}");
        let whole = block_floor(end);
        let mut slices = self.slices(start, whole.max(start));
        if end > whole {
            let mut last = Vec::with_capacity(BLOCK as usize);
            self.slices(whole, end).iter().for_each(|slice| last.extend_from_slice(slice));
            slices.push(Chunk::padded(&last));
        }
        slices
    }

    /// Gives back the oldest chunk if it lies wholly below `position`.
    pub fn release_oldest(&mut self, position: u64) -> bool {
        let releasable = self.chunks.front().is_some_and(|held| held.chunk.room() == 0 && held.end() <= position);
        if releasable && let Some(held) = self.chunks.pop_front() {
            self.budget.give_back(held.chunk.capacity());
        }
        releasable
    }

    /// Gives back the memory of the oldest chunk below `position` if little of it lies behind: that moves to a chunk of its
    /// own. So a large batch whose last block waits in the journal does not hold all its memory until the next one comes.
    pub fn condense_oldest(&mut self, position: u64) -> bool {
        let is_last = self.chunks.len() == 1;
        let Some(held) = self.chunks.front_mut() else { return false };
        let from = block_floor(position);
        if held.position >= from || held.end() <= from {
            return false;
        }
        let left = held.end() - from;
        assert!(is_last || left.is_multiple_of(BLOCK), "only the last chunk ends within a block");
        if block_ceiling(left) as usize > held.chunk.capacity() / CONDENSED_PART {
            return false;
        }
        let kept = held.from(from);
        self.budget.give_back(held.chunk.capacity());
        self.budget.take(kept.chunk.capacity());
        *held = kept;
        self.chunk_bytes_next = CHUNK_BYTES_MIN;
        true
    }

    /// Keeps no more than the block that the next append shares, in a chunk of its own: what a parked partition holds.
    pub fn shrink(&mut self) {
        let from = block_floor(self.end);
        let last = self.chunks.back().filter(|held| held.end() > from).map(|held| held.from(from));
        self.clear();
        self.chunk_bytes_next = CHUNK_BYTES_MIN;
        if let Some(last) = last {
            self.budget.take(last.chunk.capacity());
            self.chunks.push_back(last);
        }
    }

    /// Forgets everything from `end` on. What was handed out stays whole: the bytes that are kept of the last chunk
    /// move to one of their own.
    pub fn truncate(&mut self, end: u64) {
        assert!(self.start() <= end && end <= self.end, "{end} is not in {}..{}", self.start(), self.end);
        while self.chunks.back().is_some_and(|held| held.position >= end) {
            let held = self.chunks.pop_back().expect("just seen");
            self.budget.give_back(held.chunk.capacity());
        }
        if let Some(held) = self.chunks.back_mut()
            && held.end() > end
        {
            let kept = Chunk::new(held.chunk.capacity());
            kept.append(&held.slice(held.position, end));
            (held.chunk, held.offset) = (kept, 0);
        }
        self.end = end;
    }

    fn clear(&mut self) {
        self.chunks.drain(..).for_each(|held| self.budget.give_back(held.chunk.capacity()));
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|n| (n % 251) as u8).collect()
    }

    fn joined(slices: &[Slice]) -> Vec<u8> {
        slices.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn any_range_comes_back_as_it_was_appended() {
        let budget = Budget::new(1 << 30);
        let mut tail = Tail::new(8192, Rc::clone(&budget));
        let all = bytes(0, 300_000);
        for part in all.chunks(777) {
            tail.append(part);
        }
        for (start, end) in [(0, 300_000), (1, 2), (16_383, 16_385), (100_000, 250_001), (5, 5)] {
            assert_eq!(joined(&tail.slices(8192 + start, 8192 + end)), all[start as usize..end as usize]);
        }
        drop(tail);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_direct_write_gets_whole_blocks_and_the_tail_goes_on_filling() {
        let mut tail = Tail::new(0, Budget::new(1 << 30));
        tail.append(&bytes(0, 5_000));
        let written = tail.blocks(0, 5_000);
        tail.append(&bytes(5_000, 5_000));
        let written = joined(&written);
        assert_eq!(written.len(), 8192);
        assert_eq!(written[..5_000], bytes(0, 5_000));
        assert!(written[5_000..].iter().all(|byte| *byte == 0));
        assert_eq!(joined(&tail.slices(0, 10_000)), bytes(0, 10_000));
    }

    #[test]
    fn adopted_bytes_are_written_and_read_as_if_they_had_been_copied() {
        let budget = Budget::new(1 << 30);
        let mut tail = Tail::new(8192, Rc::clone(&budget));
        let all = bytes(0, 400_000);
        let mut at = 0;
        for (len, phase_off) in [(100, 0), (100_000, 0), (50_000, 1), (4_096, 0), (3, 0), (90_000, 0)] {
            let part = &all[at..at + len];
            let chunk = Chunk::for_receiving(len, tail.end() + phase_off);
            let start = chunk.filled();
            chunk.append(part);
            let slice = chunk.slice(start, start + len);
            drop(chunk);
            let may = phase_off == 0 && len as u64 > block_ceiling(tail.end()) - tail.end();
            match tail.adopt(slice) {
                Ok(added) => assert!(may && added > 0),
                Err(slice) => {
                    assert!(!may);
                    tail.append(&slice);
                }
            }
            at += len;
        }
        let end = 8192 + at as u64;
        assert_eq!((tail.start(), tail.end()), (8192, end));
        for (start, end) in [(8192, end), (8192 + 99, 8192 + 4097), (8192 + 100_000, 8192 + 160_000)] {
            assert_eq!(joined(&tail.slices(start, end)), all[(start - 8192) as usize..(end - 8192) as usize]);
        }
        let blocks = tail.blocks(8192, end);
        assert!(blocks.iter().all(|slice| slice.len() % 4096 == 0 && (slice.as_ptr() as u64).is_multiple_of(BLOCK)));
        assert_eq!(joined(&blocks)[..at], all[..at]);
        tail.truncate(8192 + 60_000);
        tail.append(&all[60_000..70_000]);
        assert_eq!(joined(&tail.slices(8192, 8192 + 70_000)), all[..70_000]);
        while tail.release_oldest(8192 + 40_000) {}
        tail.shrink();
        assert_eq!(budget.held(), 4096);
        drop(tail);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn shrinking_keeps_the_partial_block_only() {
        let budget = Budget::new(1 << 30);
        let mut tail = Tail::new(0, Rc::clone(&budget));
        tail.append(&bytes(0, 70_000));
        tail.shrink();
        assert_eq!((tail.start(), tail.end(), budget.held()), (69_632, 70_000, 4096));
        tail.append(&bytes(70_000, 9_000));
        assert_eq!(joined(&tail.slices(69_632, 79_000)), bytes(69_632, 9_368));
    }

    #[test]
    fn a_large_batch_keeps_only_what_its_segment_does_not_have() {
        let budget = Budget::new(1 << 30);
        let mut tail = Tail::new(0, Rc::clone(&budget));
        let chunk = Chunk::for_receiving(100_000, 0);
        chunk.append(&bytes(0, 100_000));
        let slice = chunk.slice(0, 100_000);
        drop(chunk);
        tail.adopt(slice).expect("in phase");
        let out = tail.slices(0, 100_000);
        assert!(!tail.condense_oldest(50_000), "half of it is needed");
        assert!(!tail.condense_oldest(100_000 - 98_304), "nothing is given back");
        assert!(tail.condense_oldest(98_304));
        assert!(!tail.condense_oldest(98_304), "it is condensed");
        assert_eq!((tail.start(), tail.end(), budget.held()), (98_304, 100_000, 4_096));
        tail.append(&bytes(100_000, 9_000));
        assert_eq!(joined(&tail.slices(98_304, 109_000)), bytes(98_304, 10_696));
        assert_eq!(joined(&out), bytes(0, 100_000));
        assert!(tail.release_oldest(102_400));
        drop(tail);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn what_was_handed_out_survives_truncation_and_release() {
        let mut tail = Tail::new(0, Budget::new(1 << 30));
        tail.append(&bytes(0, 16_384));
        tail.append(&bytes(16_384, 23_616));
        let out = tail.slices(0, 40_000);
        tail.truncate(20_000);
        tail.append(&bytes(7, 30_000));
        assert!(tail.release_oldest(16_384));
        assert!(!tail.release_oldest(16_384));
        assert_eq!(joined(&out), bytes(0, 40_000));
        assert_eq!(joined(&tail.slices(20_000, 50_000)), bytes(7, 30_000));
        assert_eq!(joined(&tail.slices(16_384, 20_000)), bytes(16_384, 3_616));
    }
}
