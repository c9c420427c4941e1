//! Reading a core's two files at a start: which of them counts, and what it says.
//!
//! A file counts with the generation of its head, if that is complete. Frames behind it count in sequence up to the first
//! invalid one: the frame that was in flight at a crash. A valid frame behind an invalid one, or one of a generation whose
//! head is not complete anywhere, was once acked: that is damage, and is never passed over in silence.

use super::{
    Chain, Extent, FRAME_ALIGNMENT, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, JournalError, Line, Which, file_path,
    frame::{FrameHeader, check},
    item::{Found, decode},
};
use crate::{
    disk::{Disk, Open, write_again},
    ids::PartitionId,
    segment::{EpochStart, ProducerState},
};
use std::{collections::BTreeSet, io, path::Path};

/// Which frames exist: those of one start, for one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The start number.
    pub start: u64,
    /// The salt.
    pub salt: u64,
    /// The core.
    pub core: usize,
}

/// Bytes of a segment that a frame held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub partition: PartitionId,
    /// The segment's base offset.
    pub segment_base: i64,
    /// Where in the segment.
    pub position: u32,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The head carries it: when that was written, it was a part of the log, and durable.
    pub in_head: bool,
}

impl Entry {
    /// Where it lies.
    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent { position: self.position, bytes: self.bytes.len() as u32, in_head: self.in_head }
    }
}

/// What a core's journal says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// The generation of the file.
    pub generation: u64,
    /// The head's lines.
    pub lines: Vec<Line>,
    /// Entries, in order.
    pub entries: Vec<Entry>,
    /// Log starts that were raised, in order.
    pub log_starts: Vec<(PartitionId, i64)>,
    /// The head's producers.
    pub producers: Vec<(PartitionId, ProducerState)>,
    /// The head's epochs.
    pub epochs: Vec<(PartitionId, EpochStart)>,
    /// The partitions whose bytes of frames the head carries on.
    as_frames: BTreeSet<PartitionId>,
}

impl Content {
    fn apply(&mut self, found: Found<'_>, in_head: bool) {
        match found {
            Found::Line(line) => self.lines.push(line),
            Found::Bytes { partition, segment_base, position, bytes } => {
                let in_head = in_head && !self.as_frames.contains(&partition);
                self.entries.push(Entry { partition, segment_base, position, bytes: bytes.to_vec(), in_head });
            }
            Found::LogStart { partition, offset } => self.log_starts.push((partition, offset)),
            Found::Producer { partition, state } => self.producers.push((partition, state)),
            Found::Epoch { partition, epoch } => self.epochs.push((partition, epoch)),
            Found::Frames { partition } => drop(self.as_frames.insert(partition)),
        }
    }
}

/// What one file holds.
struct FileFound {
    /// Its content, if its head is complete.
    content: Option<Content>,
    /// A valid frame lies behind an invalid one: where the invalid one is.
    damaged_at: Option<u64>,
    /// The highest generation of a valid frame that is in no head.
    entries_generation: u64,
    /// Where its valid frames end.
    end: u64,
}

/// Flushes and reads a core's two files: which one counts, and what it says. That one is durable when this returns.
///
/// # Errors
/// [`JournalError::Damaged`] unless `accept_loss`, which goes on without what is behind the damage; the disk's.
pub async fn read_core<D: Disk>(
    disk: &D,
    journal_dir: &Path,
    identity: Identity,
    accept_loss: bool,
) -> Result<(Which, Content), JournalError> {
    let mut entries_generation = 0;
    let mut best: Option<(Which, Content, D::File, FileFound)> = None;
    for which in [Which::A, Which::B] {
        let path = file_path(journal_dir, identity.core, which);
        let file = match disk.open(&path, Open::Existing).await {
            Ok(file) => file,
            // Both exist from the commit of a core's first start on, and the one that is missing may be the newer.
            Err(error) if error.kind() == io::ErrorKind::NotFound && accept_loss => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(JournalError::Damaged { path, what: "it is missing".to_owned() });
            }
            Err(source) => return Err(JournalError::Failed { path, source }),
        };
        let mut found = read_file(disk, &file, identity).await.map_err(|source| JournalError::Failed { path: path.clone(), source })?;
        entries_generation = entries_generation.max(found.entries_generation);
        if let Some(content) = found.content.take()
            && best.as_ref().is_none_or(|(_, best, ..)| best.generation < content.generation)
        {
            best = Some((which, content, file, found));
        }
    }
    let damaged = |which, what| JournalError::Damaged { path: file_path(journal_dir, identity.core, which), what };
    let Some((which, content, file, found)) = best else {
        if accept_loss {
            tracing::warn!("the journal of core {} has no complete head: what was in it only is given up", identity.core);
            return Ok((Which::A, Content::default()));
        }
        return Err(damaged(
            Which::A,
            format!("neither it nor {} has a complete head", file_path(journal_dir, identity.core, Which::B).display()),
        ));
    };
    let damage = match found.damaged_at {
        Some(position) => Some((which, format!("an invalid frame at byte {position} lies before valid ones"))),
        None => (entries_generation > content.generation)
            .then(|| (which.other(), format!("its head, of generation {entries_generation}, is not complete, but frames follow it"))),
    };
    if let Some((which, what)) = damage {
        if !accept_loss {
            return Err(damaged(which, what));
        }
        tracing::warn!("{}: {what}: what was acked there is given up", file_path(journal_dir, identity.core, which).display());
    }
    // The other file is about to be overwritten: this one must be what it seems.
    let path = file_path(journal_dir, identity.core, which);
    write_again(disk, &file, 0, found.end).await.map_err(|source| JournalError::Failed { path, source })?;
    Ok((which, content))
}

