//! All batches of a sealed segment, from its first on, read past the page cache: while one window is looked at the next
//! ones are on their way, so that neither the disk nor the CPU waits for the other.

use crate::{
    batch::{Header, Scanner, Step, Stop, crc},
    disk::{BLOCK, Chunk, Disk, Open, Pace, Slice, begin},
};
use futures_util::future::LocalBoxFuture;
use std::{collections::VecDeque, io, path::Path, rc::Rc};

/// What is read at once, in bytes: several batches of a megabyte, so that few of them lie across two windows.
pub(crate) const WINDOW_BYTES: u64 = 4 << 20;
/// Windows that are read ahead; one, where others wait for the disk.
const WINDOWS_AHEAD: usize = 2;

/// A part of a segment that is passed over, unread: whole batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Where it begins, in bytes.
    pub from: u64,
    /// Where the batch behind it begins, in bytes.
    pub to: u64,
    /// No batch behind it has an offset below this.
    pub next_offset: i64,
}

/// A window that is on its way.
struct Asked {
    at: u64,
    bytes: u64,
    window: LocalBoxFuture<'static, io::Result<Slice>>,
}

/// Walks the whole batches of one segment, forward.
pub struct BatchStream<D: Disk> {
    disk: D,
    file: D::File,
    scanner: Scanner,
    end: u64,
    /// Those ahead of the scanner, in order.
    passes: VecDeque<Pass>,
    passed: u64,
    /// Where the next window to be asked for begins.
    asked: u64,
    ahead: VecDeque<Asked>,
    pace: Rc<Pace>,
    window: Option<Slice>,
    window_at: u64,
    /// The front of what lies across windows, from `joined_at` on.
    joined: Vec<u8>,
    joined_at: u64,
}

