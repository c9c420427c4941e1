//! One segment's share of memory: its recent bytes, and which batch is where in them.

use super::tail::{Budget, Tail, block_floor};
use crate::{
    batch::{HEADER_BYTES, Header},
    disk::{BLOCK, Slice},
};
use std::{collections::VecDeque, rc::Rc};

/// A batch on its way in.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// It is copied.
    Borrowed(&'a [u8]),
    /// Received into memory that may become the tail's: it does if the slice is the only part of its chunk and ends what is filled of
    /// it, and has the phase that the log asks for (`Log::append_phase`). Otherwise it is copied like any other.
    Received(Slice),
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Incoming<'a> {
    fn from(bytes: &'a T) -> Self {
        Incoming::Borrowed(bytes.as_ref())
    }
}

impl From<Slice> for Incoming<'_> {
    fn from(slice: Slice) -> Self {
        Incoming::Received(slice)
    }
}

impl Incoming<'_> {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Incoming::Borrowed(bytes) => bytes,
            Incoming::Received(slice) => slice,
        }
    }
}

/// A batch in memory.
#[derive(Clone, Copy)]
pub struct Held {
    /// Where it begins in the segment, in bytes.
    pub position: u64,
    /// Its header, as it is in the log.
    pub header: Header,
}

impl Held {
    /// Behind its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + self.header.size() as u64
    }
}

/// The end of a segment that is still in memory: the one that is written to, or one that waits until it may be.
pub struct Stretch {
    base_offset: i64,
    next_offset: i64,
    first_timestamp: Option<i64>,
    began_ms: Option<i64>,
    /// Every batch that ends behind the tail's start, in order.
    batches: VecDeque<Held>,
    tail: Tail,
}

impl Stretch {
    /// An empty segment.
    #[must_use]
    pub fn new(base_offset: i64, budget: Rc<Budget>) -> Stretch {
        Stretch::open(base_offset, base_offset, None, 0, budget)
    }

    /// A segment whose bytes below `position` (a multiple of the block) are in its file only. What is behind, batches
    /// and bytes, follows with [`Stretch::restore`].
    #[must_use]
    pub fn open(base_offset: i64, next_offset: i64, first_timestamp: Option<i64>, position: u64, budget: Rc<Budget>) -> Stretch {
        Stretch {
            base_offset,
            next_offset,
            first_timestamp,
            // The broker's clock at that append is not known any more; the batch's own stands for it.
            began_ms: first_timestamp,
            batches: VecDeque::new(),
            tail: Tail::new(position, budget),
        }
    }

    /// Gives back what memory held before a restart: the bytes from the position it was opened at, and the batches that
    /// end behind it.
    pub fn restore(&mut self, bytes: &[u8], batches: impl IntoIterator<Item = Held>) {
        self.tail.append(bytes);
        self.batches.extend(batches);
        assert!(self.batches.back().is_none_or(|last| last.end() == self.end()), "bytes and batches end together");
    }

    /// The offset that names the segment.
    #[must_use]
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// The offset behind its last record.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The first batch's timestamp in ms, which `segment.ms` counts from.
    #[must_use]
    pub fn first_timestamp(&self) -> Option<i64> {
        self.first_timestamp
    }

    /// When its first batch was appended by the broker's clock, in ms, as far as is known: what `segment.ms` counts from
    /// when nobody appends.
    #[must_use]
    pub fn began_ms(&self) -> Option<i64> {
        self.began_ms
    }

    /// Notes the broker's clock at its first append.
    pub fn begin(&mut self, now_ms: i64) {
        self.began_ms = Some(now_ms);
    }

