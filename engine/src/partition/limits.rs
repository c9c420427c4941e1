//! The bounds that a partition acts on, and what all partitions of a core use of them together.

use super::tail::Budget;
use crate::measure::Traffic;
use std::{cell::Cell, rc::Rc};

/// Runs that nobody waits for, at the same time: they take the disk from those that somebody does wait for. Eight of them made a journal's
/// flush ten times as long (docs/benchmarks.md).
const QUIET_RUNS_MAX: usize = 1;

/// How often a full disk is asked again, in ms of the appends' clock.
pub const SPACE_RETRY_MS: i64 = 200;
/// Appends of a full disk may hold this part of a journal file: one of so many.
const HOMELESS_SHARE: u64 = 16;
/// Much waits to be moved to segments where it is more than this share of its bound.
const WAITING_SHARE: u64 = 4;
/// Then this share of `bulk_bytes_min` is enough to skip the journal.
const BULK_SHARE_WAITING: u64 = 4;

/// Bounds of a core's log, and what is used of them.
#[derive(Debug)]
pub struct Limits {
    /// Whole new blocks of a partition, in bytes, from which on they skip the journal, while little waits to be moved.
    pub bulk_bytes_min: u64,
    /// Bytes of one run.
    pub run_bytes_max: u64,
    /// The size of each of the two journal files, in bytes.
    pub journal_file_bytes: u64,
    /// Bytes that are in no segment yet, at most.
    pub unmoved_bytes_max: u64,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
    /// Idempotent producers remembered per partition.
    pub producers_max: usize,
    /// Memory of all tails.
    pub budget: Rc<Budget>,
    /// Bytes that are in no segment yet, of all partitions but the offline ones.
    pub unmoved: Cell<u64>,
    /// Those among them for which the disk had no space.
    pub homeless: Cell<u64>,
    /// Senders that wait until bytes were moved.
    pub senders_waiting: Cell<usize>,
    /// Runs in flight that nobody waits for, and allocations for them.
    pub quiet_runs: Cell<usize>,
    /// Partitions that take no appends until the next start.
    pub offline: Cell<u64>,
    /// What went through all partitions.
    pub traffic: Traffic,
    /// The newest clock that an append brought, in ms.
    pub now_ms: Cell<i64>,
}

impl Limits {
    /// [`Limits::bulk_bytes_min`] as it is now. What is in the journal is written once more; that is cheap in long runs, which few
    /// partitions give. Fewer bytes are enough where much waits to be moved.
    #[must_use]
    pub fn bulk_bytes_min_now(&self) -> u64 {
        let waits = self.unmoved.get() > self.unmoved_bytes_max / WAITING_SHARE;
        if waits { self.bulk_bytes_min / BULK_SHARE_WAITING } else { self.bulk_bytes_min }
    }

    /// True if moving bytes to segments should not wait for larger runs.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.senders_waiting.get() > 0 || self.unmoved.get() > self.unmoved_bytes_max / 2
    }

    /// True if a run that nobody waits for may begin.
    #[must_use]
    pub fn may_run_quietly(&self) -> bool {
        self.quiet_runs.get() < QUIET_RUNS_MAX
    }

    /// True if `bytes` more may be appended to partitions whose segments can't grow. The broker's own have twice as
    /// much, so that it can go on committing offsets and deleting topics when the disk is full.
    #[must_use]
    pub fn has_credit(&self, bytes: u64, internal: bool) -> bool {
        let share = self.journal_file_bytes / HOMELESS_SHARE * if internal { 2 } else { 1 };
        self.homeless.get() + bytes <= share
    }
}
