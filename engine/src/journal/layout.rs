//! Where things lie in the journal's directory, and the bounds of its frames.

use crate::disk::BLOCK;
use std::path::{Path, PathBuf};

/// Frames begin on multiples of this, in bytes.
pub const FRAME_ALIGNMENT: u64 = BLOCK;
/// A frame with its header and padding is at most this long, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// A frame's header, in bytes.
pub const FRAME_HEADER_BYTES: usize = 64;
/// What a frame holds at most, in encoded bytes.
pub const FRAME_CONTENT_MAX: usize = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;
/// A partition's line in a head, in bytes.
pub const LINE_BYTES: usize = 32;
/// The smallest journal file, in bytes (of tests: the broker asks for much more).
pub const FILE_BYTES_MIN: u64 = 64 << 10;

/// A file that is made for a head is so many times as long: the rest is for frames.
pub const HEAD_SHARE: u64 = 4;

const _: () = assert!((FRAME_BYTES_MAX as u64).is_multiple_of(FRAME_ALIGNMENT), "a frame is whole blocks");

/// Which of a core's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// `core-K.a`
    A,
    /// `core-K.b`
    B,
}

impl Which {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Which {
        match self {
            Which::A => Which::B,
            Which::B => Which::A,
        }
    }
}

/// The path of one of a core's files.
#[must_use]
pub fn file_path(journal_dir: &Path, core: usize, which: Which) -> PathBuf {
    journal_dir.join(format!("core-{core}.{}", if which == Which::A { 'a' } else { 'b' }))
}

/// The path of the superblock.
#[must_use]
pub fn superblock_path(journal_dir: &Path) -> PathBuf {
    journal_dir.join("superblock")
}

/// True if a head of so many bytes leaves room for frames in a file that can't be made larger.
#[must_use]
pub fn leaves_room(head: u64, file_bytes: u64) -> bool {
    head <= file_bytes / 4 * 3
}

/// The smallest file, in bytes, that may checkpoint `partitions` of one core: eight times what a head of them needs
/// when each carries one block.
#[must_use]
pub fn file_bytes_needed(partitions: usize) -> u64 {
    (8 * partitions as u64 * (BLOCK + LINE_BYTES as u64)).next_multiple_of(FRAME_ALIGNMENT).max(FILE_BYTES_MIN)
}
