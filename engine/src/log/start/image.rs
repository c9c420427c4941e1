//! The image of a segment: its file with the journal's entries laid over it, later ones winning, read through windows.

use crate::{
    batch::{HEADER_BYTES, Header, MAGIC, MAGIC_AT, Scanner, Step, Stop},
    bugs::{self, Bug},
    disk::{BLOCK, Disk, Open, rewrite},
    journal::{Ended, Entry, ended, is_front},
    segment::OffsetIndex,
};
use std::{io, ops::Range, path::Path};

/// What a window reads at least once it has moved on a few times without a leap, in bytes; a block before that.
const WINDOW_BYTES: u64 = 256 << 10;
const _: () = assert!(WINDOW_BYTES.is_multiple_of(BLOCK));

/// A segment's file and what the journal knows of it.
pub(super) struct Image<'a, D: Disk> {
    disk: &'a D,
    /// At the segment's first byte, with what bounds its batches.
    first: Scanner,
    /// `None` if only the journal has anything of it.
    file: Option<D::File>,
    entries: Vec<&'a Entry>,
    file_bytes: u64,
    bytes: u64,
    window: u64,
    ahead: u64,
    segment: Vec<u8>,
    image: Vec<u8>,
}

/// How the scan of an image ended.
pub(super) struct Scanned {
    /// Behind the last batch that counts.
    pub(super) end: Scanner,
    /// Why it is the last.
    pub(super) stop: Stop,
    /// Where the batches that were scanned begin, in order.
    pub(super) starts: Vec<u32>,
    /// The CRC of the last one was checked.
    pub(super) is_last_checked: bool,
}

impl<'a, D: Disk> Image<'a, D> {
    /// Opens a segment. `first` stands at its first byte; `bytes_max` bounds what counts of its file, in bytes.
    pub(super) async fn open(disk: &'a D, path: &Path, first: Scanner, entries: Vec<&'a Entry>, bytes_max: u64) -> io::Result<Self> {
        let file = disk.open(path, Open::Existing).await?;
        let file_bytes = disk.size(&file).await?;
        Ok(Image::new(disk, first, Some(file), entries, file_bytes, file_bytes.min(bytes_max)))
    }

    /// A segment whose file is gone.
    pub(super) fn of_journal(disk: &'a D, first: Scanner, entries: Vec<&'a Entry>) -> Self {
        Image::new(disk, first, None, entries, 0, 0)
    }

    fn new(disk: &'a D, first: Scanner, file: Option<D::File>, entries: Vec<&'a Entry>, file_bytes: u64, counted: u64) -> Self {
        // Positions are 32 bits wide.
        let bytes = counted.max(entries_end(&entries)).min(u64::from(u32::MAX));
        Image { disk, first, file, entries, file_bytes, bytes, window: 0, ahead: BLOCK, segment: Vec::new(), image: Vec::new() }
    }

    /// A scan from where a batch begins, of which no more is known.
    pub(super) fn scanner(&self, position: u64) -> Scanner {
        Scanner { position, ..self.first }
    }

    /// The size of its file in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Behind the last byte that was acked, or may have been, as far as it is there. `vouched` is what [`vouched`] says.
    ///
    /// [`vouched`]: crate::journal::vouched
    pub(super) fn acked_end(&self, vouched: u64) -> u64 {
        // The last run's end entry lies where its bytes end, and no entry may have followed it.
        entries_end(&self.entries).max(vouched).min(self.bytes)
    }

    /// Makes durable what its file shows below `end` and the image agrees with; all that is below `flushed` was so before.
    /// The other blocks are the journal's, and may have no space yet: a full disk is no reason not to start.
    pub(super) async fn settle(&mut self, flushed: u64, end: u64) -> io::Result<()> {
        let end = end.min(self.file_bytes) / BLOCK * BLOCK;
        let mut at = flushed / BLOCK * BLOCK;
        let (differ, _) = self.differences(end).await?;
        let Some(file) = &self.file else { return Ok(()) };
        for range in differ.iter().map(|range| u64::from(range.start)..u64::from(range.end)).chain(std::iter::once(end..end)) {
            rewrite(self.disk, file, at, range.start.max(at)).await?;
            at = at.max(range.end);
        }
        self.disk.flush(file).await
    }

