//! A walk over the batches of a log that doesn't end at the first damage, and knows an end in motion from a damaged one.

use super::{
    BATCH_BYTES_MAX, BytesAt,
    resync::{is_valid, resync},
};
use anyhow::Result;
use engine::{
    batch::{HEADER_BYTES, Header, Scanner, Step, Stop},
    disk::BLOCK,
};

/// One batch of a log. Its offsets are not compared with those before it.
pub(crate) struct Batch<'a> {
    pub(crate) position: u64,
    pub(crate) header: Header,
    pub(crate) bytes: &'a [u8],
    /// Its CRC, where it is not what the header says.
    pub(crate) wrong: Option<Stop>,
    /// Its CRC is wrong and no batch follows: the rest of it may not be here.
    pub(crate) is_last: bool,
    /// Bytes of it are in the journal, and not in the segment yet.
    pub(crate) in_journal: bool,
}

/// What a walk meets.
pub(crate) enum Seen<'a> {
    /// A batch, or what has the header of one and a wrong CRC, with a batch or the end behind it.
    Batch(Batch<'a>),
    /// Bytes that are no batch, with a valid batch behind them.
    Damage { from: u64, to: u64, stop: Stop },
}

impl Seen<'_> {
    /// Where it begins.
    pub(crate) fn position(&self) -> u64 {
        match self {
            Seen::Batch(batch) => batch.position,
            Seen::Damage { from, .. } => *from,
        }
    }

    /// True of all but a batch that is as its CRC says.
    pub(crate) fn is_bad(&self) -> bool {
        !matches!(self, Seen::Batch(Batch { wrong: None, .. }))
    }

    /// True if a batch follows, or may: not of what [`Batch::is_last`].
    pub(crate) fn is_followed(&self) -> bool {
        !matches!(self, Seen::Batch(Batch { is_last: true, .. }))
    }
}

/// What lies behind the last batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// The end of the file.
    Whole,
    /// Zeros: space that was allocated and not written.
    Allocated,
    /// A batch begins of which only the front is there: the rest is zero, or missing. As in a segment that is being written.
    Unfinished,
    /// Something else.
    Garbage(Stop),
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Behind the last batch.
    pub(crate) position: u64,
    /// The file's end.
    pub(crate) size: u64,
    /// What lies between the two.
    pub(crate) tail: Tail,
}

/// Walks a log from `from` on, where a batch must begin; `each` says whether to go on. Returns where it ended, `None` if
/// `each` ended it.
pub(crate) fn walk(file: &mut BytesAt, from: u64, base_offset: i64, mut each: impl FnMut(Seen<'_>) -> Result<bool>) -> Result<Option<End>> {
    let (mut position, mut needed, mut next_offset) = (from, 0, base_offset);
    loop {
        let size = file.size();
        let window = file.at(position, needed)?;
        match Scanner::new(position, 0, i32::MIN).step(window, size.saturating_sub(position)) {
            Step::Need(bytes) if bytes <= BATCH_BYTES_MAX => needed = bytes,
            Step::Batch(header) => {
                let end = position + header.size() as u64;
                let in_journal = file.is_in_journal(&(position..end));
                let bytes = &file.at(position, header.size())?[..header.size()];
                if !each(Seen::Batch(Batch { position, header, bytes, wrong: None, is_last: false, in_journal }))? {
                    return Ok(None);
                }
                (position, needed, next_offset) = (end, 0, header.next_offset());
            }
            step => {
                let stop = match step {
                    Step::Stop(stop) => stop,
                    _ => Stop::Length(Header::read(window).map_or(0, |header| header.length())),
                };
                match behind(file, position, next_offset, stop)? {
                    Behind::Misplaced(header) => {
                        let window = file.at(position, header.size())?;
                        let Some(bytes) = window.get(..header.size()) else { continue };
                        if !each(Seen::Batch(Batch { position, header, bytes, wrong: None, is_last: false, in_journal: false }))? {
                            return Ok(None);
                        }
                        (position, needed) = (position + header.size() as u64, 0);
                    }
                    Behind::Batch(header, is_last) => {
                        let window = file.at(position, header.size())?;
                        let Some(bytes) = window.get(..header.size()) else { continue };
                        if !each(Seen::Batch(Batch { position, header, bytes, wrong: Some(stop), is_last, in_journal: false }))? {
                            return Ok(None);
                        }
                        (position, needed) = (position + header.size() as u64, 0);
                    }
                    Behind::Damage(to) => {
                        if !each(Seen::Damage { from: position, to, stop })? {
                            return Ok(None);
                        }
                        (position, needed) = (to, 0);
                    }
                    Behind::Nothing(tail) => return Ok(Some(End { position, size: file.size(), tail })),
                }
            }
        }
    }
}

/// What a stop means in a file.
enum Behind {
    /// A whole batch whose CRC is right, and whose base offset, which no CRC covers, can't be one.
    Misplaced(Header),
    /// The header of a batch, whose CRC alone is wrong; and whether it is the last one.
    Batch(Header, bool),
    /// Bytes up to the next batch, which is here.
    Damage(u64),
    /// No further batch.
    Nothing(Tail),
}

fn behind(file: &mut BytesAt, position: u64, next_offset: i64, stop: Stop) -> Result<Behind> {
    if stop == Stop::End {
        return Ok(Behind::Nothing(Tail::Whole));
    }
    if let (Stop::Counts, Some(header)) = (stop, Header::read(file.at(position, HEADER_BYTES)?))
        && header.base_offset() < 0
        && is_valid(file, position)?
    {
        return Ok(Behind::Misplaced(header));
    }
    let zeros = file.zeros_from(position)?;
    if zeros == position {
        return Ok(Behind::Nothing(Tail::Allocated));
    }
    let size = file.size();
    let header = Header::read(file.at(position, HEADER_BYTES)?);
    let end = header.map_or(u64::MAX, |header| position + header.size() as u64);
    if let (Stop::Crc { .. }, Some(header)) = (stop, header)
        && is_valid(file, end)?
    {
        return Ok(Behind::Batch(header, false));
    }
    if let Some(to) = resync(file, position + 1, next_offset)? {
        return Ok(Behind::Damage(to));
    }
    // Zeros from a block boundary on: the rest of the file holds at most the front of this batch.
    let half = zeros.next_multiple_of(BLOCK) < end && zeros < size;
    Ok(match (stop, header) {
        (Stop::Truncated { .. }, _) => Behind::Nothing(Tail::Unfinished),
        (Stop::Crc { .. }, _) if half => Behind::Nothing(Tail::Unfinished),
        (Stop::Crc { .. }, Some(header)) if end >= zeros => Behind::Batch(header, true),
        _ => Behind::Nothing(Tail::Garbage(stop)),
    })
}
