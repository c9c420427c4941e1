//! Reads past the page cache, where the file system can: they neither disturb who writes the file nor push out what others need.

use super::pace::Pace;
use engine::disk::BLOCK;
use rustix::fs::OFlags;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

/// Direct reads begin, end and lie in memory on multiples of this, in bytes.
const ALIGNMENT: usize = BLOCK as usize;

/// Bytes of a file in the middle of a buffer.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    buffer: Vec<u8>,
    /// Where the bytes begin in the buffer.
    from: usize,
    /// Where they end.
    to: usize,
}

impl Chunk {
    /// Room for `length` bytes, and for what is to be put before them.
    fn new(headroom: usize, length: usize) -> Chunk {
        Chunk::default().emptied(headroom, length)
    }

    /// The same without its bytes; in the same memory, if that suffices.
    pub(super) fn emptied(self, headroom: usize, length: usize) -> Chunk {
        let needed = headroom + length.next_multiple_of(ALIGNMENT) + ALIGNMENT;
        let buffer = if self.buffer.len() < needed { vec![0; needed] } else { self.buffer };
        let from = headroom + buffer[headroom..].as_ptr().align_offset(ALIGNMENT);
        Chunk { buffer, from, to: from }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// `rest`, which comes before this chunk in the file, and this chunk.
    pub(super) fn after(mut self, rest: &[u8]) -> Chunk {
        if let Some(from) = self.from.checked_sub(rest.len()) {
            self.buffer[from..self.from].copy_from_slice(rest);
            self.from = from;
            return self;
        }
        let buffer = [rest, self.bytes()].concat();
        Chunk { from: 0, to: buffer.len(), buffer }
    }
}

/// A file that is read in whole blocks.
#[derive(Debug)]
pub(crate) struct Direct {
    path: PathBuf,
    file: File,
    is_direct: bool,
    pace: Pace,
}

impl Direct {
    /// The block that `position` lies in: where a read begins that is to hold it.
    pub(crate) fn floor(position: u64) -> u64 {
        position / BLOCK * BLOCK
    }

    pub(crate) fn open(path: &Path) -> io::Result<Direct> {
        let direct = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path);
        let (file, is_direct) = match direct {
            Ok(file) => (file, true),
            Err(_) => (File::open(path)?, false),
        };
        Ok(Direct { path: path.to_owned(), file, is_direct, pace: Pace::now() })
    }

    /// The same for a file that its broker writes.
    pub(crate) fn following(self) -> Direct {
        Direct { pace: self.pace.following(), ..self }
    }

    /// The `length` bytes from `position` on, the beginning of a block; fewer at the file's end. There is `headroom` before them.
    pub(crate) fn read(&mut self, position: u64, length: usize, headroom: usize) -> io::Result<Chunk> {
        self.read_into(Chunk::new(headroom, length), position, length)
    }

    /// The same into an empty chunk that has room for them.
    pub(super) fn read_into(&mut self, mut chunk: Chunk, position: u64, length: usize) -> io::Result<Chunk> {
        let mut filled = 0;
        while filled < length {
            let at = chunk.from + filled;
            let began = Instant::now();
            // A direct read is of whole blocks, also where the file ends within one.
            let until = if self.is_direct { chunk.from + length.next_multiple_of(ALIGNMENT) } else { chunk.from + length };
            let until = at + self.pace.bytes_at_once(until - at);
            match self.file.read_at(&mut chunk.buffer[at..until], position + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                    (self.file, self.is_direct) = (File::open(&self.path)?, false);
                }
                Err(error) => return Err(error),
            }
            self.pace.pause(until - at, began);
            // A short direct read ends at the file's end, where the next would not be aligned.
            if self.is_direct && filled % ALIGNMENT != 0 {
                break;
            }
        }
        chunk.to = chunk.from + filled.min(length);
        Ok(chunk)
    }
}
