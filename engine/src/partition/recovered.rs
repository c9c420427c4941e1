//! What a start found of a partition: handed from recovery to the core that owns it, as plain data.

use super::PartitionSpec;
use crate::{
    journal::{Entry, Line},
    segment::{EpochStart, ProducerState},
};
use std::{ops::Range, path::PathBuf};

/// One partition after a start.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// The catalog's word.
    pub spec: PartitionSpec,
    /// Its line in the head that the start wrote. A partition that never had a byte has base 0 and zeros.
    pub line: Line,
    /// Producers whose state is newer than the segment's `.snapshot` (or that it can't hold: more than one batch). They
    /// win over the snapshot's; the next head must carry them on.
    pub producers: Vec<ProducerState>,
    /// Leader epochs that began since `leader-epoch-checkpoint` was written; the next head must carry them on.
    pub epochs: Vec<EpochStart>,
    /// What the scan found. `None` if the journal held no entries of it: then it ends at its last whole batch at or below
    /// `line.flushed`, and is opened (and cut, durably, before its first append) when it is first used. Segments with a
    /// base above `line.segment_base` are then left-overs of a roll that no frame named: opening removes them.
    pub scanned: Option<Scanned>,
    /// It is damaged, and can't be opened.
    pub damage: Option<Box<Damage>>,
}

/// Why a partition can't be opened, and what the journal holds of it: all of it is carried on, until the damage is mended.
#[derive(Clone, Debug, PartialEq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// The journal's entries, in order.
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// True if bytes of it are in the journal only.
    #[must_use]
    pub fn is_in_journal(&self) -> bool {
        let has_entries = self.damage.as_ref().is_some_and(|damage| !damage.entries.is_empty());
        has_entries || self.scanned.as_ref().is_some_and(|scanned| !scanned.unmoved.is_empty())
    }

    /// Bytes of it that are in no segment yet, at most.
    #[must_use]
    pub fn unmoved_bytes(&self) -> u64 {
        self.scanned.as_ref().map_or(0, |scanned| u64::from(scanned.end_position.saturating_sub(self.line.flushed)))
    }
}

/// The end of a partition that was scanned.
#[derive(Clone, Debug, PartialEq)]
pub struct Scanned {
    /// The next offset.
    pub log_end: i64,
    /// Where its bytes end in the segment `line.segment_base`.
    pub end_position: u32,
    /// The bytes from the block floor of `line.flushed` to `end_position`: the head carries them, memory must hold them.
    pub tail: Vec<u8>,
    /// Which of those bytes are not in the segment, as positions in it: ranges that begin on a block, in order; the head
    /// that the start wrote carries exactly these (and the part of them below `line.flushed` in its block). What lies
    /// between them is in the segment and flushed, and need not be carried by the next head or written again. The start
    /// has cut the segment to the block floor of `end_position` and allocated it again, so the last range holds the last
    /// partial block.
    pub unmoved: Vec<Range<u32>>,
}
