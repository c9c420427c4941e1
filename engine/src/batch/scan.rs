//! A walk over consecutive batches: what recovery, lookup and the tools read segments with.

use super::header::{BATCH_LENGTH_MIN, HEADER_BYTES, Header, LENGTH_END, MAGIC, crc};

/// Why a scan ended where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The bytes end behind a whole batch.
    #[error("the end")]
    End,
    /// What follows is zero: space that was allocated and not written.
    #[error("zeros")]
    Zeros,
    /// A batch begins that the bytes hold only a part of.
    #[error("a batch of {size} bytes is cut short: {left} are left")]
    Truncated {
        /// The size it claims.
        size: u64,
        /// The bytes that are left.
        left: u64,
    },
    /// The length field can't be a batch's.
    #[error("{0} is no batch length")]
    Length(i32),
    /// A message format other than 2.
    #[error("magic {0} is not 2")]
    Magic(i8),
    /// The CRC does not match.
    #[error("the CRC is {computed}, the header says {stored}")]
    Crc {
        /// The header's.
        stored: u32,
        /// That of the bytes.
        computed: u32,
    },
    /// Offsets or record count can't be.
    #[error("the header's offsets or record count are impossible")]
    Counts,
    /// Its offsets are not above those before it.
    #[error("base offset {found} is below {expected}")]
    Offset {
        /// The lowest that may follow.
        expected: i64,
        /// Its own.
        found: i64,
    },
    /// Its last offset is further from the segment's base than that of any batch.
    #[error("last offset {found} is above {highest}, the highest that its segment can hold")]
    FarOffset {
        /// The highest that may be.
        highest: i64,
        /// Its own.
        found: i64,
    },
    /// Its leader epoch is below one before it: a stale batch of an earlier leader.
    #[error("leader epoch {found} is below {current}")]
    Epoch {
        /// The highest so far.
        current: i32,
        /// Its own.
        found: i32,
    },
    /// Its leader epoch is above every one that was given.
    #[error("leader epoch {found} is above {highest}, the highest that was given")]
    FarEpoch {
        /// The highest that may be.
        highest: i32,
        /// Its own.
        found: i32,
    },
}

impl Stop {
    /// True where a healthy log ends: at the end of its bytes, or of what was written into allocated space.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Stop::End | Stop::Zeros)
    }
}

/// One step of a [`Scanner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole valid batch was at the position; the scanner has moved behind it.
    Batch(Header),
    /// The window must hold this many bytes from the position on before the scanner can go on. Never more than are left.
    Need(usize),
    /// No valid batch is at the position. The scanner stays there.
    Stop(Stop),
}

/// Walks batches that come in windows of any size. Offsets must rise (gaps are fine: compaction leaves them), leader
/// epochs never fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanner {
    /// Where the next batch begins.
    pub position: u64,
    /// The lowest base offset that it may have: the log's end so far.
    pub next_offset: i64,
    /// The lowest leader epoch that it may have.
    pub leader_epoch: i32,
    /// The highest last offset that it may have.
    pub offset_max: i64,
    /// The highest leader epoch that it may have.
    pub leader_epoch_max: i32,
}

impl Scanner {
    /// A scan from `position` on, where a batch must begin, at or above `next_offset`.
    #[must_use]
    pub fn new(position: u64, next_offset: i64, leader_epoch: i32) -> Scanner {
        Scanner { position, next_offset, leader_epoch, offset_max: i64::MAX, leader_epoch_max: i32::MAX }
    }

    /// The same within the segment of this base offset. No CRC covers a base offset, but an index entry has 31 bits for one: whoever
    /// writes a segment begins another before they don't suffice.
    #[must_use]
    pub fn in_segment(self, base_offset: i64) -> Scanner {
        Scanner { offset_max: base_offset.saturating_add(i64::from(i32::MAX)), ..self }
    }

    /// The same where no leader epoch above this was ever given. No CRC covers it either.
    #[must_use]
    pub fn with_epochs_to(self, leader_epoch_max: i32) -> Scanner {
        Scanner { leader_epoch_max, ..self }
    }

    /// Takes the batch at the front of `window`, which holds the bytes from `position` on; `left` of them exist in all.
    pub fn step(&mut self, window: &[u8], left: u64) -> Step {
        match self.examine(window, left, true) {
            Step::Batch(header) => {
                self.take(&header);
                Step::Batch(header)
            }
            other => other,
        }
    }

    /// As [`Scanner::step`], but looks at the header only: neither are the batch's bytes needed, nor is the CRC checked.
    pub fn step_header(&mut self, window: &[u8], left: u64) -> Step {
        match self.examine(window, left, false) {
            Step::Batch(header) => {
                self.take(&header);
                Step::Batch(header)
            }
            other => other,
        }
    }

    fn take(&mut self, header: &Header) {
        self.position += header.size() as u64;
        self.next_offset = header.next_offset();
        self.leader_epoch = header.leader_epoch();
    }

