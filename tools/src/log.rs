//! Batches and records of a `.log`.

use crate::{
    BytesAt, Options,
    text::{OptionalLong, Shown},
};
use anyhow::Result;
use engine::batch::{ControlRecord, DECOMPRESSED_BYTES_MAX, Header, Record, Records, Scanner, Step, Stop, crc, payload};
use std::{io::Write, path::Path};

/// The unit in which a broker writes: a batch that is only half in the segment ends on such a boundary, in bytes.
const BLOCK: u64 = 4096;

/// One batch of a log, as a walk over it sees it.
pub(crate) struct Seen<'a> {
    pub(crate) position: u64,
    pub(crate) header: Header,
    pub(crate) batch: &'a [u8],
    pub(crate) valid: bool,
}

/// Where a walk over a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// At the end of the file.
    Whole,
    /// Zeros follow: space that was allocated and not written.
    Allocated,
    /// A batch begins that is only half there, as in a segment that is being written.
    Unfinished,
    /// Something else follows.
    Damaged(Stop),
}

/// Walks a log; `each` says whether to go on. A batch with a wrong CRC is passed over, as long as a valid header follows.
/// Returns where it ended.
pub(crate) fn walk(file: &mut BytesAt, base_offset: i64, mut each: impl FnMut(Seen<'_>) -> Result<bool>) -> Result<Option<(u64, Ending)>> {
    let mut scanner = Scanner::new(0, base_offset, i32::MIN);
    let mut needed = 0;
    loop {
        let position = scanner.position;
        let size = file.size();
        let window = file.at(position, needed)?;
        let (header, valid) = match scanner.step(window, size.saturating_sub(position)) {
            Step::Batch(header) => (header, true),
            Step::Need(bytes) => {
                needed = bytes;
                continue;
            }
            Step::Stop(stop) => match ending(file, position, stop)? {
                Ending::Damaged(Stop::Crc { .. }) => {
                    let window = file.at(position, needed)?;
                    let Step::Batch(header) = scanner.step_header(window, size - position) else { unreachable!("its header is whole") };
                    (header, false)
                }
                ending => return Ok(Some((position, ending))),
            },
        };
        let batch = &file.at(position, header.size())?[..header.size()];
        needed = 0;
        if !each(Seen { position, header, batch, valid })? {
            return Ok(None);
        }
    }
}

/// What a scan's stop means in a file.
fn ending(file: &mut BytesAt, position: u64, stop: Stop) -> Result<Ending> {
    let zeros = file.zeros_from(position)?;
    Ok(match stop {
        Stop::End => Ending::Whole,
        Stop::Zeros if zeros == position => Ending::Allocated,
        Stop::Crc { .. } | Stop::Truncated { .. } | Stop::Zeros => {
            // The rest of the file holds at most the front of this batch, up to a block boundary.
            let header = Header::read(file.at(position, 61)?);
            let end = header.map_or(u64::MAX, |header| position + header.size() as u64);
            let half = zeros.next_multiple_of(BLOCK) < end && (zeros < file.size() || matches!(stop, Stop::Truncated { .. }));
            if half && stop != Stop::Zeros { Ending::Unfinished } else { Ending::Damaged(stop) }
        }
        stop => Ending::Damaged(stop),
    })
}

pub(crate) fn dump(path: &Path, base_offset: i64, options: &Options, out: &mut dyn Write) -> Result<u64> {
    let mut file = BytesAt::open(path)?;
    writeln!(out, "Log starting offset: {base_offset}")?;
    let (mut damages, mut printed) = (0, 0);
    let end = walk(&mut file, base_offset, |seen| {
        damages += u64::from(!seen.valid);
        let wanted = options.from_offset.is_none_or(|from| seen.header.last_offset() >= from)
            && options.producer_id.is_none_or(|producer| seen.header.producer_id() == producer);
        if wanted {
            print_batch(&seen, out)?;
            if options.records {
                print_records(&seen.header, seen.batch, out)?;
            }
            printed += 1;
        }
        Ok(options.batches_max.is_none_or(|max| printed < max))
    })?;
    let Some((position, ending)) = end else { return Ok(damages) };
    let rest = file.size() - position;
    match ending {
        Ending::Whole => {}
        Ending::Allocated => writeln!(out, "{rest} bytes from position {position} on are allocated and not written")?,
        Ending::Unfinished => writeln!(out, "The batch at position {position} is not whole here yet: its end is in the journal")?,
        Ending::Damaged(stop) => {
            writeln!(out, "Found {rest} invalid bytes at the end of {}: position {position}: {stop}", path.display())?;
            damages += 1;
        }
    }
    Ok(damages)
}

fn print_batch(seen: &Seen<'_>, out: &mut dyn Write) -> Result<()> {
    let header = &seen.header;
    let codec = header.codec().map_or_else(|id| format!("unknown ({id})"), |codec| codec.name().to_owned());
    writeln!(
        out,
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} producerEpoch: {} \
         partitionLeaderEpoch: {} isTransactional: {} isControl: {} deleteHorizonMs: {} position: {} {}: {} size: {} magic: {} \
         compresscodec: {codec} crc: {} isvalid: {}",
        header.base_offset(),
        header.last_offset(),
        header.record_count(),
        header.base_sequence(),
        header.last_sequence(),
        header.producer_id(),
        header.producer_epoch(),
        header.leader_epoch(),
        header.is_transactional(),
        header.is_control(),
        OptionalLong(header.delete_horizon()),
        seen.position,
        timestamp_type(header),
        header.max_timestamp(),
        header.size(),
        header.magic(),
        header.crc(),
        seen.valid && crc(seen.batch) == header.crc(),
    )?;
    Ok(())
}

