//! What retention and compaction of a core have done since its start, by partition: what `compact --broker` follows.

use engine::{
    compaction::{Job, Progress},
    log::KeepEvent,
    partition::PartitionId,
    retention::Why,
};
use std::{cell::RefCell, collections::BTreeMap};

/// What was done of one partition.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Segments that were removed.
    pub segments: i64,
    /// Bytes of their logs that went by `retention.ms`, by `retention.bytes`, and below the log start.
    pub by: [i64; 3],
    /// Rounds of compaction that have come to their end.
    pub rounds: i64,
    /// Bytes of logs that rounds have replaced, also those that failed later, and of those in their place.
    pub compacted: (i64, i64),
    /// Records that went in rounds that have come to their end.
    pub records: i64,
    /// What could not be done.
    pub failures: i64,
    /// The last thing of these.
    pub last_failure: Option<String>,
    /// Verdicts that are not carried out yet, by base offset.
    condemned: BTreeMap<i64, Why>,
}

/// The tallies of a core, and the round that is out.
#[derive(Default)]
pub struct Tallies {
    of: RefCell<BTreeMap<PartitionId, Tally>>,
    /// Of all partitions together, also those that are no more.
    all: RefCell<Tally>,
    round: RefCell<Option<(PartitionId, Progress, u64)>>,
}

impl Tallies {
    /// Takes in what the log tells.
    pub fn note(&self, event: &KeepEvent) {
        let (mut of, mut all) = (self.of.borrow_mut(), self.all.borrow_mut());
        match event {
            KeepEvent::Condemned { partition, base_offset, why, .. } => {
                of.entry(*partition).or_default().condemned.insert(*base_offset, *why);
            }
            KeepEvent::Removed { partition, base_offset, bytes } => {
                let tally = of.entry(*partition).or_default();
                let reason = match tally.condemned.remove(base_offset) {
                    Some(Why::Age) => 0,
                    Some(Why::Size) => 1,
                    Some(Why::LogStart) | None => 2,
                };
                for tally in [tally, &mut all] {
                    tally.segments += 1;
                    tally.by[reason] += *bytes as i64;
                }
            }
            KeepEvent::Replaced { partition, group } => {
                for tally in [of.entry(*partition).or_default(), &mut all] {
                    tally.compacted.0 += group.bytes_before as i64;
                    tally.compacted.1 += group.bytes as i64;
                }
            }
            KeepEvent::Compacted { partition, cleaned } => {
                for tally in [of.entry(*partition).or_default(), &mut all] {
                    tally.rounds += 1;
                    tally.records += cleaned.gone.total() as i64;
                }
            }
            KeepEvent::Failed { partition, what } => {
                for tally in [of.entry(*partition).or_default(), &mut all] {
                    tally.failures += 1;
                    tally.last_failure = Some(what.clone());
                }
            }
            KeepEvent::Rolled { .. } => {}
        }
    }

    /// What was done of all partitions together.
    #[must_use]
    pub fn all(&self) -> Tally {
        self.all.borrow().clone()
    }

    /// What was done of a partition.
    #[must_use]
    pub fn of(&self, id: PartitionId) -> Tally {
        self.of.borrow().get(&id).cloned().unwrap_or_default()
    }

    /// Forgets a partition that is no more.
    pub fn forget(&self, id: PartitionId) {
        self.of.borrow_mut().remove(&id);
    }

    /// A round of compaction is out.
    pub fn round_begins(&self, job: &Job) {
        *self.round.borrow_mut() = Some((job.partition, job.progress.clone(), job.bytes_to_read()));
    }

    /// It has come back.
    pub fn round_ends(&self) {
        *self.round.borrow_mut() = None;
    }

    /// Bytes that the round of a partition has read, and of how many; zeros if none is out.
    #[must_use]
    pub fn progress(&self, id: PartitionId) -> (i64, i64) {
        let round = self.round.borrow();
        let of_it = round.as_ref().filter(|(partition, ..)| *partition == id);
        of_it.map_or((0, 0), |(_, read, all)| (read.bytes() as i64, *all as i64))
    }
}