    fn examine(&self, window: &[u8], left: u64, whole: bool) -> Step {
        if left == 0 {
            return Step::Stop(Stop::End);
        }
        let head = (HEADER_BYTES as u64).min(left) as usize;
        let Some(front) = window.get(..head) else { return Step::Need(head) };
        if front.iter().all(|byte| *byte == 0) {
            return Step::Stop(Stop::Zeros);
        }
        let Some(header) = Header::read(front) else {
            return Step::Stop(Stop::Truncated { size: HEADER_BYTES as u64, left });
        };
        if header.length() < BATCH_LENGTH_MIN {
            return Step::Stop(Stop::Length(header.length()));
        }
        if header.magic() != MAGIC {
            return Step::Stop(Stop::Magic(header.magic()));
        }
        let size = header.length() as u64 + LENGTH_END as u64;
        if size > left {
            return Step::Stop(Stop::Truncated { size, left });
        }
        let last = header.base_offset().checked_add(i64::from(header.last_offset_delta()));
        if header.base_offset() < 0
            || header.last_offset_delta() < 0
            || header.record_count() < 0
            || i64::from(header.record_count()) > i64::from(header.last_offset_delta()) + 1
            || last.is_none_or(|last| last == i64::MAX)
        {
            return Step::Stop(Stop::Counts);
        }
        if header.base_offset() < self.next_offset {
            return Step::Stop(Stop::Offset { expected: self.next_offset, found: header.base_offset() });
        }
        if header.last_offset() > self.offset_max {
            return Step::Stop(Stop::FarOffset { highest: self.offset_max, found: header.last_offset() });
        }
        if header.leader_epoch() > self.leader_epoch_max {
            return Step::Stop(Stop::FarEpoch { highest: self.leader_epoch_max, found: header.leader_epoch() });
        }
        if header.leader_epoch() < self.leader_epoch {
            return Step::Stop(Stop::Epoch { current: self.leader_epoch, found: header.leader_epoch() });
        }
        if whole {
            let Some(batch) = window.get(..size as usize) else { return Step::Need(size as usize) };
            let computed = crc(batch);
            if computed != header.crc() {
                return Step::Stop(Stop::Crc { stored: header.crc(), computed });
            }
        }
        Step::Batch(header)
    }
}

/// How a scan over whole memory ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Behind the last valid batch.
    pub end: Scanner,
    /// Why it is the last.
    pub stop: Stop,
}

/// Walks all batches of `bytes`, which begin at `scanner.position`; `each` gets position, header and bytes of every one.
pub fn scan(bytes: &[u8], mut scanner: Scanner, mut each: impl FnMut(u64, &Header, &[u8])) -> Scan {
    let start = scanner.position;
    loop {
        let position = scanner.position;
        let rest = &bytes[(position - start) as usize..];
        match scanner.step(rest, rest.len() as u64) {
            Step::Batch(header) => each(position, &header, &rest[..header.size()]),
            Step::Stop(stop) => return Scan { end: scanner, stop },
            Step::Need(_) => unreachable!("the window holds everything that is left"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;
    use proptest::prelude::*;

    fn log(offsets: &[(i64, i32)]) -> Vec<u8> {
        offsets.iter().flat_map(|(offset, epoch)| BatchBuilder::new().at(*offset, *epoch).record(1, None, Some(b"v")).build()).collect()
    }

    fn stop(bytes: &[u8]) -> (u64, Stop) {
        let scan = scan(bytes, Scanner::new(0, 0, 0), |_, _, _| ());
        (scan.end.position, scan.stop)
    }

    #[test]
    fn it_ends_where_the_bytes_or_the_written_ones_end() {
        let mut bytes = log(&[(0, 0), (1, 0), (5, 2)]);
        let end = bytes.len() as u64;
        assert_eq!(stop(&bytes), (end, Stop::End));
        bytes.extend_from_slice(&[0; 5_000]);
        assert_eq!(stop(&bytes), (end, Stop::Zeros));
        bytes.truncate(end as usize + 3);
        assert_eq!(stop(&bytes), (end, Stop::Zeros));
    }

    #[test]
    fn stale_batches_end_it() {
        let one = log(&[(0, 3)]).len() as u64;
        assert_eq!(stop(&log(&[(0, 3), (1, 2)])), (one, Stop::Epoch { current: 3, found: 2 }));
        assert_eq!(stop(&log(&[(4, 3), (4, 3)])), (one, Stop::Offset { expected: 5, found: 4 }));
    }

    #[test]
    fn a_flipped_bit_ends_it_before_that_batch() {
        let bytes = log(&[(0, 0), (1, 0)]);
        let second = bytes.len() / 2;
        for bit in 0..second * 8 {
            let mut bytes = bytes.clone();
            bytes[second + bit / 8] ^= 1 << (bit % 8);
            let mut seen = 0;
            let scan = scan(&bytes, Scanner::new(0, 0, 0), |_, _, _| seen += 1);
            // Offset and epoch are outside the CRC: the journal's own checksum covers them.
            if !(bit / 8 < 8 || (12..16).contains(&(bit / 8))) {
                assert_eq!((scan.end.position, seen), (second as u64, 1), "bit {bit}");
            }
        }
    }

    #[test]
    fn windows_of_any_size_give_the_same_walk() {
        let bytes = log(&[(0, 0), (1, 0), (9, 4)]);
        let mut scanner = Scanner::new(0, 0, 0);
        let (mut window, mut seen) = (0, 0);
        loop {
            let rest = &bytes[scanner.position as usize..];
            match scanner.step(&rest[..window.min(rest.len())], rest.len() as u64) {
                Step::Batch(_) => (window, seen) = (0, seen + 1),
                Step::Need(bytes) => {
                    assert!(bytes > window && bytes <= rest.len());
                    window = bytes;
                }
                Step::Stop(stop) => {
                    assert_eq!((stop, seen), (Stop::End, 3));
                    break;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_a_scan_within_them(bytes: Vec<u8>) {
            let scan = scan(&bytes, Scanner::new(0, 0, 0), |_, _, _| ());
            prop_assert!(scan.end.position <= bytes.len() as u64);
        }
    }
}
