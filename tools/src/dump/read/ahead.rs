//! Reading a file from front to back at the speed of the disk: a thread reads the next chunks, past the page cache where the
//! file system can, while the caller looks at this one.

use super::direct::{Chunk, Direct};
use std::{
    io,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

/// What is read at once, in bytes.
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that wait for the caller.
const CHUNKS_WAITING_MAX: usize = 2;
/// Room before each chunk for what is left of the one before, in bytes: a batch that crosses the border is copied there.
const HEADROOM_BYTES: usize = 1 << 20;

/// The chunks of a file, one after the other. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Ahead {
    chunks: Receiver<io::Result<Chunk>>,
}

impl Ahead {
    /// Begins to read at `position`, the beginning of a block, up to `end`.
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

    /// The next chunk; `None` at the end.
    pub(super) fn next(&self) -> io::Result<Option<Chunk>> {
        self.chunks.recv().ok().transpose()
    }
}

fn read(path: &Path, mut position: u64, end: u64, send: &SyncSender<io::Result<Chunk>>) -> io::Result<()> {
    let mut file = Direct::open(path)?;
    while position < end {
        let wanted = (end - position).min(CHUNK_BYTES as u64) as usize;
        let chunk = file.read(position, wanted, HEADROOM_BYTES)?;
        let filled = chunk.bytes().len();
        position += filled as u64;
        if filled == 0 || send.send(Ok(chunk)).is_err() {
            break;
        }
    }
    Ok(())
}
