//! Walking the batches of a segment's file in large reads, with their bytes at hand to be changed and passed on.

use engine::batch::{Header, Scanner, Step, Stop};
use rustix::fs::{Advice, fadvise};
use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, path::Path};

/// What is read at once, in bytes, if a batch doesn't ask for more.
const READ_BYTES: usize = 4 << 20;

/// Takes the bytes that were walked, in order.
pub(super) type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// A batch: where it begins in the file, its header, and where [`Batches::bytes`] has it.
pub(super) type Found = (u64, Header, Range<usize>);

/// The batches of one file, from its first byte on.
pub(super) struct Batches {
    file: File,
    size: u64,
    scanner: Scanner,
    /// Bytes of the file from `at` on, `filled` of them.
    buffer: Vec<u8>,
    at: u64,
    filled: usize,
}

impl Batches {
    /// Opens a file whose batches begin at or above `next_offset` and have leader epochs from `leader_epoch` on. `buffer` is
    /// what an earlier walk gave back.
    pub(super) fn open(path: &Path, next_offset: i64, leader_epoch: i32, buffer: Vec<u8>) -> io::Result<Batches> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        // A hint, which a filesystem may not know.
        let _ = fadvise(&file, 0, None, Advice::Sequential);
        Ok(Batches { file, size, scanner: Scanner::new(0, next_offset, leader_epoch), buffer, at: 0, filled: 0 })
    }

    /// The next batch: its position, its header, and where [`Batches::bytes`] has it; or why there is none. What was walked
    /// before goes to `sink`, now or later.
    pub(super) fn advance(&mut self, sink: &mut Sink<'_>) -> io::Result<Result<Found, Stop>> {
        loop {
            let position = self.scanner.position;
            let from = (position - self.at) as usize;
            match self.scanner.step(&self.buffer[from..self.filled], self.size - position) {
                Step::Batch(header) => return Ok(Ok((position, header, from..from + header.size()))),
                Step::Stop(stop) => {
                    self.pass_on(from, sink)?;
                    return Ok(Err(stop));
                }
                Step::Need(bytes) => {
                    self.pass_on(from, sink)?;
                    self.fill(bytes)?;
                }
            }
        }
    }

    /// The bytes of the batch that [`Batches::advance`] has just found.
    pub(super) fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.buffer[range]
    }

    /// Behind the last batch, and what may follow it.
    pub(super) fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// The file's size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// True if all that follows the last batch is zeros: space that was allocated and never written.
    pub(super) fn is_zero_from_here(&mut self) -> io::Result<bool> {
        let mut position = self.scanner.position;
        let mut part = vec![0; 1 << 20];
        loop {
            let read = self.file.read_at(&mut part, position)?;
            if read == 0 {
                return Ok(true);
            }
            if part[..read].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += read as u64;
        }
    }

    /// Gives the buffer back for the next file, and the file's pages to whoever needs memory more.
    pub(super) fn close(self) -> Vec<u8> {
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        self.buffer
    }

    fn pass_on(&mut self, walked: usize, sink: &mut Sink<'_>) -> io::Result<()> {
        sink(&self.buffer[..walked])?;
        self.buffer.copy_within(walked..self.filled, 0);
        self.filled -= walked;
        self.at += walked as u64;
        Ok(())
    }

    /// Reads until at least `bytes` are there, or the file has ended.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        let wanted = bytes.max(READ_BYTES);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.filled < bytes {
            let read = self.file.read_at(&mut self.buffer[self.filled..], self.at + self.filled as u64)?;
            if read == 0 {
                self.size = self.at + self.filled as u64;
                return Ok(());
            }
            self.filled += read;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::batch::BatchBuilder;

    #[test]
    fn every_batch_is_found_and_every_byte_of_them_passed_on() {
        let value = vec![7; 700_000];
        let batches: Vec<Vec<u8>> = (0..20)
            .map(|at| BatchBuilder::new().at(at, 3).record(1, None, Some(&value[..(at as usize * 37_000) % 700_000])).build())
            .collect();
        let whole = batches.concat();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, [&whole[..], &[0; 5_000]].concat()).unwrap();
        let mut walk = Batches::open(&path, 0, 0, Vec::new()).unwrap();
        let (mut passed, mut seen) = (Vec::new(), 0);
        loop {
            let mut sink = |bytes: &[u8]| {
                passed.extend_from_slice(bytes);
                Ok(())
            };
            match walk.advance(&mut sink).unwrap() {
                Ok((_, header, range)) => {
                    assert_eq!(walk.bytes(range), &batches[seen][..]);
                    assert_eq!(header.base_offset(), seen as i64);
                    seen += 1;
                }
                Err(stop) => {
                    assert_eq!(stop, Stop::Zeros);
                    break;
                }
            }
        }
        assert_eq!((seen, passed == whole, walk.scanner().next_offset), (20, true, 20));
        assert!(walk.is_zero_from_here().unwrap());
    }
}
