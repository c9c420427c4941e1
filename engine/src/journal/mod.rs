//! The journal: two files per core, written in turn, each beginning with a complete checkpoint.
//!
//! ```text
//! superblock      slot 0 | slot 1                      the newest valid slot names the start: number, salt, journals
//! core-K.a, .b    head frame 1..n | frame | frame | …  the file of the higher complete generation counts
//! ```
//! `docs/format.md` has every byte.

mod chain;
mod error;
mod frame;
mod head;
mod item;
mod layout;
mod reader;
mod superblock;
#[cfg(test)]
mod tests;
mod vouched;
mod writer;

pub use chain::Chain;
pub use error::JournalError;
pub use frame::{FrameHeader, check, encode_items};
pub use head::head_bytes;
pub use item::{Found, Item, Line, decode};
pub use layout::{
    FILE_BYTES_MIN, FRAME_ALIGNMENT, FRAME_BYTES_MAX, FRAME_CONTENT_MAX, FRAME_HEADER_BYTES, HEAD_SHARE, LINE_BYTES, Which,
    file_bytes_needed, file_path, leaves_room, superblock_path,
};
pub use reader::{Content, Entry, Identity, read_core};
pub use superblock::{FORMAT_VERSION, Superblock};
pub use vouched::{Ended, Extent, ended, is_front, vouched};
pub use writer::{JournalPosition, JournalWriter, prepare_file, write_first_head};
