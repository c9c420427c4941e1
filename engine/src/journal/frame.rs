//! One frame: a 64-byte header and its content, padded with zeros to whole blocks. The checksum covers all of the header
//! behind itself, salt included, and the content, so it also protects what a batch's CRC does not: offset and epoch.

use super::{FRAME_ALIGNMENT, FRAME_BYTES_MAX, FRAME_CONTENT_MAX, FRAME_HEADER_BYTES, Item, item::Part};
use crate::{
    bugs::{self, Bug},
    disk::{Chunk, Slice},
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::little_endian::{U32, U64},
};

const MAGIC: [u8; 4] = *b"TWJF";
/// The first byte that the checksum covers.
const CHECKED_FROM: usize = 8;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The start number that wrote it.
    pub start: u64,
    /// The salt of that start.
    pub salt: u64,
    /// Whose journal.
    pub core: u32,
    /// The generation of the file.
    pub generation: u64,
    /// Its number: each frame of a file follows the one before by 1.
    pub sequence: u64,
    /// Bytes of content.
    pub length: u32,
    /// If it belongs to the file's head: its number from 1 on, and how many there are. (0, 0) otherwise.
    pub head: (u32, u32),
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    checksum: U32,
    start: U64,
    salt: U64,
    generation: U64,
    sequence: U64,
    length: U32,
    head_number: U32,
    head_count: U32,
    core: U32,
    zero: [u8; 8],
}

const _: () = assert!(size_of::<RawHeader>() == FRAME_HEADER_BYTES);

impl FrameHeader {
    /// True if it belongs to a head.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.head.1 > 0
    }

    /// The bytes that the frame takes in its file, padding included.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        frame_bytes(self.length as usize)
    }

    fn raw(&self, checksum: u32) -> RawHeader {
        RawHeader {
            magic: MAGIC,
            checksum: checksum.into(),
            start: self.start.into(),
            salt: self.salt.into(),
            generation: self.generation.into(),
            sequence: self.sequence.into(),
            length: self.length.into(),
            head_number: self.head.0.into(),
            head_count: self.head.1.into(),
            core: self.core.into(),
            zero: [0; 8],
        }
    }

    /// The header at the front of `bytes`, unchecked but for its magic and its length; `None` if there is none. Its
    /// frame may be longer than `bytes`.
    #[must_use]
    pub fn peek(bytes: &[u8]) -> Option<FrameHeader> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).ok()?;
        let length = raw.length.get();
        (raw.magic == MAGIC && length as usize <= FRAME_CONTENT_MAX).then(|| FrameHeader {
            start: raw.start.get(),
            salt: raw.salt.get(),
            core: raw.core.get(),
            generation: raw.generation.get(),
            sequence: raw.sequence.get(),
            length,
            head: (raw.head_number.get(), raw.head_count.get()),
        })
    }
}

/// The bytes that a frame with `content` bytes takes in its file.
pub(super) fn frame_bytes(content: usize) -> u64 {
    (FRAME_HEADER_BYTES as u64 + content as u64).next_multiple_of(FRAME_ALIGNMENT)
}

/// The frame at the front of `bytes`, whole and with a valid checksum: its header and its content.
#[must_use]
pub fn check(bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let header = FrameHeader::peek(bytes)?;
    let content = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.length as usize)?;
    let checksum = U32::read_from_bytes(&bytes[4..CHECKED_FROM]).ok()?.get();
    let found = crc32c::crc32c_append(crc32c::crc32c(&bytes[CHECKED_FROM..FRAME_HEADER_BYTES]), content);
    (found == checksum || bugs::on(Bug::UncheckedFrame)).then_some((header, content))
}

/// Encodes a frame of items, ready for a direct write: what [`super::JournalWriter::frame`] writes. `header.length` is set
/// here. Public so that it can be measured alone.
#[must_use]
pub fn encode_items(header: FrameHeader, items: &[Item]) -> Slice {
    let parts: Vec<_> = items.iter().map(Part::Item).collect();
    encode(header, &parts)
}

/// Encodes a frame, ready for a direct write. `header.length` is set by what `parts` hold, which must fit a frame.
pub(super) fn encode(mut header: FrameHeader, parts: &[Part<'_>]) -> Slice {
    let length: usize = parts.iter().map(Part::encoded_len).sum();
    assert!(length <= FRAME_CONTENT_MAX, "a frame holds {FRAME_CONTENT_MAX} bytes, not {length}");
    header.length = length as u32;
    // The checksum stands before what it covers, and a chunk is filled from front to back: so the parts are walked twice.
    let mut checksum = crc32c::crc32c(&header.raw(0).as_bytes()[CHECKED_FROM..]);
    parts.iter().for_each(|part| part.encode(&mut |bytes| checksum = crc32c::crc32c_append(checksum, bytes)));
    let bytes = frame_bytes(length) as usize;
    debug_assert!(bytes <= FRAME_BYTES_MAX);
    let chunk = Chunk::new(bytes);
    chunk.append(header.raw(checksum).as_bytes());
    parts.iter().for_each(|part| part.encode(&mut |bytes| chunk.append(bytes)));
    assert_eq!(chunk.filled(), FRAME_HEADER_BYTES + length, "a part's length is what it encodes to");
    chunk.blocks(0, chunk.filled())
}
