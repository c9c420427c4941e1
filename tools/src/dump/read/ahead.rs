//! Reading a file from front to back at the speed of the disk: a thread reads the next chunks, past the page cache where the
//! file system can, while the caller looks at this one.

use rustix::fs::OFlags;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

/// What is read at once, in bytes.
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that wait for the caller.
const CHUNKS_WAITING_MAX: usize = 2;
/// Room before each chunk for what is left of the one before, in bytes: a batch that crosses the border is copied there.
const HEADROOM_BYTES: usize = 1 << 20;
/// Direct reads begin, end and lie in memory on multiples of this, in bytes.
const ALIGNMENT: usize = 4096;

/// Bytes of a file in the middle of a buffer.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    buffer: Vec<u8>,
    /// Where the bytes begin in the buffer.
    from: usize,
    /// Where they end.
    to: usize,
}

impl Chunk {
    fn new() -> Chunk {
        let buffer = vec![0; HEADROOM_BYTES + CHUNK_BYTES + ALIGNMENT];
        let from = HEADROOM_BYTES + buffer[HEADROOM_BYTES..].as_ptr().align_offset(ALIGNMENT);
        Chunk { buffer, from, to: from }
    }

    pub(super) fn bytes(&self) -> &[u8] {
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

/// The chunks of a file, one after the other. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Ahead {
    chunks: Receiver<io::Result<Chunk>>,
}

impl Ahead {
    /// Begins to read at `position`, which is a multiple of [`Ahead::floor`], up to `end`.
    pub(super) fn start(path: &Path, position: u64, end: u64) -> Ahead {
        let (send, chunks) = sync_channel(CHUNKS_WAITING_MAX);
        let path = path.to_owned();
        std::thread::spawn(move || {
            if let Err(error) = read(&path, position, end, &send) {
                // Whoever doesn't listen any more doesn't need it.
                let _ = send.send(Err(error));
            }
        });
        Ahead { chunks }
    }

    /// Where a read may begin that is to hold `position`.
    pub(super) fn floor(position: u64) -> u64 {
        position / ALIGNMENT as u64 * ALIGNMENT as u64
    }

    /// The next chunk; `None` at the end.
    pub(super) fn next(&self) -> io::Result<Option<Chunk>> {
        self.chunks.recv().ok().transpose()
    }
}

fn read(path: &PathBuf, mut position: u64, end: u64, send: &SyncSender<io::Result<Chunk>>) -> io::Result<()> {
    let direct = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path);
    let (mut file, mut is_direct) = match direct {
        Ok(file) => (file, true),
        Err(_) => (File::open(path)?, false),
    };
    while position < end {
        let mut chunk = Chunk::new();
        let wanted = (end - position).min(CHUNK_BYTES as u64) as usize;
        let mut filled = 0;
        while filled < wanted {
            let at = chunk.from + filled;
            // A direct read is of whole blocks, also where the file ends within one.
            let until = if is_direct { chunk.from + wanted.next_multiple_of(ALIGNMENT) } else { chunk.from + wanted };
            match file.read_at(&mut chunk.buffer[at..until], position + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                    (file, is_direct) = (File::open(path)?, false);
                }
                Err(error) => return Err(error),
            }
            // A short direct read ends at the file's end, where the next would not be aligned.
            if is_direct && filled % ALIGNMENT != 0 {
                break;
            }
        }
        let filled = filled.min(wanted);
        chunk.to = chunk.from + filled;
        position += filled as u64;
        if filled == 0 || send.send(Ok(chunk)).is_err() {
            break;
        }
    }
    Ok(())
}
