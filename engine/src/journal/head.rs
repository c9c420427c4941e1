//! A head: everything that the older file is needed for, laid out over as many frames as it takes.

use super::{
    FRAME_CONTENT_MAX, Item, JournalError, LINE_BYTES, Line,
    frame::{FrameHeader, encode, frame_bytes},
    item::{BYTES_HEADER, LINES_HEADER, Part},
};
use crate::disk::{Disk, Slice};
use std::path::Path;

/// Bytes of one item are not split into less than this, to keep a head from being all item headers.
const SPLIT_BYTES_MIN: usize = 4096;

/// Lays a head out: each element is one frame's parts. There is at least one frame, if an empty one.
pub(super) fn layout<'a>(lines: &'a [Line], items: &'a [Item]) -> Vec<Vec<Part<'a>>> {
    let mut frames = vec![Vec::new()];
    let mut room = FRAME_CONTENT_MAX;
    let mut put = |part: Part<'a>, length: usize| {
        debug_assert_eq!(part.encoded_len(), length);
        if length > room {
            frames.push(Vec::new());
            room = FRAME_CONTENT_MAX;
        }
        room -= length;
        frames.last_mut().expect("never empty").push(part);
        room
    };
    let lines_max = (FRAME_CONTENT_MAX - LINES_HEADER) / LINE_BYTES;
    let mut room = FRAME_CONTENT_MAX;
    for run in lines.chunks(lines_max) {
        room = put(Part::Lines(run), LINES_HEADER + run.len() * LINE_BYTES);
    }
    for item in items {
        let length = item.encoded_len();
        match item {
            Item::Bytes { partition, segment_base, position, bytes } if length > room => {
                let mut position = *position;
                let mut rest = bytes.clone();
                while !rest.is_empty() {
                    let space = if room < BYTES_HEADER + SPLIT_BYTES_MIN { FRAME_CONTENT_MAX } else { room };
                    let (taken, left) = split(rest, space - BYTES_HEADER);
                    let length: usize = taken.iter().map(|slice| slice.len()).sum();
                    let part = Part::Bytes { partition: *partition, segment_base: *segment_base, position, bytes: taken };
                    room = put(part, BYTES_HEADER + length);
                    position += length as u32;
                    rest = left;
                }
                if bytes.is_empty() {
                    room = put(Part::Item(item), length);
                }
            }
            _ => room = put(Part::Item(item), length),
        }
    }
    frames
}

/// The first `length` bytes of `slices`, and what is left.
fn split(slices: Vec<Slice>, mut length: usize) -> (Vec<Slice>, Vec<Slice>) {
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for slice in slices {
        let here = slice.len().min(length);
        if here > 0 {
            taken.push(slice.sub(0, here));
        }
        if here < slice.len() {
            left.push(slice.sub(here, slice.len()));
        }
        length -= here;
    }
    (taken, left)
}

/// The bytes that a head takes in its file.
#[must_use]
pub fn head_bytes(lines: &[Line], items: &[Item]) -> u64 {
    Head::new(lines, items).bytes
}

/// A head that is laid out.
pub(super) struct Head<'a> {
    frames: Vec<Vec<Part<'a>>>,
    /// What it takes in its file, in bytes: whole frames.
    pub bytes: u64,
}

impl<'a> Head<'a> {
    /// Lays it out.
    pub fn new(lines: &'a [Line], items: &'a [Item]) -> Head<'a> {
        let frames = layout(lines, items);
        let bytes = frames.iter().map(|parts| frame_bytes(parts.iter().map(Part::encoded_len).sum())).sum();
        Head { frames, bytes }
    }

    /// Writes it to the front of `file`, which is `file_bytes` long, and flushes it. `first` describes its first frame
    /// (lengths and numbers are filled in). Returns the next sequence and where the next frame begins.
    pub async fn write<D: Disk>(
        &self,
        disk: &D,
        file: &D::File,
        path: &Path,
        file_bytes: u64,
        first: FrameHeader,
    ) -> Result<(u64, u64), JournalError> {
        let failed = |source| JournalError::Failed { path: path.to_path_buf(), source };
        if self.bytes > file_bytes {
            return Err(JournalError::HeadTooLarge { path: path.to_path_buf(), needed: self.bytes, bytes: file_bytes });
        }
        let count = self.frames.len() as u32;
        let (mut sequence, mut offset) = (first.sequence, 0);
        for (number, parts) in (1..).zip(&self.frames) {
            let frame = encode(FrameHeader { sequence, head: (number, count), ..first }, parts);
            let length = frame.len() as u64;
            disk.write(file, offset, vec![frame]).await.map_err(failed)?;
            sequence += 1;
            offset += length;
        }
        disk.flush(file).await.map_err(failed)?;
        assert_eq!(offset, self.bytes, "a head is as long as its layout");
        Ok((sequence, offset))
    }
}
