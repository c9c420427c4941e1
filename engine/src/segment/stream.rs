//! All batches of a sealed segment, from its first on, read past the page cache: while one window is looked at the next
//! ones are on their way, so that neither the disk nor the CPU waits for the other.

use crate::{
    batch::{Header, Scanner, Step, Stop, crc},
    disk::{BLOCK, Disk, Open, Slice},
};
use futures_util::{FutureExt, future::LocalBoxFuture, poll};
use std::{collections::VecDeque, io, path::Path, task::Poll};

/// What is read at once, in bytes: several batches of a megabyte, so that few of them lie across two windows.
const WINDOW_BYTES: u64 = 4 << 20;
/// Windows that are read ahead.
const WINDOWS_AHEAD: usize = 2;

/// Walks the whole batches of one segment, forward.
pub struct BatchStream<D: Disk> {
    disk: D,
    file: D::File,
    scanner: Scanner,
    end: u64,
    /// Where the next window to be asked for begins.
    asked: u64,
    ahead: VecDeque<LocalBoxFuture<'static, io::Result<Slice>>>,
    window: Option<Slice>,
    window_at: u64,
    /// The front of what lies across windows, from `joined_at` on.
    joined: Vec<u8>,
    joined_at: u64,
}

impl<D: Disk> BatchStream<D> {
    /// The batches of the segment at `path`, which has `bytes` bytes and begins at `base_offset`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn open(disk: &D, path: &Path, base_offset: i64, bytes: u64) -> io::Result<BatchStream<D>> {
        let file = disk.open(path, Open::Existing).await?;
        Ok(BatchStream {
            disk: disk.clone(),
            file,
            scanner: Scanner::new(0, base_offset, i32::MIN),
            end: bytes,
            asked: 0,
            ahead: VecDeque::new(),
            window: None,
            window_at: 0,
            joined: Vec::new(),
            joined_at: 0,
        })
    }

    /// Where the next batch begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.scanner.position
    }

    /// The next batch's header, or why there is none. Its bytes are not checked.
    ///
    /// # Errors
    /// The disk's.
    pub async fn next_header(&mut self) -> io::Result<Result<Header, Stop>> {
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
        let next_at = self.window_end();
        // Its memory is the next one's.
        self.window = None;
        self.window_at = next_at;
        if self.ahead.is_empty() {
            self.ask().await;
        }
        let Some(next) = self.ahead.pop_front() else { return Ok(false) };
        let window = next.await?;
        let (end, is_empty) = (next_at + window.len() as u64, window.is_empty());
        self.window = Some(window);
        if end < self.asked.min(self.end) && !end.is_multiple_of(WINDOW_BYTES) {
            // The file is shorter than its caller thought.
            self.end = end;
            self.ahead.clear();
        }
        self.ask().await;
        Ok(!is_empty)
    }

    /// Has more windows read.
    async fn ask(&mut self) {
        let had = self.ahead.len();
        while self.ahead.len() < WINDOWS_AHEAD && self.asked < self.end {
            let (disk, file, at) = (self.disk.clone(), self.file.clone(), self.asked);
            let bytes = (self.end - at).next_multiple_of(BLOCK).min(WINDOW_BYTES) as usize;
            let mut read = async move { disk.read(&file, at, bytes).await }.boxed_local();
            // A future does nothing before it is polled.
            let read = match poll!(&mut read) {
                Poll::Ready(window) => std::future::ready(window).boxed_local(),
                Poll::Pending => read,
            };
            self.ahead.push_back(read);
            self.asked += bytes as u64;
        }
        if self.ahead.len() > had {
            // The disk's ring submits in a turn of its own.
            tokio::task::yield_now().await;
        }
    }
}

/// What is in memory from `at` on.
fn front<'a>(window: Option<&'a [u8]>, window_at: u64, joined: &'a [u8], joined_at: u64, at: u64) -> &'a [u8] {
    if joined_at == at && !joined.is_empty() {
        return joined;
    }
    let skip = at.checked_sub(window_at).and_then(|skip| usize::try_from(skip).ok());
    window.zip(skip).and_then(|(window, skip)| window.get(skip..)).unwrap_or_default()
}
