//! An open partition: everything that is known of it while it can be appended to and read.

use super::{
    PartitionSpec,
    epochs::Epochs,
    growth::Growth,
    limits::Limits,
    producers::Producers,
    progress::Progress,
    stretch::Stretch,
    waiters::{DurableWaiters, Watchers},
};
use crate::{disk::Disk, measure::Traffic, segment::Indexes};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

/// Discards that a waiter can look back to.
const DISCARDS_MAX: usize = 64;

/// The file of the segment that is written to.
pub struct ActiveFile<D: Disk> {
    /// Its path.
    pub path: PathBuf,
    /// For direct writes.
    pub file: D::File,
    /// For sendfile.
    pub reader: D::Reader,
    /// How far its space is allocated, in bytes: writes below it need no new space.
    pub allocated: u64,
    /// How far it was ever written to, in bytes.
    pub submitted: u64,
    /// What the next allocation adds.
    pub growth: Growth,
}

/// A segment that is not written to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its first offset.
    pub base_offset: i64,
    /// Its size in bytes.
    pub bytes: u64,
    /// It has a `.txnindex`: a Kafka wrote it.
    pub has_transactions: bool,
    /// When it was last written to by the broker's clock, in ms; `None` if nobody knows.
    pub written_ms: Option<i64>,
}

/// What is under way on a partition's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jobs {
    /// A write and flush of the active segment.
    pub run: bool,
    /// It is being parked: when the run has finished, memory is given back.
    pub parking: bool,
    /// The active segment is being allocated further.
    pub allocating: bool,
    /// The active segment is being sealed.
    pub sealing: bool,
    /// Something of it is in the frame in flight.
    pub in_frame: bool,
    /// The journal lane will look at it.
    pub journal_queued: bool,
    /// The bulk lane will look at it.
    pub bulk_queued: bool,
    /// It waits until no other run is under way that nobody waits for.
    pub waits_quietly: bool,
    /// Compacted segments take the place of others: the directory is not to be touched.
    pub swapping: bool,
    /// So many tasks open its sealed segments, which may write indexes.
    pub looking: u32,
}

impl Jobs {
    /// True if something beside the lanes works on the files of its directory.
    #[must_use]
    pub fn holds_directory(&self) -> bool {
        self.swapping || self.looking > 0
    }

    /// True if nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !(self.run || self.allocating || self.sealing || self.in_frame)
    }
}

/// The disk had no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSpace {
    /// When it is asked again, in ms of the appends' clock.
    pub retry_at_ms: i64,
    /// It was for the next segment, not for more of the active one.
    pub at_roll: bool,
    /// It is being asked again.
    pub is_probing: bool,
}

/// An open partition.
pub struct Partition<D: Disk> {
    /// The catalog's word.
    pub spec: PartitionSpec,
    /// The directory of its files.
    pub directory: PathBuf,
    /// The leader epoch of new batches.
    pub leader_epoch: i32,
    /// The first offset that can be read.
    pub log_start: i64,
    /// What it is to become: the journal's next frame takes it.
    pub log_start_wanted: i64,
    /// The durable end.
    pub high_watermark: i64,
    /// The segments that are in memory: the one that is written to, and those that begin when it is sealed.
    pub stretches: VecDeque<Stretch>,
    /// Where the bytes of the first of them are.
    pub progress: Progress,
    /// Its file.
    pub active: ActiveFile<D>,
    /// Its indexes, of durable batches only.
    pub indexes: Indexes,
    /// Up to where they go, in bytes.
    pub indexed: u64,
    /// Bytes of its `.index` that are on disk.
    pub index_end: u32,
    /// The segments before it, in order.
    pub sealed: Vec<SealedSegment>,
    /// The segment that the line of it in the journal's current head names: of the segments before that one the journal
    /// needs nothing, so only they may be removed or compacted.
    pub journal_base: i64,
    /// Its idempotent producers.
    pub producers: Producers,
    /// Its leader epochs.
    pub epochs: Epochs,
    /// What is under way.
    pub jobs: Jobs,
    /// Why it takes no appends any more.
    pub offline: Option<String>,
    /// It is being deleted.
    pub is_deleted: bool,
    /// The log is being closed.
    pub is_closing: bool,
    /// Everything is in its files, which have their exact length.
    pub is_finished: bool,
    /// The disk had no space for it.
    pub no_space: Option<NoSpace>,
    /// Appends that found no place are to be dropped as soon as no frame holds them.
    pub must_discard: bool,
    /// It was appended to since a switch of the journal last parked those that were idle.
    pub is_fresh: bool,
    /// Its partial block is to be written to its segment.
    pub wants_parking: bool,
    /// Retention and compaction should look at it: something has changed that they have not seen.
    pub wants_keeping: bool,
    /// When the active segment ends behind this position, retention by size has something to do.
    pub keep_at_end: u64,
    /// The broker's clock at the last append, in ms.
    pub appended_ms: Option<i64>,
    /// How often sealed segments were replaced by a compacted one.
    pub replaced: u64,
    /// The broker's clock when a segment was last ended before it was full, in ms.
    pub rolled_ms: i64,
    /// It has memory to give back, and is among the core's holders.
    pub holds_memory: bool,
    /// Moved with every change that a reader could wait for.
    pub version: u64,
    /// Appends that wait for the durable end.
    pub waiters: DurableWaiters,
    /// Readers that wait for a change.
    pub watchers: Watchers,
    /// What went through it.
    pub traffic: Traffic,
    /// Where the last discards cut, with the number of the first of them.
    discards: (u64, VecDeque<i64>),
    counted: (u64, u64),
    counted_offline: bool,
    /// New bytes of at least this many skip the journal. It changes with the counts only, when both lanes are asked anew: what one
    /// of them leaves to the other must be taken there.
    pub(super) bulk_bytes_min: u64,
}

