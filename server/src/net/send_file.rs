//! Sends a range of a segment with sendfile, in turns, and only bytes that are in the page cache: a cold sendfile blocks
//! its thread, and with it every client of the core.

use super::socket::Socket;
use crate::cold_reads::ColdReads;
use engine::disk::{BufferedFile, Disk, GENTLE_BYTES, UringDisk, cached_pages};
use rustix::fs::{Advice, fadvise};
use std::{io, os::fd::RawFd};
use tokio::sync::SemaphorePermit;

/// Bytes of one turn: between two turns the core serves others, and one turn is what is read at once beside producers.
pub const TURN_BYTES_MAX: usize = GENTLE_BYTES as usize;
/// Bytes that are asked for ahead of the one that is being sent.
const AHEAD_BYTES: usize = 1 << 20;
/// Times that a range is asked for before it is sent as it is: memory may be so short that it is evicted at once.
const ATTEMPTS_MAX: usize = 4;

/// Where the bytes of a range are made resident. The tests have one that fails in its own ways.
pub trait Residency {
    /// Keeps others from reading beside producers.
    type Place<'a>
    where
        Self: 'a;
    /// Waits for a place to read one turn beside producers; `None` at once if there are none. With a place the kernel reads nothing
    /// ahead.
    async fn place(&self) -> Option<Self::Place<'_>>;
    /// Whether a range is in the page cache.
    fn resident(&self, position: u64, len: usize) -> bool;
    /// Asks for a range: when this returns, its pages wait for the disk.
    async fn ask(&self, position: u64, len: usize);
    /// Waits until a range that was asked for has been read.
    async fn arrive(&self, position: u64, len: usize);
}

struct Cached<'a> {
    disk: &'a UringDisk,
    cold_reads: &'a ColdReads,
    reader: &'a BufferedFile,
}

impl Residency for Cached<'_> {
    type Place<'a>
        = SemaphorePermit<'a>
    where
        Self: 'a;

    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        let place = self.cold_reads.place().await;
        // A hint: it may fail on a file that can't be read ahead.
        let _ = fadvise(self.reader, 0, None, if place.is_some() { Advice::Random } else { Advice::Normal });
        place
    }

    fn resident(&self, position: u64, len: usize) -> bool {
        is_resident(self.reader.as_raw_fd(), position, len)
    }

    async fn ask(&self, position: u64, len: usize) {
        self.disk.will_need(self.reader, position, len).await;
    }

    async fn arrive(&self, position: u64, len: usize) {
        // A read of the last byte completes when its page is there: the pages before it were asked for earlier. Beside them it would
        // read that page by itself. What it says is of no interest: sendfile will say the same.
        let _ = self.disk.read_buffered(self.reader, position + len as u64 - 1, 1).await;
    }
}

/// Sends `len` bytes of `reader` from `position` on, all or an error; `progress` is told of every step.
///
/// # Errors
/// The peer is gone, the socket was shut down, the file is shorter (`UnexpectedEof`), or the disk's.
pub async fn send_file(
    socket: &Socket,
    disk: &UringDisk,
    cold_reads: &ColdReads,
    reader: &BufferedFile,
    position: u64,
    len: usize,
    progress: impl FnMut(usize),
) -> io::Result<()> {
    send_range(socket, reader.as_raw_fd(), position, len, &Cached { disk, cold_reads, reader }, progress).await
}

async fn send_range(
    socket: &Socket,
    file: RawFd,
    mut position: u64,
    len: usize,
    cache: &impl Residency,
    mut progress: impl FnMut(usize),
) -> io::Result<()> {
    let mut left = len;
    let mut asked_to = position;
    while left > 0 {
        let turn = left.min(TURN_BYTES_MAX);
        let mut place = None;
        if asked_to < position + turn as u64 && !cache.resident(position, turn) {
            place = cache.place().await;
            // A cold reader goes through the file: ask for more than this turn, so that the device sees one large read.
            let ahead = if place.is_some() { turn } else { left.min(AHEAD_BYTES) };
            cache.ask(position, ahead).await;
            asked_to = position + ahead as u64;
        }
        for _ in 0..ATTEMPTS_MAX {
            if cache.resident(position, turn) {
                break;
            }
            cache.arrive(position, turn).await;
            if !cache.resident(position, turn) {
                cache.ask(position, turn).await;
            }
        }
        drop(place);
        match send_some(socket.as_raw_fd(), file, position, turn) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) => {
                position += sent as u64;
                left -= sent;
                progress(sent);
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
        if left > 0 {
            // Whether the socket is full or not: the ring gets its turn, and we come back when the peer takes bytes, or is
            // gone, which the next sendfile reports.
            socket.writable().await?;
        }
    }
    Ok(())
}

fn send_some(socket: RawFd, file: RawFd, position: u64, len: usize) -> io::Result<usize> {
    let mut offset = i64::try_from(position).map_err(io::Error::other)?;
    // SAFETY: both descriptors are open while their owners are borrowed, and `offset` lives through the call.
    let sent = unsafe { libc::sendfile(socket, file, &mut offset, len) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

const PAGE: u64 = 4096;

/// Whether a range is in the page cache: before Linux 6.5 by reads that may not wait.
fn is_resident(file: RawFd, position: u64, len: usize) -> bool {
    if let Ok(cached) = cached_pages(file, position, len as u64) {
        return cached >= (position + len as u64).div_ceil(PAGE) - position / PAGE;
    }
    reads_at_once(file, position) && reads_at_once(file, position + len as u64 - 1)
}

fn reads_at_once(file: RawFd, position: u64) -> bool {
    let mut byte = 0u8;
    let run = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: one run of one byte that lives through the call.
    unsafe { libc::preadv2(file, &run, 1, position as i64, libc::RWF_NOWAIT) == 1 }
}

#[cfg(test)]
mod tests;