fn timestamp_type(header: &Header) -> &'static str {
    if header.is_log_append_time() { "LogAppendTime" } else { "CreateTime" }
}

fn print_records(header: &Header, batch: &[u8], out: &mut dyn Write) -> Result<()> {
    let payload = match payload(header, batch, DECOMPRESSED_BYTES_MAX) {
        Ok(payload) => payload,
        Err(error) => return Ok(writeln!(out, "| {error}")?),
    };
    for record in Records::new(header, &payload) {
        match record {
            Ok(record) => print_record(header, &record, out)?,
            Err(error) => writeln!(out, "| {error}")?,
        }
    }
    Ok(())
}

fn print_record(header: &Header, record: &Record<'_>, out: &mut dyn Write) -> Result<()> {
    let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
    let sequence = if header.base_sequence() < 0 { -1 } else { engine::batch::sequence_after(header.base_sequence(), record.offset_delta) };
    write!(
        out,
        "| offset: {} {}: {} keySize: {} valueSize: {} sequence: {sequence} headerKeys: [",
        record.offset(header),
        timestamp_type(header),
        record.timestamp(header),
        size(record.key),
        size(record.value),
    )?;
    for (at, (key, _)) in record.headers.iter().enumerate() {
        write!(out, "{}{}", if at > 0 { "," } else { "" }, Shown(key))?;
    }
    write!(out, "]")?;
    match ControlRecord::of(record).filter(|_| header.is_control()) {
        Some(ControlRecord::Abort { coordinator_epoch }) => write!(out, " endTxnMarker: ABORT coordinatorEpoch: {coordinator_epoch}")?,
        Some(ControlRecord::Commit { coordinator_epoch }) => write!(out, " endTxnMarker: COMMIT coordinatorEpoch: {coordinator_epoch}")?,
        Some(ControlRecord::Other(kind)) => write!(out, " controlType: {kind}")?,
        None => {
            if let Some(key) = record.key {
                write!(out, " key: {}", Shown(key))?;
            }
            if let Some(value) = record.value {
                write!(out, " payload: {}", Shown(value))?;
            }
        }
    }
    writeln!(out)?;
    Ok(())
}