impl<D: Disk> BatchStream<D> {
    /// The batches of the segment at `path`, which has `bytes` bytes and begins at `base_offset`, but for those in `passes`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn open(disk: &D, path: &Path, base_offset: i64, bytes: u64, passes: Vec<Pass>) -> io::Result<BatchStream<D>> {
        let file = disk.open(path, Open::Existing).await?;
        Ok(BatchStream {
            disk: disk.clone(),
            file,
            scanner: Scanner::new(0, base_offset, i32::MIN),
            end: bytes,
            passes: passes.into(),
            passed: 0,
            asked: 0,
            ahead: VecDeque::new(),
            pace: Rc::new(Pace::fast()),
            window: None,
            window_at: 0,
            joined: Vec::new(),
            joined_at: 0,
        })
    }

    /// Beside producers windows are read in pieces, one after the other, and none ahead but the first piece of the next one.
    #[must_use]
    pub fn paced(self, pace: Pace) -> BatchStream<D> {
        BatchStream { pace: Rc::new(pace), ..self }
    }

    /// Where the next batch begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.scanner.position
    }

    /// Bytes that were passed over so far.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// The next batch's header, or why there is none. Its bytes are not checked.
    ///
    /// # Errors
    /// The disk's.
    pub async fn next_header(&mut self) -> io::Result<Result<Header, Stop>> {
        while let Some(pass) = self.passes.front().copied().filter(|pass| pass.from == self.scanner.position) {
            self.passes.pop_front();
            self.scanner = Scanner { position: pass.to, next_offset: pass.next_offset, ..self.scanner };
            self.passed += pass.to - pass.from;
            self.asked = self.asked.max(self.window_behind(&pass));
        }
        loop {
            let at = self.scanner.position;
            let left = self.end.saturating_sub(at);
            let front = front(self.window.as_deref(), self.window_at, &self.joined, self.joined_at, at);
            match self.scanner.step_header(front, left) {
                Step::Batch(header) => return Ok(Ok(header)),
                Step::Stop(stop) => return Ok(Err(stop)),
                Step::Need(bytes) => self.bring(at, bytes).await?,
            }
        }
    }

    /// The bytes of the batch whose header came last, their CRC checked.
    ///
    /// # Errors
    /// The disk's.
    pub async fn batch(&mut self, header: &Header) -> io::Result<Result<&[u8], Stop>> {
        let at = self.scanner.position - header.size() as u64;
        let held = |stream: &Self| front(stream.window.as_deref(), stream.window_at, &stream.joined, stream.joined_at, at).len();
        if held(self) < header.size() {
            self.bring(at, header.size()).await?;
        }
        if held(self) < header.size() {
            return Ok(Err(Stop::Truncated { size: header.size() as u64, left: held(self) as u64 }));
        }
        let batch = &front(self.window.as_deref(), self.window_at, &self.joined, self.joined_at, at)[..header.size()];
        let computed = crc(batch);
        Ok(if computed == header.crc() { Ok(batch) } else { Err(Stop::Crc { stored: header.crc(), computed }) })
    }

    /// Reads on until `bytes` bytes from `at` on are in one piece, or the file has ended.
    async fn bring(&mut self, at: u64, bytes: usize) -> io::Result<()> {
        if self.joined_at != at {
            self.joined.clear();
            self.joined_at = at;
        }
        while self.joined.len() < bytes {
            let from = at + self.joined.len() as u64;
            while self.window_end() <= from {
                if !self.next_window().await? {
                    self.end = from;
                    return Ok(());
                }
            }
            let rest = &self.window.as_deref().expect("it ends behind `from`")[(from - self.window_at) as usize..];
            if self.joined.is_empty() && rest.len() >= bytes {
                return Ok(());
            }
            let count = rest.len().min(bytes - self.joined.len());
            self.joined.extend_from_slice(&rest[..count]);
        }
        Ok(())
    }

    fn window_end(&self) -> u64 {
        self.window_at + self.window.as_ref().map_or(0, |window| window.len() as u64)
    }

    /// Takes the next window. False behind the last one.
    async fn next_window(&mut self) -> io::Result<bool> {
        // Its memory is the next one's.
        self.window_at = self.window_end();
        self.window = None;
        if self.ahead.is_empty() {
            self.ask().await;
        }
        let Some(Asked { at, bytes, window }) = self.ahead.pop_front() else { return Ok(false) };
        let window = window.await?;
        let (end, is_empty, is_short) = (at + window.len() as u64, window.is_empty(), (window.len() as u64) < bytes);
        (self.window_at, self.window) = (at, Some(window));
        if is_short && end < self.end {
            // The file is shorter than its caller thought.
            self.end = end;
            self.ahead.clear();
        }
        self.ask().await;
        Ok(!is_empty)
    }

    /// The first window that is needed behind a pass.
    fn window_behind(&self, pass: &Pass) -> u64 {
        if pass.to < self.end { pass.to / WINDOW_BYTES * WINDOW_BYTES } else { self.end }
    }

    /// Has more windows read.
    async fn ask(&mut self) {
        let had = self.ahead.len();
        let windows_max = if self.pace.is_gentle() { 1 } else { WINDOWS_AHEAD };
        while self.ahead.len() < windows_max && self.asked < self.end {
            let at = self.asked;
            if let Some(pass) = self.passes.iter().find(|pass| pass.from <= at && (at + WINDOW_BYTES).min(self.end) <= pass.to) {
                self.asked = self.window_behind(pass);
                continue;
            }
            let bytes = (self.end - at).next_multiple_of(BLOCK).min(WINDOW_BYTES);
            let (disk, file, pace) = (self.disk.clone(), self.file.clone(), Rc::clone(&self.pace));
            let window = begin(async move { read(&disk, &file, at, bytes, &pace).await }).await;
            self.ahead.push_back(Asked { at, bytes, window });
            self.asked += bytes;
        }
        if self.ahead.len() > had {
            // The disk's ring submits in a turn of its own.
            tokio::task::yield_now().await;
        }
    }
}

/// Reads `bytes` from `at` on, at that pace; fewer at the file's end.
async fn read<D: Disk>(disk: &D, file: &D::File, at: u64, bytes: u64, pace: &Pace) -> io::Result<Slice> {
    if !pace.is_gentle() {
        return disk.read(file, at, bytes as usize).await;
    }
    let window = Chunk::new(bytes as usize);
    let mut read = 0;
    while read < bytes {
        let wanted = pace.bytes_at_once(bytes - read);
        let began_us = disk.now_us();
        let piece = disk.read(file, at + read, wanted as usize).await?;
        pace.pause(disk, began_us).await;
        window.append(&piece);
        read += piece.len() as u64;
        if (piece.len() as u64) < wanted {
            break;
        }
    }
    Ok(window.slice(0, read as usize))
}

/// What is in memory from `at` on.
fn front<'a>(window: Option<&'a [u8]>, window_at: u64, joined: &'a [u8], joined_at: u64, at: u64) -> &'a [u8] {
    if joined_at == at && !joined.is_empty() {
        return joined;
    }
    let skip = at.checked_sub(window_at).and_then(|skip| usize::try_from(skip).ok());
    window.zip(skip).and_then(|(window, skip)| window.get(skip..)).unwrap_or_default()
}
