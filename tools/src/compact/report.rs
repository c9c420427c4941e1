//! What was done of each partition, from what the engine tells while it does it.

use super::{choice::Chosen, measure::Size};
use engine::{
    compaction::Gone,
    log::KeepEvent,
    partition::PartitionId,
    retention::{Facts, Verdict, Why},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, btree_map::Entry},
};

/// A segment that retention has removed.
#[derive(Clone, Debug)]
pub(crate) struct Removed {
    pub(crate) base_offset: i64,
    /// The size of its `.log`.
    pub(crate) bytes: u64,
    pub(crate) why: Why,
    /// What was known of it, and of the log with it, unless it lay below the log start before.
    judged: Option<(Facts, u64)>,
}

/// When something goes without being asked to, by the settings in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByItself {
    /// When the broker starts next; since when it is due, if that is a question of time.
    NextStart(Option<i64>),
    /// At this time, in ms.
    At(i64),
    /// Not by the passing of time.
    Never,
}

impl Removed {
    /// The newest timestamp of its records, in ms.
    pub(crate) fn newest_ms(&self) -> Option<i64> {
        self.judged.and_then(|(facts, _)| facts.newest_ms)
    }

    /// When it goes by itself.
    pub(crate) fn by_itself(&self, chosen: &Chosen, now_ms: i64) -> ByItself {
        let Some((facts, log_bytes)) = self.judged else { return ByItself::NextStart(None) };
        let Some(retention) = chosen.in_force.retention else { return ByItself::Never };
        match retention.judge(&facts, log_bytes, now_ms) {
            Verdict::Remove(Why::Age) => ByItself::NextStart(retention.age_ends(&facts, now_ms)),
            Verdict::Remove(_) => ByItself::NextStart(None),
            Verdict::Keep(Some(at_ms)) => ByItself::At(at_ms),
            Verdict::Keep(None) => ByItself::Never,
        }
    }
}

/// What compaction has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compaction {
    /// Rounds that have come to their end.
    pub(crate) rounds: u64,
    /// Bytes of `.log` files that were replaced, and of those in their place.
    pub(crate) bytes: (u64, u64),
    /// Segments, likewise.
    pub(crate) segments: (u64, u64),
    /// Why records went, in these rounds.
    pub(crate) gone: Gone,
    /// The log is clean below this offset.
    pub(crate) clean_to: i64,
}

/// What is noted of a partition on the way.
#[derive(Debug, Default)]
struct Notes {
    condemned: BTreeMap<i64, (Why, Facts, u64)>,
    removed: Vec<Removed>,
    compaction: Compaction,
    rolled: u64,
    failures: Vec<String>,
}

/// What is noted of all partitions on the way.
pub(crate) struct Ledger {
    now_ms: i64,
    notes: RefCell<BTreeMap<PartitionId, Notes>>,
}

/// What was done of a partition.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) chosen: Chosen,
    pub(crate) before: Size,
    pub(crate) after: Size,
    pub(crate) removed: Vec<Removed>,
    pub(crate) compaction: Compaction,
    /// Active segments that were ended because of their age.
    pub(crate) rolled: u64,
    pub(crate) log_start: i64,
    /// When something of it is due next, in ms.
    pub(crate) next_ms: Option<i64>,
    /// What the files of a killed broker took more than the log had, in bytes: space in reserve. Below 0 if the journal had more.
    pub(crate) reserved: i64,
    /// With `--set`: bytes that go without it at the next start.
    pub(crate) freed_anyway: Option<i64>,
    /// What could not be done.
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// Bytes that its segments and their indexes take less than before; below 0 if they take more.
    pub(crate) fn freed(&self) -> i64 {
        self.before.bytes as i64 - self.after.bytes as i64
    }

    /// Whether anything was done.
    pub(crate) fn has_changed(&self) -> bool {
        !self.removed.is_empty() || self.compaction.rounds > 0 || self.rolled > 0 || self.freed() != 0
    }

    /// What is freed besides `.log` files: indexes.
    pub(crate) fn freed_beside(&self) -> i64 {
        let removed: u64 = self.removed.iter().map(|removed| removed.bytes).sum();
        self.freed() - removed as i64 - (self.compaction.bytes.0 as i64 - self.compaction.bytes.1 as i64)
    }
}

impl Ledger {
    pub(crate) fn new(now_ms: i64) -> Ledger {
        Ledger { now_ms, notes: RefCell::default() }
    }

    /// Takes in what the engine tells.
    pub(crate) fn note(&self, event: &KeepEvent) {
        let mut notes = self.notes.borrow_mut();
        match event {
            KeepEvent::Condemned { partition, base_offset, why, facts, log_bytes, .. } => {
                notes.entry(*partition).or_default().condemned.insert(*base_offset, (*why, *facts, *log_bytes));
            }
            KeepEvent::Removed { partition, base_offset, bytes } => {
                let notes = notes.entry(*partition).or_default();
                let (why, judged) = match notes.condemned.entry(*base_offset) {
                    Entry::Occupied(judged) => {
                        let (why, facts, log_bytes) = judged.remove();
                        (why, Some((facts, log_bytes)))
                    }
                    Entry::Vacant(_) => (Why::LogStart, None),
                };
                notes.removed.push(Removed { base_offset: *base_offset, bytes: *bytes, why, judged });
            }
            KeepEvent::Rolled { partition, .. } => notes.entry(*partition).or_default().rolled += 1,
            KeepEvent::Replaced { partition, group } => {
                let total = &mut notes.entry(*partition).or_default().compaction;
                total.bytes = (total.bytes.0 + group.bytes_before, total.bytes.1 + group.bytes);
                total.segments = (total.segments.0 + group.bases.len() as u64, total.segments.1 + 1);
            }
            KeepEvent::Compacted { partition, cleaned } => {
                let total = &mut notes.entry(*partition).or_default().compaction;
                total.rounds += 1;
                total.clean_to = cleaned.clean_to;
                total.gone += cleaned.gone;
            }
            KeepEvent::Failed { partition, what } => notes.entry(*partition).or_default().failures.push(what.clone()),
        }
    }

    /// What was done of a partition.
    pub(crate) fn report(&self, chosen: Chosen, (before, after): (Size, Size), log_start: i64, next_ms: Option<i64>) -> Report {
        let notes = self.notes.borrow_mut().remove(&chosen.id).unwrap_or_default();
        let Notes { removed, compaction, rolled, failures, .. } = notes;
        let next_ms = next_ms.filter(|at_ms| *at_ms > self.now_ms && *at_ms < i64::MAX);
        Report { chosen, before, after, removed, compaction, rolled, log_start, next_ms, reserved: 0, freed_anyway: None, failures }
    }
}
