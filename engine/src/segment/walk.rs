//! A walk over the batches of a file, in windows of bounded size.

use crate::{
    batch::{Header, Scanner, Step, Stop},
    disk::Disk,
};
use std::io;

/// What is read at once, in bytes, if a batch does not ask for more.
pub const WINDOW_BYTES: usize = 32 << 10;
/// The same where whole batches are read one after the other.
const WHOLE_WINDOW_BYTES: usize = 256 << 10;

/// Walks the batches of one file, forward, by headers alone or with their bytes.
pub struct Walk<'a, D: Disk> {
    disk: &'a D,
    reader: &'a D::Reader,
    scanner: Scanner,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a, D: Disk> Walk<'a, D> {
    /// A walk from `scanner.position` on, where a batch must begin, up to `end`, both in bytes of the file.
    pub fn new(disk: &'a D, reader: &'a D::Reader, scanner: Scanner, end: u64) -> Walk<'a, D> {
        Walk { disk, reader, scanner, end, window: Vec::new(), window_at: 0 }
    }

    /// Where the next batch begins, and what it must be.
    #[must_use]
    pub fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// The next batch's position and header, or why there is none. Its bytes are neither read nor checked.
    ///
    /// # Errors
    /// The disk's.
    pub async fn next_header(&mut self) -> io::Result<Result<(u64, Header), Stop>> {
        loop {
            let position = self.scanner.position;
            match self.scanner.step_header(window(&self.window, self.window_at, position), self.end.saturating_sub(position)) {
                Step::Batch(header) => return Ok(Ok((position, header))),
                Step::Stop(stop) => return Ok(Err(stop)),
                Step::Need(bytes) => self.fill(bytes, WINDOW_BYTES).await?,
            }
        }
    }

    /// The next batch's position, header and bytes, its CRC checked, or why there is none.
    ///
    /// # Errors
    /// The disk's.
    pub async fn next_batch(&mut self) -> io::Result<Result<(u64, Header, &[u8]), Stop>> {
        loop {
            let position = self.scanner.position;
            match self.scanner.step(window(&self.window, self.window_at, position), self.end.saturating_sub(position)) {
                Step::Batch(header) => {
                    let batch = &window(&self.window, self.window_at, position)[..header.size()];
                    return Ok(Ok((position, header, batch)));
                }
                Step::Stop(stop) => return Ok(Err(stop)),
                Step::Need(bytes) => self.fill(bytes, WHOLE_WINDOW_BYTES).await?,
            }
        }
    }

    /// Reads on until the window holds `bytes` from the scanner's position, or the file has ended.
    async fn fill(&mut self, bytes: usize, usual: usize) -> io::Result<()> {
        let position = self.scanner.position;
        let wanted = bytes.max(usual).min((self.end - position) as usize);
        self.window = self.disk.read_buffered(self.reader, position, wanted).await?;
        self.window_at = position;
        if self.window.len() < bytes {
            // The file is shorter than its caller thought: it ends here.
            self.end = position + self.window.len() as u64;
        }
        Ok(())
    }
}

/// The part of the window from `position` on.
fn window(window: &[u8], at: u64, position: u64) -> &[u8] {
    position.checked_sub(at).and_then(|skip| window.get(usize::try_from(skip).ok()?..)).unwrap_or_default()
}
