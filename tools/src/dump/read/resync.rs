//! Finding the next batch behind damage.

use super::{BATCH_BYTES_MAX, BytesAt};
use anyhow::Result;
use engine::batch::{HEADER_BYTES, Header, LENGTH_END, MAGIC, MAGIC_AT, crc};

/// What is looked through at once, in bytes.
const WINDOW_BYTES: usize = 1 << 20;
/// Offsets that may be missing where damage was: a batch further on is taken for data that looks like one.
const OFFSETS_MISSING_MAX: i64 = 1 << 32;
/// Attribute bits that Kafka gives a meaning to.
const ATTRIBUTES_KNOWN: i16 = 0b111_1111;

/// The position of the first whole valid batch at or behind `from` whose offsets are not below `next_offset`.
pub(crate) fn resync(file: &mut BytesAt, from: u64, next_offset: i64) -> Result<Option<u64>> {
    let mut position = from;
    while position + (HEADER_BYTES as u64) <= file.size() {
        let size = file.size();
        let window = file.at(position, WINDOW_BYTES)?;
        if window.len() < HEADER_BYTES {
            return Ok(None);
        }
        let heads = window.len() - HEADER_BYTES + 1;
        let magics = window[MAGIC_AT..MAGIC_AT + heads].iter().enumerate().filter(|(_, byte)| **byte == MAGIC as u8);
        let plausible = magics.map(|(at, _)| at).filter(|at| looks_like_one(&window[*at..], size - position - *at as u64, next_offset));
        for candidate in plausible.collect::<Vec<_>>() {
            let at = position + candidate as u64;
            if is_valid(file, at)? {
                return Ok(Some(at));
            }
        }
        position += heads as u64;
    }
    Ok(None)
}

fn looks_like_one(bytes: &[u8], left: u64, next_offset: i64) -> bool {
    Header::read(bytes).is_some_and(|header| {
        let size = header.size();
        let offsets = next_offset..next_offset.saturating_add(OFFSETS_MISSING_MAX);
        size > 0
            && size <= BATCH_BYTES_MAX
            && size as u64 <= left
            && offsets.contains(&header.base_offset())
            && header.attributes() & !ATTRIBUTES_KNOWN == 0
            && header.last_offset_delta() >= 0
            && header.record_count() >= 0
            && i64::from(header.record_count()) <= i64::from(header.last_offset_delta()) + 1
    })
}

/// True if a whole batch with a valid CRC is at `position`.
pub(crate) fn is_valid(file: &mut BytesAt, position: u64) -> Result<bool> {
    let left = file.size().saturating_sub(position);
    let Some(header) = Header::read(file.at(position, HEADER_BYTES)?) else { return Ok(false) };
    let size = header.size();
    if header.magic() != MAGIC || !(LENGTH_END..=BATCH_BYTES_MAX).contains(&size) || size as u64 > left {
        return Ok(false);
    }
    let bytes = file.at(position, size)?;
    Ok(bytes.get(..size).is_some_and(|batch| crc(batch) == header.crc()))
}