    /// Bytes of the segment: where the next batch begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.tail.end()
    }

    /// Its bytes in memory.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Adds a batch with a patched header: copied, or its memory adopted where that is possible. Returns how many chunks
    /// of memory that took.
    pub fn append(&mut self, header: &[u8; HEADER_BYTES], batch: Incoming<'_>) -> usize {
        let position = self.end();
        let chunks = match self.adopt(header, batch) {
            Ok(chunks) => chunks,
            Err(batch) => self.tail.append(header) + self.tail.append(&batch.bytes()[HEADER_BYTES..]),
        };
        let header = Header::read(header).expect("a whole header");
        debug_assert_eq!(self.end() - position, header.size() as u64);
        self.next_offset = header.next_offset();
        self.first_timestamp.get_or_insert(header.max_timestamp());
        self.batches.push_back(Held { position, header });
        chunks
    }

    fn adopt<'a>(&mut self, header: &[u8; HEADER_BYTES], batch: Incoming<'a>) -> Result<usize, Incoming<'a>> {
        match batch {
            Incoming::Received(mut slice) => {
                if slice.phase() != self.end() % BLOCK || !slice.overwrite_front(header) {
                    return Err(Incoming::Received(slice));
                }
                self.tail.adopt(slice).map_err(Incoming::Received)
            }
            borrowed => Err(borrowed),
        }
    }

    /// The bytes of a range, shared. They must be in memory.
    #[must_use]
    pub fn slices(&self, start: u64, end: u64) -> Vec<Slice> {
        self.tail.slices(start, end)
    }

    /// The batches in memory that begin at or behind `position`.
    pub fn batches_from(&self, position: u64) -> impl Iterator<Item = &Held> {
        self.batches.range(self.first_not(|held| held.position < position)..)
    }

    /// The last batch boundary at or below `position` as (position, next offset). `position` must not be below the
    /// bytes in memory by more than a batch.
    #[must_use]
    pub fn boundary(&self, position: u64) -> (u64, i64) {
        if position >= self.end() {
            return (self.end(), self.next_offset);
        }
        let whole = self.first_not(|held| held.end() <= position);
        self.batches.get(whole).map_or((self.end(), self.next_offset), |next| (next.position, next.header.base_offset()))
    }

    /// The first batch in memory, whole, whose last record is at or above `offset`; `None` if that one is not in memory.
    #[must_use]
    pub fn find(&self, offset: i64) -> Option<&Held> {
        let at = self.first_not(|held| held.header.last_offset() < offset);
        let found = self.batches.get(at)?;
        // The first of all could have others before it that hold the offset, unless it begins at or below it.
        let is_first = at == 0 && self.batches.front().is_some_and(|first| first.position > 0 && first.header.base_offset() > offset);
        (found.position >= self.tail.start() && !is_first).then_some(found)
    }

    /// The end of the last whole batch that begins at or behind `start` and ends at or below `end`; `start` if none does.
    #[must_use]
    pub fn whole_end(&self, start: u64, end: u64) -> u64 {
        let whole = self.first_not(|held| held.end() <= end);
        whole.checked_sub(1).map_or(start, |at| self.batches[at].end().max(start))
    }

    /// The batch that begins at `position`.
    #[must_use]
    pub fn batch_at(&self, position: u64) -> Option<&Held> {
        self.batches.get(self.first_not(|held| held.position < position)).filter(|held| held.position == position)
    }

    /// Gives back the oldest chunk of memory if it lies below `position`. True if it did.
    pub fn release_oldest(&mut self, position: u64) -> bool {
        let released = self.tail.release_oldest(block_floor(position));
        if released {
            self.forget_batches();
        }
        released
    }

    /// Gives back the memory of the oldest chunk below `position` if little of it lies behind. True if it did.
    pub fn condense_oldest(&mut self, position: u64) -> bool {
        let condensed = self.tail.condense_oldest(position);
        if condensed {
            self.forget_batches();
        }
        condensed
    }

    /// Gives back all memory but the last partial block: the segment holds everything.
    pub fn shrink(&mut self) {
        self.tail.shrink();
        self.forget_batches();
    }

    /// How many batches in memory are `before`, all of which come first. Searched from the end, where almost everyone looks:
    /// of a million small batches the middle ones are in nobody's cache.
    fn first_not(&self, before: impl Fn(&Held) -> bool) -> usize {
        let (mut start, mut end, mut step) = (0, self.batches.len(), 1);
        while end > 0 {
            let probe = end.saturating_sub(step);
            if before(&self.batches[probe]) {
                start = probe + 1;
                break;
            }
            (end, step) = (probe, step * 2);
        }
        while start < end {
            let middle = start.midpoint(end);
            if before(&self.batches[middle]) {
                start = middle + 1;
            } else {
                end = middle;
            }
        }
        start
    }

    fn forget_batches(&mut self) {
        let start = self.tail.start();
        while self.batches.front().is_some_and(|held| held.end() <= start) {
            self.batches.pop_front();
        }
    }

    /// Forgets everything behind a batch boundary that memory still covers.
    pub fn truncate(&mut self, end: u64) {
        let (position, next_offset) = self.boundary(end);
        assert_eq!(position, end, "only whole batches are dropped");
        self.batches.truncate(self.first_not(|held| held.position < end));
        self.tail.truncate(end);
        self.next_offset = next_offset;
        if end == 0 {
            (self.first_timestamp, self.began_ms) = (None, None);
        }
    }
}
