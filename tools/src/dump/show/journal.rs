//! The journal's files: superblock slots and frames.

use super::{Line, Printer, Value, checkpoints::producer_line};
use crate::dump::{Outcome, read::BytesAt};
use anyhow::Result;
use engine::{
    batch::{Scanner, scan},
    disk::BLOCK,
    journal::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES, Found, FrameHeader, Superblock, check, decode},
};
use serde_json::json;
use std::path::Path;

pub(super) fn superblock(bytes: &[u8], out: &mut Printer<'_>) -> Result<bool> {
    let mut valid = 0;
    for (number, slot) in bytes.chunks(BLOCK as usize).enumerate() {
        match Superblock::of_slot(slot) {
            Some((version, block)) => {
                valid += 1;
                let line = Line::new("slot").count("slot", number as u64).int("version", version).count("sequence", block.sequence);
                let line = line.count("start", block.start).text("salt", format!("{:016x}", block.salt)).int("journals", block.journals);
                out.line(&line.int("epochFloor", block.epoch_floor).bool("clean", block.clean))?;
            }
            None if slot.iter().all(|byte| *byte == 0) => out.note(None, &format!("slot: {number} never written"))?,
            None => out.note(None, &format!("slot: {number} torn or damaged"))?,
        }
    }
    // One torn slot is what a crash may leave.
    Ok(valid > 0)
}

/// Prints every valid frame of a file, whatever start wrote it. The file may be in use: a frame that is not valid (yet) is
/// left out.
pub(super) fn print(path: &Path, records: bool, out: &mut Printer<'_>) -> Result<Outcome> {
    let mut file = BytesAt::open(path)?;
    let (mut position, mut last) = (0, None::<FrameHeader>);
    let mut worst = Outcome::Clean;
    while position < file.size() {
        let window = file.at(position, FRAME_HEADER_BYTES)?;
        let Some(header) = FrameHeader::peek(window) else {
            position += FRAME_ALIGNMENT;
            continue;
        };
        let window = file.at(position, FRAME_HEADER_BYTES + header.length as usize)?;
        let Some((header, content)) = check(window) else {
            position += FRAME_ALIGNMENT;
            continue;
        };
        // Where one run of frames ends, what follows is left over from before the file was last begun.
        let follows = last.is_none_or(|last| {
            (last.start, last.salt, last.generation, last.sequence + 1) == (header.start, header.salt, header.generation, header.sequence)
        });
        if !follows {
            out.note(Some(position), "-- older content follows --")?;
        }
        let items = decode(content);
        out.line(&frame(position, &header, items.as_ref().map(Vec::len).ok()))?;
        match &items {
            Ok(items) if records => items.iter().try_for_each(|found| out.line(&item(found)))?,
            Ok(_) => {}
            Err(error) => {
                worst = Outcome::Corrupt;
                out.damage(Some(position), &format!("| Damaged: {error}"))?;
            }
        }
        last = Some(header);
        position += header.frame_bytes();
    }
    Ok(worst)
}

fn frame(position: u64, header: &FrameHeader, items: Option<usize>) -> Line {
    let mut line = Line::new("frame").count("position", position).int("core", header.core).count("start", header.start);
    line = line.text("salt", format!("{:016x}", header.salt)).count("generation", header.generation);
    line = line.count("sequence", header.sequence).int("size", header.length);
    if header.is_head() {
        line = line.text("head", format!("{}/{}", header.head.0, header.head.1));
    }
    match items {
        Some(items) => line.count("items", items as u64),
        None => line,
    }
}

fn item(item: &Found<'_>) -> Line {
    match item {
        Found::Line(found) => Line::prefixed("journalLine", "| line ")
            .int("partition", found.partition.0)
            .int("segment", found.segment_base)
            .int("flushed", found.flushed)
            .int("batchStart", found.batch_start)
            .int("indexEnd", found.index_end)
            .int("logStart", found.log_start),
        Found::Bytes { partition, segment_base, position, bytes } => {
            let line = Line::prefixed("journalBytes", "| bytes ").int("partition", partition.0).int("segment", *segment_base);
            let line = line.int("position", *position).count("size", bytes.len() as u64);
            // The bytes may begin within a batch; then nothing is to be seen from here.
            let mut offsets = None;
            scan(bytes, Scanner::new(0, *segment_base, i32::MIN), |_, header, _| {
                offsets = Some((offsets.map_or(header.base_offset(), |(first, _)| first), header.last_offset()));
            });
            match offsets {
                Some((first, last)) => line.with("offsets", Value::Own { text: format!("{first}-{last}"), json: json!([first, last]) }),
                None => line,
            }
        }
        Found::LogStart { partition, offset } => {
            Line::prefixed("journalLogStart", "| logStart ").int("partition", partition.0).int("offset", *offset)
        }
        Found::Frames { partition } => Line::prefixed("journalFrames", "| frames ").int("partition", partition.0),
        Found::Producer { partition, state } => {
            producer_line(Line::prefixed("journalProducer", "| producer ").int("partition", partition.0), state)
        }
        Found::Epoch { partition, epoch } => Line::prefixed("journalEpoch", "| epoch ")
            .int("partition", partition.0)
            .int("epoch", epoch.epoch)
            .int("startOffset", epoch.start_offset),
    }
}
