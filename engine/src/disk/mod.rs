//! The disk as a trait: everything that the engine does to storage goes through [`Disk`].
//!
//! One implementation is io_uring with O_DIRECT, another a simulated disk driven by a seed. An [`Overlay`] lies over either: it
//! keeps what is written beside.

mod cached;
mod chunk;
mod memory;
mod overlay;
mod pace;
pub mod probe;
mod producers;
mod recorder;
pub mod sim;
mod uring;

pub use cached::cached_pages;
pub use chunk::{CHUNK_BYTES, Chunk, Slice};
pub(crate) use memory::give_back;
pub use overlay::{Overlay, OverlayFile};
pub use pace::{FREE_BYTES_MIN, GENTLE_BYTES, Pace, pause_behind};
pub use producers::has_producers;
pub(crate) use producers::{appended, go_on};
pub use recorder::{Recorded, RecordedFile, Recorder};
pub use uring::{BufferedFile, UringDisk};

use futures_util::{FutureExt, future::LocalBoxFuture, poll};
use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    task::Poll,
    time::Duration,
};

/// The unit of every direct read and write, in bytes.
pub const BLOCK: u64 = 4096;

/// How [`Disk::open`] treats a file that exists or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// It must exist.
    Existing,
    /// It is created if it does not exist; the directory still has to be flushed.
    Create,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name within the directory.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Its size in bytes, 0 for a directory.
    pub bytes: u64,
    /// When it was last changed (written, truncated, renamed), in ms since 1970, if the disk knows. Nobody can set it: a copy
    /// is as young as the copying. A power cut may set it back to the last `sync`.
    pub changed_ms: Option<i64>,
}

/// Storage, as the engine sees it. All futures stay on one thread. A future that is dropped leaves its operation in
/// flight: the implementation keeps the buffers alive until the kernel has finished with them.
///
/// Nothing is durable before `flush` (data and the metadata needed to read it), `sync` (all metadata) or `sync_dir`
/// (names) has completed *after* it completed. A failed flush may have dropped the data: never repeat it into an ack.
pub trait Disk: Clone + 'static {
    /// A file opened for direct I/O. Cheap to clone; closed with the last clone.
    type File: Clone + 'static;
    /// A second, buffered, read-only descriptor of a file: what sendfile reads from.
    type Reader: Clone + 'static;

    /// Opens a file for direct reads and writes.
    fn open(&self, path: &Path, how: Open) -> impl Future<Output = io::Result<Self::File>>;
    /// Opens the buffered read-only descriptor of a file.
    fn open_reader(&self, path: &Path) -> impl Future<Output = io::Result<Self::Reader>>;
    /// Grows a file to `bytes` (a multiple of the block) with allocated, zero-reading space; size set first.
    fn allocate(&self, file: &Self::File, bytes: u64) -> impl Future<Output = io::Result<()>>;
    /// Writes whole blocks at a block-aligned `position`: every slice starts and ends on a block. A short write is an
    /// error. Not durable before a later `flush`.
    fn write(&self, file: &Self::File, position: u64, slices: Vec<Slice>) -> impl Future<Output = io::Result<()>>;
    /// fdatasync.
    fn flush(&self, file: &Self::File) -> impl Future<Output = io::Result<()>>;
    /// fsync.
    fn sync(&self, file: &Self::File) -> impl Future<Output = io::Result<()>>;
    /// Direct read at a block-aligned `position` of `len` bytes (a multiple of the block); shorter only at the end of
    /// the file.
    fn read(&self, file: &Self::File, position: u64, len: usize) -> impl Future<Output = io::Result<Slice>>;
    /// Buffered read at any position; shorter only at the end of the file.
    fn read_buffered(&self, reader: &Self::Reader, position: u64, len: usize) -> impl Future<Output = io::Result<Vec<u8>>>;
    /// The file's size in bytes.
    fn size(&self, file: &Self::File) -> impl Future<Output = io::Result<u64>>;
    /// Cuts (or grows, unallocated) a file to `bytes`. Durable after `sync`.
    fn truncate(&self, file: &Self::File, bytes: u64) -> impl Future<Output = io::Result<()>>;
    /// Renames a file or directory, replacing a file. Durable after `sync_dir` of both parents.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;
    /// Removes a file. Durable after `sync_dir`.
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Creates one directory; it is no error if it exists. Durable after `sync_dir` of its parent.
    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// The entries of a directory, sorted by name. `NotFound` if it does not exist.
    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>>;
    /// Flushes a directory: names created, renamed and removed in it become durable.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// A clock in µs that never jumps, to measure with and for nothing else. A disk without one stands still at 0, so that
    /// a simulated run stays the same run.
    fn now_us(&self) -> u64 {
        0
    }
    /// Waits for so long by that clock.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()> {
        let _ = time;
        std::future::ready(())
    }
    /// An ack that is about to be given relies on these bytes being durable. Nothing, but for a [`Recorder`]: it asserts.
    fn relied_on(&self, file: &Self::File, position: u64, len: u64) {
        let _ = (file, position, len);
    }
}