async fn read_file<D: Disk>(disk: &D, file: &D::File, identity: Identity) -> io::Result<FileFound> {
    // After a kill, what the file shows may sit in the device's cache only.
    disk.flush(file).await?;
    let mut window = Window { disk, file, size: disk.size(file).await?, base: 0, bytes: Vec::new() };
    let mut found = FileFound { content: None, damaged_at: None, entries_generation: 0, end: 0 };
    let mut content = Content::default();
    let mut chain = Chain::default();
    while let Some((header, items)) = window.frame(found.end, identity).await? {
        let Some(items) = decode(items).ok().filter(|_| chain.push(&header)) else { break };
        content.generation = header.generation;
        items.into_iter().for_each(|item| content.apply(item, header.is_head()));
        if !header.is_head() {
            found.entries_generation = header.generation;
        }
        found.end += header.frame_bytes();
    }
    found.content = chain.generation().is_some().then_some(content);
    let mut offset = found.end;
    while offset < window.size {
        if let Some((header, _)) = window.frame(offset, identity).await?
            && !header.is_head()
        {
            found.entries_generation = found.entries_generation.max(header.generation);
            if chain.is_passed_by(&header) {
                found.damaged_at = Some(found.end);
            }
        }
        offset += FRAME_ALIGNMENT;
    }
    Ok(found)
}

/// A window over a file: frames are small and many, so they are read many at a time.
struct Window<'a, D: Disk> {
    disk: &'a D,
    file: &'a D::File,
    size: u64,
    base: u64,
    bytes: Vec<u8>,
}

/// What a window reads at a time, in bytes.
const WINDOW_BYTES: usize = 4 * FRAME_BYTES_MAX;

impl<D: Disk> Window<'_, D> {
    /// The valid frame of `identity` that begins at `offset`, if there is one: its header and content.
    async fn frame(&mut self, offset: u64, identity: Identity) -> io::Result<Option<(FrameHeader, &[u8])>> {
        let Some(header) = FrameHeader::peek(self.at(offset, FRAME_HEADER_BYTES).await?) else { return Ok(None) };
        if header.start != identity.start || header.salt != identity.salt || header.core as usize != identity.core {
            return Ok(None);
        }
        let bytes = self.at(offset, FRAME_HEADER_BYTES + header.length as usize).await?;
        Ok(check(bytes))
    }

    /// `length` bytes from `offset` on, fewer at the end of the file.
    async fn at(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let end = (offset + length as u64).min(self.size);
        if offset < self.base || end > self.base + self.bytes.len() as u64 {
            self.base = offset / FRAME_ALIGNMENT * FRAME_ALIGNMENT;
            self.bytes.clear();
            while self.bytes.len() < WINDOW_BYTES {
                let part = self.disk.read(self.file, self.base + self.bytes.len() as u64, FRAME_BYTES_MAX).await?;
                self.bytes.extend_from_slice(&part);
                if part.len() < FRAME_BYTES_MAX {
                    break;
                }
            }
        }
        let from = (offset.saturating_sub(self.base) as usize).min(self.bytes.len());
        let to = (end.saturating_sub(self.base) as usize).min(self.bytes.len());
        Ok(&self.bytes[from..to.max(from)])
    }
}
