//! The journal: its superblock, and the two files of each core as a start would read them.

use super::{Finding, Level};
use crate::dump::read::{BytesAt, small};
use anyhow::Result;
use engine::{
    disk::BLOCK,
    journal::{
        Chain, FORMAT_VERSION, FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, Superblock, Which, check, decode, file_path,
        superblock_path,
    },
};
use std::path::Path;

/// A broker may be writing: damage is what is still there when it's read again.
const READS_MAX: usize = 3;

/// What is wrong with the journal in `directory`.
pub(super) fn verify(directory: &Path) -> Result<Vec<Finding>> {
    let mut found = look(directory)?;
    for _ in 1..READS_MAX {
        if found.iter().all(|finding| finding.level == Level::Note) {
            break;
        }
        let again = look(directory)?;
        found.retain(|finding| again.iter().any(|other| finding.is_same(other)));
    }
    Ok(found)
}

fn look(directory: &Path) -> Result<Vec<Finding>> {
    let path = superblock_path(directory);
    let bytes = small(&path)?;
    let mut found = Vec::new();
    let newest = Superblock::newest(&bytes);
    let what = if newest.is_some() { "is torn or damaged: the other one counts" } else { "is torn or damaged" };
    for (number, slot) in bytes.chunks(BLOCK as usize).enumerate() {
        if Superblock::of_slot(slot).is_none() && slot.iter().any(|byte| *byte != 0) {
            let note = Finding::new(Level::Note, &path, format!("slot {number} {what}"));
            found.push(note.at(number as u64 * BLOCK));
        }
    }
    let Some((version, block)) = newest else {
        let finding = Finding::new(Level::Corrupt, &path, "no slot is valid: the broker refuses to start");
        found.push(finding.action("restore it from a backup; the segments can still be read, and be moved into a new data directory"));
        return Ok(found);
    };
    if version > FORMAT_VERSION {
        found.push(Finding::new(
            Level::Note,
            &path,
            format!("format {version} is newer than {FORMAT_VERSION}: its journals are not verified"),
        ));
        return Ok(found);
    }
    for core in 0..block.journals as usize {
        found.extend(verify_core(directory, core, &block)?);
    }
    Ok(found)
}

/// What one file of a core holds.
struct Held {
    /// The generation of its head, if that is complete.
    generation: Option<u64>,
    /// Where its valid frames end.
    end: u64,
    /// A later frame of the same generation is valid.
    followed: bool,
    /// The highest generation of a frame that is in no head.
    entries: u64,
    /// A valid frame has a content that can't be read.
    unreadable: Option<u64>,
}

fn verify_core(directory: &Path, core: usize, block: &Superblock) -> Result<Vec<Finding>> {
    const ACTION: &str = "restore the file; `thalweg --accept-loss` starts without what lies behind the damage";
    let mut found = Vec::new();
    let mut files = Vec::new();
    for which in [Which::A, Which::B] {
        let path = file_path(directory, core, which);
        if path.is_file() {
            files.push((read(&path, core, block)?, path));
        } else {
            found.push(Finding::new(Level::Corrupt, &path, "it is missing").action(ACTION));
        }
    }
    let newest = files.iter().filter_map(|(held, _)| held.generation).max();
    for (held, path) in &files {
        let counts = held.generation.is_some() && held.generation == newest;
        if let Some(position) = held.unreadable.filter(|_| counts) {
            found.push(Finding::new(Level::Corrupt, path, "a frame holds items that can't be read").at(position).action(ACTION));
        } else if counts && held.followed {
            found.push(Finding::new(Level::Corrupt, path, "an invalid frame lies before valid ones").at(held.end).action(ACTION));
        } else if newest.is_some_and(|newest| held.entries > newest) {
            let what = format!("the head of generation {} is not complete, but frames follow it", held.entries);
            found.push(Finding::new(Level::Corrupt, path, what).at(0).action(ACTION));
        }
    }
    if newest.is_none()
        && let Some((_, path)) = files.first()
    {
        found.push(Finding::new(Level::Corrupt, path, "neither of the core's files has a complete head").action(ACTION));
    }
    Ok(found)
}

fn read(path: &Path, core: usize, block: &Superblock) -> Result<Held> {
    let mut file = BytesAt::open(path)?;
    let mut held = Held { generation: None, end: 0, followed: false, entries: 0, unreadable: None };
    let (mut chain, mut position, mut ended) = (Chain::default(), 0, false);
    while position < file.size() {
        let Some((header, content)) = frame(&mut file, position, core, block)? else {
            ended = true;
            position += FRAME_ALIGNMENT;
            continue;
        };
        if !header.is_head() {
            held.entries = held.entries.max(header.generation);
        }
        if !ended && chain.push(&header) {
            if decode(&content).is_err() {
                held.unreadable = held.unreadable.or(Some(position));
            }
            position += header.frame_bytes();
            held.end = position;
        } else {
            ended = true;
            held.followed |= chain.is_passed_by(&header);
            position += FRAME_ALIGNMENT;
        }
    }
    held.generation = chain.generation();
    Ok(held)
}

fn frame(file: &mut BytesAt, position: u64, core: usize, block: &Superblock) -> Result<Option<(FrameHeader, Vec<u8>)>> {
    let Some(header) = FrameHeader::peek(file.at(position, FRAME_HEADER_BYTES)?) else { return Ok(None) };
    if (header.start, header.salt, header.core as usize) != (block.start, block.salt, core) {
        return Ok(None);
    }
    let window = file.at(position, FRAME_HEADER_BYTES + header.length as usize)?;
    Ok(check(window).map(|(header, content)| (header, content.to_vec())))
}