    /// Loads `length` bytes from `position` on, as far as there are any.
    async fn load(&mut self, position: u64, length: u64) -> io::Result<Range<usize>> {
        let end = (position + length).min(self.bytes).max(position);
        let window_end = self.window + self.image.len() as u64;
        if position < self.window || end > window_end {
            let leaps = position < self.window || position > window_end;
            self.ahead = if leaps { BLOCK } else { (2 * self.ahead).min(WINDOW_BYTES) };
            self.window = position / BLOCK * BLOCK;
            let wanted = (end - self.window).max(self.ahead).next_multiple_of(BLOCK) as usize;
            self.segment.clear();
            while self.segment.len() < wanted && self.window + (self.segment.len() as u64) < self.file_bytes {
                let Some(file) = &self.file else { break };
                let at = self.window + self.segment.len() as u64;
                let part = self.disk.read(file, at, (wanted - self.segment.len()).min(1 << 20)).await?;
                if part.is_empty() {
                    break;
                }
                self.segment.extend_from_slice(&part);
            }
            self.segment.resize(wanted, 0);
            self.image.clone_from(&self.segment);
            for entry in &self.entries {
                overlay(&mut self.image, self.window, entry);
            }
        }
        let from = (position - self.window) as usize;
        Ok(from..from + (end - position) as usize)
    }

    /// The bytes from `position` on: `length` of them, as far as there are so many.
    pub(super) async fn view(&mut self, position: u64, length: usize) -> io::Result<&[u8]> {
        let range = self.load(position, length as u64).await?;
        Ok(&self.image[range])
    }

    /// How many bytes there are from `position` on.
    pub(super) fn left(&self, position: u64) -> u64 {
        self.bytes.saturating_sub(position)
    }

