//! What a journal holds of one segment, laid over the bytes of its file: later frames win, as in a start.

use super::follow::{Frames, Journal, Origin, Piece};
use anyhow::Result;
use engine::{
    ids::PartitionId,
    journal::{Found, decode},
};
use std::{cell::RefCell, ops::Range, path::Path, rc::Rc};

/// The pieces of one segment.
///
/// Where the journal was written anew since it was followed, a frame is not there any more: then its bytes are in the segment by
/// now, or in the other file.
#[derive(Debug)]
pub(crate) struct Overlay {
    journal: Rc<RefCell<Journal>>,
    partition: PartitionId,
    base_offset: i64,
    origin: Origin,
    pieces: Vec<Piece>,
    frames: Frames,
    /// Ranges of the last window in which the file had other bytes.
    laid: Vec<Range<u64>>,
}

impl Overlay {
    pub(super) fn new(
        journal: Rc<RefCell<Journal>>,
        (partition, base_offset): (PartitionId, i64),
        origin: Origin,
        pieces: Vec<Piece>,
    ) -> Result<Overlay> {
        let frames = Frames::open(&origin.path)?;
        Ok(Overlay { journal, partition, base_offset, origin, pieces, frames, laid: Vec::new() })
    }

    /// The first position that it holds bytes of; `u64::MAX` without any.
    pub(crate) fn begin(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.from)).min().unwrap_or(u64::MAX)
    }

    /// Behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.to)).max().unwrap_or(0)
    }

    /// The file of the journal.
    pub(crate) fn path(&self) -> &Path {
        &self.origin.path
    }

    /// Lays the pieces over the segment's bytes from `position` on. False if the journal was written anew since: the segment must
    /// be read again, too.
    pub(crate) fn lay(&mut self, position: u64, window: &mut [u8]) -> Result<bool> {
        self.laid.clear();
        let (end, mut last) = (position + window.len() as u64, None);
        for at in 0..self.pieces.len() {
            let Piece { from, to, frame, .. } = self.pieces[at];
            if last == Some(frame) || u64::from(from) >= end || position >= u64::from(to) {
                continue;
            }
            if !self.lay_frame(frame, position, window)? {
                self.renew()?;
                return Ok(false);
            }
            last = Some(frame);
        }
        Ok(true)
    }

    /// Lays all that the frame at `frame` holds of the segment.
    fn lay_frame(&mut self, frame: u64, position: u64, window: &mut [u8]) -> Result<bool> {
        let frame = self.frames.at(frame)?.filter(|(header, _)| self.origin.is_of(header));
        let Some(items) = frame.and_then(|(_, content)| decode(content).ok()) else { return Ok(false) };
        for item in items {
            let Found::Bytes { partition, segment_base, position: at, bytes } = item else { continue };
            if (partition, segment_base) != (self.partition, self.base_offset) {
                continue;
            }
            let (from, to) = (u64::from(at).max(position), (u64::from(at) + bytes.len() as u64).min(position + window.len() as u64));
            if from < to {
                let over = &bytes[(from - u64::from(at)) as usize..(to - u64::from(at)) as usize];
                let under = &mut window[(from - position) as usize..(to - position) as usize];
                if let Some(first) = over.iter().zip(&*under).position(|(over, under)| over != under) {
                    let last = over.iter().zip(&*under).rposition(|(over, under)| over != under).unwrap_or(first);
                    self.laid.push(from + first as u64..from + last as u64 + 1);
                    under.copy_from_slice(over);
                }
            }
        }
        Ok(true)
    }

    /// True if bytes of this range, which the last window held, are not in the segment's file, or were not yet.
    pub(crate) fn holds(&self, range: &Range<u64>) -> bool {
        self.laid.iter().any(|laid| laid.start < range.end && range.start < laid.end)
    }

    fn renew(&mut self) -> Result<()> {
        let mut journal = self.journal.borrow_mut();
        journal.refresh()?;
        self.pieces.clear();
        if let Some((origin, journaled)) = journal.partition(self.partition) {
            self.origin = origin.clone();
            self.pieces = super::pieces_of(journaled, self.base_offset);
        }
        self.frames = Frames::open(&self.origin.path)?;
        Ok(())
    }
}
