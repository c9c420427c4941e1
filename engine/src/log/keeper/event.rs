//! What retention and compaction have done, for whoever wants to know: the log tells an observer, and keeps nothing itself.

use crate::{
    compaction::{Cleaned, Group},
    partition::PartitionId,
    retention::{Facts, Why},
};

/// Something that was decided or done.
#[derive(Clone, Debug, PartialEq)]
pub enum KeepEvent {
    /// Retention has decided that a segment goes, and the log start is above it, durably.
    Condemned {
        /// The partition.
        partition: PartitionId,
        /// The segment's first offset.
        base_offset: i64,
        /// The log start from then on.
        log_start: i64,
        /// Why.
        why: Why,
        /// What was known of the segment.
        facts: Facts,
        /// The size of the log with it, in bytes.
        log_bytes: u64,
    },
    /// A segment's files are removed: one that was condemned before, or lies below the log start for another reason.
    Removed {
        /// The partition.
        partition: PartitionId,
        /// The segment's first offset.
        base_offset: i64,
        /// The size of its `.log` in bytes.
        bytes: u64,
    },
    /// The active segment was ended because of its age.
    Rolled {
        /// The partition.
        partition: PartitionId,
        /// The first offset of the new one.
        base_offset: i64,
    },
    /// A compacted segment has taken the place of its group, in a round that may still fail.
    Replaced {
        /// The partition.
        partition: PartitionId,
        /// What it has replaced.
        group: Group,
    },
    /// A round of compaction has come to its end.
    Compacted {
        /// The partition.
        partition: PartitionId,
        /// What it has done.
        cleaned: Cleaned,
    },
    /// Something could not be done. It is tried again.
    Failed {
        /// The partition.
        partition: PartitionId,
        /// Which file, and why.
        what: String,
    },
}

/// Who is told.
pub type Observer = Box<dyn Fn(&KeepEvent)>;