    /// The image's bytes of a range that lies within it.
    pub(super) async fn bytes(&mut self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let part = self.load(at, WINDOW_BYTES.min(range.end - at)).await?;
            assert!(!part.is_empty(), "the range lies within the image");
            at += part.len() as u64;
            bytes.extend_from_slice(&self.image[part]);
        }
        Ok(bytes)
    }

    /// Scans whole batches from `scanner` on, up to the first invalid byte or a batch at or above `offset_limit`. `each`
    /// gets header and bytes of every one.
    pub(super) async fn scan(
        &mut self,
        mut scanner: Scanner,
        offset_limit: i64,
        mut each: impl FnMut(&Header, &[u8]),
    ) -> io::Result<Scanned> {
        let mut starts = Vec::new();
        let mut wanted = 0;
        loop {
            if bugs::on(Bug::NoTruncationNoEpoch) {
                scanner.leader_epoch = i32::MIN;
            }
            let left = self.left(scanner.position);
            let range = self.load(scanner.position, wanted as u64).await?;
            let window = if bugs::on(Bug::ScanBeforeOverlay) { &self.segment[range] } else { &self.image[range] };
            let before = scanner;
            match scanner.step(window, left) {
                Step::Batch(header) if header.base_offset() >= offset_limit => {
                    return Ok(Scanned { end: before, stop: Stop::End, is_last_checked: !starts.is_empty(), starts });
                }
                Step::Batch(header) => {
                    starts.push(before.position as u32);
                    each(&header, &window[..header.size()]);
                }
                Step::Need(bytes) => wanted = bytes,
                Step::Stop(stop) => return Ok(Scanned { end: scanner, stop, is_last_checked: !starts.is_empty(), starts }),
            }
        }
    }

    /// Walks the headers of the batches that end at or below `covered`, up to a batch at or above `offset_limit`. `each` gets the
    /// header of every one, and the bytes of control batches. Returns where it stands, and why there is no batch if there should
    /// be one.
    pub(super) async fn walk(
        &mut self,
        mut scanner: Scanner,
        covered: u64,
        offset_limit: i64,
        starts: &mut Vec<u32>,
        mut each: impl FnMut(&Header, &[u8]),
    ) -> io::Result<(Scanner, Option<Stop>)> {
        let mut wanted = 0;
        while scanner.position + HEADER_BYTES as u64 <= covered {
            let left = self.left(scanner.position);
            let range = self.load(scanner.position, wanted as u64).await?;
            let before = scanner;
            match scanner.step_header(&self.image[range], left) {
                Step::Batch(header) if scanner.position > covered || header.base_offset() >= offset_limit => return Ok((before, None)),
                Step::Batch(header) => {
                    starts.push(before.position as u32);
                    let size = if header.is_control() { header.size() as u64 } else { 0 };
                    let range = self.load(before.position, size).await?;
                    each(&header, &self.image[range]);
                }
                Step::Need(bytes) => wanted = bytes,
                // Its rest never came.
                Step::Stop(Stop::Truncated { .. }) => return Ok((before, None)),
                Step::Stop(stop) => return Ok((before, Some(stop))),
            }
        }
        Ok((scanner, None))
    }

    /// True if what is at `end`, where a scan stopped, is no batch whose rest never came: up to `vouched` there is nothing but acked
    /// batches, the last one maybe in part. The batches before it say which offset `end` has: it is behind one, or at the first byte.
    pub(super) async fn is_damaged(&mut self, end: Scanner, stop: Stop, vouched: u64) -> io::Result<bool> {
        Ok(match ended(end.position, stop, vouched, self.bytes) {
            Ended::Whole => false,
            Ended::Damaged => true,
            Ended::Unless(range) => !is_front(&self.bytes(range).await?, end.next_offset),
        })
    }

    /// The first and the last offset of the whole batches between `from` and `end`, whatever lies between them; `None` if there is no
    /// whole one.
    pub(super) async fn offsets(&mut self, from: Scanner, end: u64) -> io::Result<Option<(i64, i64)>> {
        let (mut at, mut next_offset) = (from.position, from.next_offset);
        let mut found: Option<(i64, i64)> = None;
        while at + HEADER_BYTES as u64 <= end {
            let range = self.load(at, WINDOW_BYTES.min(end - at)).await?;
            let window = &self.image[range];
            // Among bytes that are no batch many could be a header, but for the offset: a segment's are within 2^31.
            let begins = |from: &usize| {
                let (position, rest) = (at + *from as u64, &window[*from..]);
                rest[MAGIC_AT] == MAGIC as u8
                    && match Scanner::new(position, next_offset, i32::MIN).step_header(rest, end - position) {
                        Step::Batch(header) => header.base_offset() - next_offset <= i64::from(i32::MAX),
                        _ => false,
                    }
            };
            let last = window.len() - HEADER_BYTES;
            let Some(candidate) = (0..=last).find(begins) else {
                at += last as u64 + 1;
                continue;
            };
            at += candidate as u64;
            let size = Header::read(&window[candidate..]).map_or(HEADER_BYTES, |header| header.size()) as u64;
            let bytes = self.bytes(at..(at + size).min(end)).await?;
            let mut scanner = Scanner::new(at, next_offset, i32::MIN);
            match scanner.step(&bytes, bytes.len() as u64) {
                Step::Batch(header) => {
                    found = Some((found.map_or(header.base_offset(), |(first, _)| first), header.last_offset()));
                    (at, next_offset) = (scanner.position, scanner.next_offset);
                }
                _ => at += 1,
            }
        }
        Ok(found)
    }

    /// Walks headers from what the index knows to the batch that `position` lies in: where that begins, and what came
    /// before it. A batch that begins at `position` is that batch. With it, why no batch leads on to `position`, if none does; and
    /// false, if not even the batch is there that the index knows.
    pub(super) async fn locate(&mut self, index: &OffsetIndex, position: u64) -> io::Result<(Scanner, Option<Stop>, bool)> {
        // From below the position: what comes there is known from the batch before only.
        let start = index.boundary(position.saturating_sub(1), i64::MAX);
        let mut scanner = self.scanner(start);
        let mut wanted = 0;
        while scanner.position < position {
            let left = self.left(scanner.position);
            let range = self.load(scanner.position, wanted as u64).await?;
            let before = scanner;
            match scanner.step_header(&self.image[range], left) {
                Step::Batch(_) if scanner.position > position => return Ok((before, None, true)),
                Step::Batch(_) => {}
                Step::Need(bytes) => wanted = bytes,
                Step::Stop(stop) => return Ok((scanner, Some(stop), scanner.position > start)),
            }
        }
        Ok((scanner, None, true))
    }

    /// Why there is no whole batch from `start` to `end`, by its CRC; `None` if there is one.
    pub(super) async fn check(&mut self, mut start: Scanner, end: u64) -> io::Result<Option<Stop>> {
        let range = self.load(start.position, end - start.position).await?;
        Ok(match start.step(&self.image[range.clone()], range.len() as u64) {
            Step::Batch(_) if start.position == end => None,
            Step::Stop(stop) => Some(stop),
            Step::Batch(_) | Step::Need(_) => Some(Stop::Length((end - start.position) as i32)),
        })
    }

    /// The ranges of blocks below `end` in which file and image differ, and the first byte that does. What the file does
    /// not reach differs.
    pub(super) async fn differences(&mut self, end: u64) -> io::Result<(Vec<Range<u32>>, Option<u64>)> {
        let (mut ranges, mut first) = (Vec::<Range<u32>>::new(), None);
        for run in self.overlaid(end) {
            let mut at = run.start;
            while at < run.end {
                let range = self.load(at, BLOCK.min(end - at)).await?;
                let length = range.len() as u64;
                let (image, segment) = (&self.image[range.clone()], &self.segment[range]);
                let reached = self.file_bytes.saturating_sub(at).min(length) as usize;
                let same = image.iter().zip(segment).take(reached).take_while(|(image, segment)| image == segment).count();
                if (same as u64) < length {
                    first.get_or_insert(at + same as u64);
                    push_range(&mut ranges, at as u32..(at + length) as u32);
                }
                at += BLOCK;
            }
        }
        Ok((ranges, first))
    }

    /// Below this file and image are the same.
    pub(super) fn differs_from(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.position) / BLOCK * BLOCK).min().unwrap_or(u64::MAX)
    }

    /// The blocks below `end` that entries touch, as merged runs in order.
    fn overlaid(&self, end: u64) -> Vec<Range<u64>> {
        let block_run = |entry: &&Entry| {
            let start = u64::from(entry.position);
            start / BLOCK * BLOCK..(start + entry.bytes.len() as u64).next_multiple_of(BLOCK).min(end)
        };
        let mut runs: Vec<_> = self.entries.iter().map(block_run).filter(|run| run.start < run.end).collect();
        runs.sort_unstable_by_key(|run| run.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for run in runs {
            match merged.last_mut() {
                Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
                _ => merged.push(run),
            }
        }
        merged
    }
}

/// Behind the last byte that an entry names.
fn entries_end(entries: &[&Entry]) -> u64 {
    entries.iter().map(|entry| u64::from(entry.position) + entry.bytes.len() as u64).max().unwrap_or(0)
}

/// Adds a range behind the others, joining it to the last if they touch.
pub(super) fn push_range(ranges: &mut Vec<Range<u32>>, range: Range<u32>) {
    match ranges.last_mut() {
        Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
        _ => ranges.push(range),
    }
}

/// Lays an entry over a window that begins at `window`.
fn overlay(image: &mut [u8], window: u64, entry: &Entry) {
    let (start, end) = (u64::from(entry.position), u64::from(entry.position) + entry.bytes.len() as u64);
    let (from, to) = (start.max(window), end.min(window + image.len() as u64));
    if from < to {
        image[(from - window) as usize..(to - window) as usize]
            .copy_from_slice(&entry.bytes[(from - start) as usize..(to - start) as usize]);
    }
}
