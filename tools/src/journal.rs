//! The journal's files: superblock slots and frames.

use crate::{BytesAt, Options, checkpoints::print_producer};
use anyhow::Result;
use engine::{
    batch::{Scanner, scan},
    disk::BLOCK,
    journal::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES, Found, FrameHeader, Superblock, check, decode},
};
use std::{io::Write, path::Path};

pub(crate) fn dump_superblock(bytes: &[u8], out: &mut dyn Write) -> Result<u64> {
    let mut valid = 0;
    for (number, slot) in bytes.chunks(BLOCK as usize).enumerate() {
        match Superblock::of_slot(slot) {
            Some((version, block)) => {
                valid += 1;
                writeln!(
                    out,
                    "slot: {number} version: {version} sequence: {} start: {} salt: {:016x} journals: {} epochFloor: {} clean: {}",
                    block.sequence, block.start, block.salt, block.journals, block.epoch_floor, block.clean
                )?;
            }
            None if slot.iter().all(|byte| *byte == 0) => writeln!(out, "slot: {number} never written")?,
            None => writeln!(out, "slot: {number} torn or damaged; the other one counts")?,
        }
    }
    // One torn slot is what a crash may leave.
    Ok(u64::from(valid == 0))
}

/// Prints every valid frame of a file, whatever start wrote it. The file may be in use: a frame that is not valid (yet) is
/// left out.
pub(crate) fn dump_file(path: &Path, options: &Options, out: &mut dyn Write) -> Result<u64> {
    let mut file = BytesAt::open(path)?;
    let (mut position, mut last) = (0, None::<FrameHeader>);
    let mut damages = 0;
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
            writeln!(out, "-- older content follows --")?;
        }
        let items = decode(content);
        damages += u64::from(items.is_err());
        print_frame(position, &header, items.as_ref().map(Vec::len).ok(), out)?;
        match &items {
            Ok(items) if options.records => items.iter().try_for_each(|item| print_item(item, out))?,
            Ok(_) => {}
            Err(error) => writeln!(out, "| Damaged: {error}")?,
        }
        last = Some(header);
        position += header.frame_bytes();
    }
    Ok(damages)
}

fn print_frame(position: u64, header: &FrameHeader, items: Option<usize>, out: &mut dyn Write) -> Result<()> {
    write!(
        out,
        "position: {position} core: {} start: {} salt: {:016x} generation: {} sequence: {} size: {}",
        header.core, header.start, header.salt, header.generation, header.sequence, header.length
    )?;
    if header.is_head() {
        write!(out, " head: {}/{}", header.head.0, header.head.1)?;
    }
    if let Some(items) = items {
        write!(out, " items: {items}")?;
    }
    Ok(writeln!(out)?)
}

fn print_item(item: &Found<'_>, out: &mut dyn Write) -> Result<()> {
    match item {
        Found::Line(line) => writeln!(
            out,
            "| line partition: {} segment: {} flushed: {} batchStart: {} indexEnd: {} logStart: {}",
            line.partition.0, line.segment_base, line.flushed, line.batch_start, line.index_end, line.log_start
        )?,
        Found::Bytes { partition, segment_base, position, bytes } => {
            write!(out, "| bytes partition: {} segment: {segment_base} position: {position} size: {}", partition.0, bytes.len())?;
            // The bytes may begin within a batch; then nothing is to be seen from here.
            let mut offsets = None;
            scan(bytes, Scanner::new(0, *segment_base, i32::MIN), |_, header, _| {
                offsets = Some((offsets.map_or(header.base_offset(), |(first, _)| first), header.last_offset()));
            });
            match offsets {
                Some((first, last)) => writeln!(out, " offsets: {first}-{last}")?,
                None => writeln!(out)?,
            }
        }
        Found::LogStart { partition, offset } => writeln!(out, "| logStart partition: {} offset: {offset}", partition.0)?,
        Found::Producer { partition, state } => print_producer(&format!("| producer partition: {} ", partition.0), state, out)?,
        Found::Epoch { partition, epoch } => {
            writeln!(out, "| epoch partition: {} epoch: {} startOffset: {}", partition.0, epoch.epoch, epoch.start_offset)?;
        }
    }
    Ok(())
}