/// Begins an operation that is waited for later: a future does nothing before it is polled.
pub(crate) async fn begin<T: 'static>(operation: impl Future<Output = T> + 'static) -> LocalBoxFuture<'static, T> {
    let mut operation = operation.boxed_local();
    match poll!(&mut operation) {
        Poll::Ready(done) => std::future::ready(done).boxed_local(),
        Poll::Pending => operation,
    }
}

/// True if there is no more space, for whom it may ever be: a full disk, a full quota, or the end of what a file may become.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Reads a whole small file. `NotFound` if it does not exist.
///
/// # Errors
/// Those of the disk.
pub async fn read_whole<D: Disk>(disk: &D, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Existing).await?;
    let size = disk.size(&file).await?;
    let mut bytes = Vec::with_capacity(size as usize);
    while (bytes.len() as u64) < size {
        let rest = (size - bytes.len() as u64).next_multiple_of(BLOCK).min(CHUNK_BYTES as u64);
        let part = disk.read(&file, bytes.len() as u64, rest as usize).await?;
        if part.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} ended early", path.display())));
        }
        let wanted = part.len().min((size - bytes.len() as u64) as usize);
        bytes.extend_from_slice(&part[..wanted]);
    }
    Ok(bytes)
}

/// Writes what a file shows from `start` to `end` (whole blocks within it) once more, and flushes it. After a start reads
/// something this makes it durable, and a flush alone does not: where a flush has failed in an earlier life, the data may
/// be seen, and in no stable place, and the next flush says nothing of it.
///
/// # Errors
/// Those of the disk.
pub async fn write_again<D: Disk>(disk: &D, file: &D::File, start: u64, end: u64) -> io::Result<()> {
    rewrite(disk, file, start, end).await?;
    disk.flush(file).await
}

/// [`write_again`] without its flush.
///
/// # Errors
/// Those of the disk.
pub async fn rewrite<D: Disk>(disk: &D, file: &D::File, start: u64, end: u64) -> io::Result<()> {
    let mut position = start;
    while position < end {
        let part = disk.read(file, position, (end - position).min(CHUNK_BYTES as u64) as usize).await?;
        let length = part.len() as u64;
        if length == 0 || !length.is_multiple_of(BLOCK) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file ends before byte {end}")));
        }
        disk.write(file, position, vec![part]).await?;
        position += length;
    }
    Ok(())
}

/// Writes a whole small file durably and atomically: beside it, flushed, renamed over it, directory flushed.
///
/// # Errors
/// Those of the disk; the old file is then still whole.
pub async fn write_whole<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let file = disk.open(&beside, Open::Create).await?;
    let mut position = 0;
    for part in bytes.chunks(CHUNK_BYTES) {
        let slice = Chunk::padded(part);
        let length = slice.len() as u64;
        disk.write(&file, position, vec![slice]).await?;
        position += length;
    }
    disk.truncate(&file, bytes.len() as u64).await?;
    disk.sync(&file).await?;
    disk.rename(&beside, path).await?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("."))).await
}