/// What [`Partition`] is made of.
pub struct Parts<D: Disk> {
    /// The catalog's word.
    pub spec: PartitionSpec,
    /// The directory of its files.
    pub directory: PathBuf,
    /// The leader epoch of new batches.
    pub leader_epoch: i32,
    /// The first offset that can be read.
    pub log_start: i64,
    /// The segment that is written to.
    pub stretch: Stretch,
    /// Up to where its bytes are in its file, flushed.
    pub flushed: u64,
    /// Which of those behind are in the journal only.
    pub unmoved: Vec<(u64, u64)>,
    /// Up to where the journal's head vouches for bytes, which may be above the end.
    pub stale_until: u64,
    /// Its file.
    pub active: ActiveFile<D>,
    /// Its indexes.
    pub indexes: Indexes,
    /// Bytes of its `.index` that are on disk.
    pub index_end: u32,
    /// The segments before it, in order.
    pub sealed: Vec<SealedSegment>,
    /// The segment that the journal's current head names.
    pub journal_base: i64,
    /// Its idempotent producers.
    pub producers: Producers,
    /// Its leader epochs.
    pub epochs: Epochs,
}

impl<D: Disk> Partition<D> {
    /// A partition with everything durable that `parts` hold.
    #[must_use]
    pub fn new(parts: Parts<D>) -> Partition<D> {
        let end = parts.stretch.end();
        Partition {
            spec: parts.spec,
            directory: parts.directory,
            leader_epoch: parts.leader_epoch,
            log_start: parts.log_start,
            log_start_wanted: parts.log_start,
            high_watermark: parts.stretch.next_offset(),
            progress: Progress::new(parts.flushed, end, parts.unmoved, parts.stale_until),
            stretches: VecDeque::from([parts.stretch]),
            active: parts.active,
            indexes: parts.indexes,
            indexed: end,
            index_end: parts.index_end,
            sealed: parts.sealed,
            journal_base: parts.journal_base,
            producers: parts.producers,
            epochs: parts.epochs,
            jobs: Jobs::default(),
            offline: None,
            is_deleted: false,
            is_closing: false,
            is_finished: false,
            no_space: None,
            must_discard: false,
            is_fresh: false,
            wants_parking: false,
            wants_keeping: false,
            keep_at_end: u64::MAX,
            appended_ms: None,
            replaced: 0,
            rolled_ms: i64::MIN,
            holds_memory: false,
            version: 0,
            waiters: DurableWaiters::default(),
            watchers: Watchers::default(),
            discards: (0, VecDeque::new()),
            counted: (0, 0),
            counted_offline: false,
            bulk_bytes_min: u64::MAX,
            traffic: Traffic::default(),
        }
    }

    /// The segment that is written to.
    #[must_use]
    pub fn front(&self) -> &Stretch {
        self.stretches.front().expect("a partition has a segment")
    }

    /// The segment that is appended to.
    #[must_use]
    pub fn back(&self) -> &Stretch {
        self.stretches.back().expect("a partition has a segment")
    }

    /// The next offset to be given.
    #[must_use]
    pub fn log_end(&self) -> i64 {
        self.back().next_offset()
    }

    /// The path of a file in its directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The path of the active segment.
    #[must_use]
    pub fn active_path(&self) -> &Path {
        &self.active.path
    }

