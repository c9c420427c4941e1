//! How many seeds hit each situation that the proof must have seen: a proof that never met a torn frame proves little.

use std::fmt;

/// What a history may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hit {
    /// A frame of the journal was torn by a crash.
    TornFrame,
    /// A core went over to its other journal file while running.
    Switch,
    /// A crash while a head was being written.
    CrashInHead,
    /// A batch was recovered partly from its segment, partly from the journal.
    Straddling,
    /// Behind the recovered end of a segment lay a whole batch that must not come back.
    StaleBeyondCut,
    /// A partition was recovered from its line alone, its last partial block in the segment.
    Parked,
    /// A partition has more than one segment.
    Roll,
    /// A crash while a start was recovering.
    CrashInRecovery,
    /// A start failed and was repeated.
    StartRepeated,
    /// A topic was deleted and created again under its name.
    Recreated,
    /// A flush failed.
    FailedFlush,
    /// A write failed or was short.
    FailedWrite,
    /// There was no space.
    DiskFull,
    /// After a full disk another client's bytes took the place of discarded ones.
    Discarded,
    /// A start had another number of cores.
    CoresChanged,
    /// A clean stop.
    CleanStop,
    /// A process was killed, its machine went on.
    Killed,
    /// An idempotent batch was sent again, and was there already.
    Duplicate,
    /// An idempotent batch was sent again after it was lost.
    Resent,
    /// DeleteRecords raised a log start.
    RecordsDeleted,
    /// A batch was received into memory that became its partition's tail.
    Adopted,
    /// Bytes of acked batches changed on the disk.
    Rotted,
    /// A partition was refused since it is damaged.
    Refused,
    /// A reader was told of damage, or could see it.
    DamageSeen,
    /// What was damaged was put back, and all of the partition must be there again.
    PutBack,
    /// A loss was accepted, and the partition goes on from before the damage.
    LossAccepted,
    /// A start found batches of a partition that was created behind a deletion: with a leader epoch above that of the last start.
    BehindDeletion,
    /// The leader epoch of an acked batch changed on the disk.
    EpochRotted,
    /// A partition was refused since a batch has a leader epoch that nobody gave.
    EpochRefused,
    /// A slot of the superblock changed on the disk.
    SlotRotted,
    /// A slot of the superblock could not be read.
    SlotUnreadable,
}

impl Hit {
    /// Every situation, with its name.
    pub const ALL: [(Hit, &str); 31] = [
        (Hit::TornFrame, "torn frame"),
        (Hit::Switch, "switch of journal files"),
        (Hit::CrashInHead, "crash within a head"),
        (Hit::Straddling, "batch straddling segment and frame"),
        (Hit::StaleBeyondCut, "stale batch beyond the cut"),
        (Hit::Parked, "parked partition"),
        (Hit::Roll, "roll"),
        (Hit::CrashInRecovery, "crash in recovery"),
        (Hit::StartRepeated, "failed start repeated"),
        (Hit::Recreated, "topic deleted and re-created"),
        (Hit::FailedFlush, "failed flush"),
        (Hit::FailedWrite, "failed or short write"),
        (Hit::DiskFull, "disk full"),
        (Hit::Discarded, "offsets given again after a discarded tail"),
        (Hit::CoresChanged, "changed core count"),
        (Hit::CleanStop, "clean stop"),
        (Hit::Killed, "killed process"),
        (Hit::Duplicate, "duplicate recognised"),
        (Hit::Resent, "lost batch sent again"),
        (Hit::RecordsDeleted, "records deleted"),
        (Hit::Adopted, "batch adopted, not copied"),
        (Hit::Rotted, "acked bytes changed on the disk"),
        (Hit::Refused, "damaged partition refused"),
        (Hit::DamageSeen, "damage seen by a reader"),
        (Hit::PutBack, "damage put back"),
        (Hit::LossAccepted, "loss accepted"),
        (Hit::BehindDeletion, "batches of a topic created behind a deletion"),
        (Hit::EpochRotted, "leader epoch changed on the disk"),
        (Hit::EpochRefused, "leader epoch that nobody gave refused"),
        (Hit::SlotRotted, "slot of the superblock changed on the disk"),
        (Hit::SlotUnreadable, "slot of the superblock that could not be read"),
    ];
}

/// The situations of one seed, or how many seeds hit each.
#[derive(Clone, Debug)]
pub struct Counters {
    hits: [u64; Hit::ALL.len()],
    /// Operations, appended batches and crashes of all seeds together.
    pub operations: u64,
    /// Batches that were acked.
    pub acked: u64,
    /// Crashes and kills.
    pub crashes: u64,
    seeds: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters { hits: [0; Hit::ALL.len()], operations: 0, acked: 0, crashes: 0, seeds: 0 }
    }
}

impl Counters {
    /// This seed hit it.
    pub fn hit(&mut self, hit: Hit) {
        self.hits[hit as usize] = 1;
    }

    /// Adds a seed, or the sum of some.
    pub fn add(&mut self, other: &Counters) {
        self.hits.iter_mut().zip(other.hits).for_each(|(sum, hits)| *sum += hits);
        self.operations += other.operations;
        self.acked += other.acked;
        self.crashes += other.crashes;
        self.seeds += other.seeds.max(1);
    }

    /// Situations that no seed hit.
    pub fn missed(&self) -> Vec<&'static str> {
        Hit::ALL.iter().filter(|(hit, _)| self.hits[*hit as usize] == 0).map(|(_, name)| *name).collect()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds: {} operations, {} acked batches, {} crashes; seeds that hit",
            self.seeds, self.operations, self.acked, self.crashes
        )?;
        Hit::ALL.iter().try_for_each(|(hit, name)| writeln!(f, "{:>8}  {name}", self.hits[*hit as usize]))
    }
}
