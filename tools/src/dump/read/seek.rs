//! Where to begin reading a log for what is asked for: its indexes know.

use super::{BytesAt, resync::is_valid, small};
use crate::dump::{
    inputs::{trimmed_index, trimmed_times},
    select::Select,
};
use anyhow::Result;
use engine::{
    batch::{HEADER_BYTES, Header},
    segment::{OffsetIndex, TimeIndex},
};
use std::path::Path;

/// A position of the log at `path` where a batch begins and before which nothing is wanted; 0 where the indexes don't say,
/// are missing or wrong.
pub(crate) fn start(path: &Path, base_offset: i64, select: &Select) -> Result<u64> {
    let Some(index) = offsets(path, base_offset) else { return Ok(0) };
    let by_time = select.timestamps.and_then(|wanted| wanted.from).and_then(|from| Some(times(path, base_offset)?.lookup(from)));
    let by_offset = select.offsets.and_then(|wanted| wanted.from);
    let Some(offset) = by_time.max(by_offset) else { return Ok(0) };
    let position = index.lookup(offset);
    // An index that is wrong must not hide anything.
    let mut file = BytesAt::open(path)?;
    if position == 0 || !is_valid(&mut file, position)? {
        return Ok(0);
    }
    let header = Header::read(file.at(position, HEADER_BYTES)?);
    Ok(if header.is_some_and(|header| header.base_offset() <= offset) { position } else { 0 })
}

/// True if the segment, which is not the last one, holds nothing that is wanted: `next_base` is the offset where the next
/// one begins. By its time index none is passed over: one that was cut between two entries looks whole. What lies behind the last
/// entry is little to read.
pub(crate) fn can_be_skipped(next_base: i64, select: &Select) -> bool {
    select.offsets.and_then(|wanted| wanted.from).is_some_and(|from| next_base <= from)
}

fn offsets(log: &Path, base_offset: i64) -> Option<OffsetIndex> {
    let bytes = small(&log.with_extension("index")).ok()?;
    OffsetIndex::decode(base_offset, trimmed_index(&bytes), u64::MAX).ok()
}

fn times(log: &Path, base_offset: i64) -> Option<TimeIndex> {
    let bytes = small(&log.with_extension("timeindex")).ok()?;
    TimeIndex::decode(base_offset, trimmed_times(&bytes)).ok()
}