    /// Bytes of all its segments.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.bytes).sum::<u64>() + self.stretches.iter().map(Stretch::end).sum::<u64>()
    }

    /// How many of the sealed segments, from the first on, lie wholly below the log start.
    #[must_use]
    pub fn dead(&self) -> usize {
        let bases = self.sealed.iter().skip(1).map(|sealed| sealed.base_offset).chain([self.front().base_offset()]);
        bases.take_while(|next| *next <= self.log_start).count().min(self.sealed.len())
    }

    /// Takes over that the durable end has moved: indexes, producers, epochs, waiters, readers.
    pub fn advance(&mut self) {
        let front = self.stretches.front().expect("a partition has a segment");
        let (position, next_offset) = front.boundary(self.progress.durable());
        if next_offset <= self.high_watermark {
            return;
        }
        for held in front.batches_from(self.indexed).take_while(|held| held.end() <= position) {
            self.indexes.push(held.position, &held.header);
        }
        self.indexed = position;
        self.high_watermark = next_offset;
        self.producers.durable_to(next_offset);
        self.waiters.wake_below(next_offset);
        self.touch();
    }

    /// The first segment in memory is sealed and the next one's file is there: from now on frames may name it.
    pub fn begin_next(&mut self, active: ActiveFile<D>) {
        assert!(self.stretches.len() > 1 && self.progress.is_settled(), "a roll has a next segment");
        self.stretches.pop_front();
        let next = self.front();
        let (base_offset, end) = (next.base_offset(), next.end());
        self.progress = Progress::new(0, 0, [], 0);
        self.progress.append(end);
        self.active = active;
        self.indexes = Indexes::new(base_offset);
        (self.indexed, self.index_end) = (0, 0);
        if self.no_space.is_some_and(|no_space| no_space.at_roll) {
            self.no_space = None;
            tracing::info!("{}: there is space again", self.directory.display());
        }
        // More segments may have begun meanwhile: this one is complete then, and takes no more.
        self.wants_keeping = true;
    }

    /// Tells the readers.
    pub fn touch(&mut self) {
        self.version += 1;
        self.watchers.fire();
    }

    /// Drops every append that no lane has taken: there is no space for them. Their waiters get an error.
    pub fn discard(&mut self) {
        self.must_discard = false;
        let front = self.stretches.front_mut().expect("a partition has a segment");
        let (position, next_offset) = front.boundary(self.progress.taken());
        self.progress.discard(position, self.active.submitted);
        front.truncate(position);
        self.forget_above(next_offset);
    }

    /// Takes no appends from here on, and drops what isn't durable. Reads of what is go on.
    pub fn go_offline(&mut self, why: String) {
        tracing::error!("{}: {why}; it takes no appends until the broker starts again", self.directory.display());
        self.offline = Some(why);
        let front = self.stretches.front_mut().expect("a partition has a segment");
        let (position, next_offset) = front.boundary(self.progress.durable());
        self.progress.go_offline(position);
        front.truncate(position);
        self.forget_above(next_offset);
        self.touch();
    }

    fn forget_above(&mut self, next_offset: i64) {
        self.stretches.truncate(1);
        self.producers.discard();
        self.epochs.truncate_end(next_offset);
        self.epochs.assign(self.leader_epoch, next_offset);
        let (first, cuts) = &mut self.discards;
        cuts.push_back(next_offset);
        if cuts.len() > DISCARDS_MAX {
            cuts.pop_front();
            *first += 1;
        }
        self.waiters.wake_all();
    }

    /// How many discards there were: with [`Partition::was_discarded`] a waiter finds out what became of its append.
    #[must_use]
    pub fn discards(&self) -> u64 {
        self.discards.0 + self.discards.1.len() as u64
    }

    /// True if the record that got `offset` when there were `since` discards was dropped, or may have been.
    #[must_use]
    pub fn was_discarded(&self, offset: i64, since: u64) -> bool {
        let (first, cuts) = &self.discards;
        since < *first || cuts.iter().skip((since - first) as usize).any(|cut| *cut <= offset)
    }

    /// Brings the core's counts up to date with what has changed here. True if bytes were moved or dropped.
    pub fn recount(&mut self, limits: &Limits) -> bool {
        let waiting: u64 = self.stretches.iter().skip(1).map(Stretch::end).sum();
        let unmoved = if self.offline.is_some() || self.is_deleted { 0 } else { self.progress.unmoved() + waiting };
        let homeless = if self.no_space.is_some() { unmoved } else { 0 };
        let (unmoved_before, homeless_before) = std::mem::replace(&mut self.counted, (unmoved, homeless));
        limits.unmoved.set(limits.unmoved.get() + unmoved - unmoved_before);
        limits.homeless.set(limits.homeless.get() + homeless - homeless_before);
        let is_offline = self.offline.is_some() && !self.is_deleted;
        let was_offline = std::mem::replace(&mut self.counted_offline, is_offline);
        limits.offline.set(limits.offline.get() + u64::from(is_offline) - u64::from(was_offline));
        self.bulk_bytes_min = limits.bulk_bytes_min_now();
        unmoved < unmoved_before || homeless != homeless_before
    }
}
