//! The partitions of one core: what the broker calls.

mod bulk_lane;
mod changes;
mod config;
mod core;
mod error;
mod journal_lane;
mod keeper;
mod signal;
mod start;
mod stats;
mod waiting;

pub use crate::partition::{AbortedTransaction, AppendError, Appended, Piece, ReadError, ReadPlan};
pub use config::LogConfig;
pub use error::LogError;
pub use keeper::{KeepEvent, Observer};
pub use start::{CATALOG, Foreign, Replay, Start, catalog_spec, find_foreign, mark_clean};
pub use stats::{LogStats, PartitionStats, Use};

use self::{
    core::{Core, Slot, Unopened},
    keeper::Keeper,
    signal::{Latch, Signal},
};
use crate::{
    compaction::{CleanError, Cleaned, Job},
    disk::{BLOCK, Disk, Slice},
    journal::{JournalPosition, JournalWriter, file_bytes_needed},
    measure::Traffic,
    partition::{
        PartitionConfig, PartitionId, PartitionSpec, Recovered,
        limits::Limits,
        open::OpenError,
        read::{Ask, Source, read_sealed},
        stretch::Incoming,
        tail::Budget,
    },
    segment::OpenSegments,
};
use futures_util::future::{pending, select};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, VecDeque},
    io,
    pin::pin,
    rc::Rc,
};

/// A partition's offsets at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// The first offset that can be read.
    pub log_start: i64,
    /// The durable end: what consumers may read up to.
    pub high_watermark: i64,
    /// The first offset that a transaction could still abort; the high watermark if there is none.
    pub last_stable: i64,
    /// The next offset to be given.
    pub log_end: i64,
    /// The leader epoch of new batches.
    pub leader_epoch: i32,
    /// A write or flush of it failed, or it can't be opened: no appends until the broker starts again.
    pub offline: bool,
}

/// What [`Log::offset_for`] looks for, as ListOffsets asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeQuery {
    /// The first record with a timestamp at or above this one, in ms.
    AtOrAfter(i64),
    /// The record with the highest timestamp (KIP-734).
    Max,
}

/// What one core needs to open its log, made by the start for all cores together. It can be sent to the core's thread.
/// Plain data.
#[derive(Debug)]
pub struct CoreStart {
    /// The bounds.
    pub config: LogConfig,
    /// The partitions of this core, the catalog's own among those of core 0.
    pub partitions: Vec<Recovered>,
    /// The leader epoch of this start.
    pub leader_epoch: i32,
    /// Where its journal goes on: [`crate::journal::JournalWriter::open`].
    pub journal: JournalPosition,
    /// The highest producer id that the start has seen in batches, snapshots and heads; -1 if it saw none. The counter of
    /// new ids must be above it.
    pub highest_producer_id: i64,
}

/// The partitions of one core. A cheap handle; everything stays on one thread.
pub struct Log<D: Disk> {
    core: Rc<Core<D>>,
}

impl<D: Disk> Clone for Log<D> {
    fn clone(&self) -> Self {
        Log { core: Rc::clone(&self.core) }
    }
}

/// Times that a read is planned anew because the partition has moved on meanwhile.
const READ_ATTEMPTS: usize = 16;
/// Bytes that a search by time looks at together.
const TIME_SEARCH_BYTES: usize = 128 << 10;

fn closed() -> AppendError {
    AppendError::Storage("the log is closed".into())
}

fn storage(path: std::path::PathBuf, source: io::Error) -> ReadError {
    ReadError::Storage { path, source }
}

impl<D: Disk> Log<D> {
    /// The log of a core, on its thread, after the start has committed.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn open(disk: D, start: CoreStart) -> Result<Log<D>, LogError> {
        let config = start.config;
        let writer = JournalWriter::open(disk.clone(), &config.journal_dir, start.journal).await?;
        let limits = Limits {
            bulk_bytes_min: config.bulk_bytes_min,
            run_bytes_max: (config.bulk_bytes_in_flight_busy_max).max(config.bulk_bytes_min),
            journal_file_bytes: writer.file_bytes(),
            unmoved_bytes_max: (writer.file_bytes() / 4).min(config.tail_bytes_max),
            producer_expiration_ms: config.producer_expiration_ms,
            producers_max: config.producers_max,
            budget: Budget::new(config.tail_bytes_max),
            unmoved: Cell::new(start.partitions.iter().map(Recovered::unmoved_bytes).sum()),
            homeless: Cell::new(0),
            senders_waiting: Cell::new(0),
            offline: Cell::new(0),
            traffic: Traffic::default(),
            now_ms: Cell::new(0),
        };
        let unopened = |recovered| Slot::Closed(Box::new(Unopened::new(recovered)));
        let slots = start.partitions.into_iter().map(|recovered| (recovered.spec.id, unopened(recovered))).collect();
        let segments = OpenSegments::new(config.open_segments_max);
        let core = Core {
            disk,
            leader_epoch: start.leader_epoch,
            limits,
            slots: RefCell::new(slots),
            segments,
            journal_lane: writer.measured(),
            bulk: Rc::default(),
            journal: RefCell::new(Some(writer)),
            journal_queue: RefCell::default(),
            journal_signal: Signal::default(),
            small_appends_wait: Cell::new(false),
            bulk_queue: RefCell::default(),
            bulk_signal: Signal::default(),
            admissions: RefCell::default(),
            holders: RefCell::new(VecDeque::new()),
            tickets: Cell::new(0),
            is_closing: Cell::new(false),
            close_error: RefCell::default(),
            wants_switch: Cell::new(false),
            run_bytes: Cell::new(0),
            keeper: Keeper::default(),
            final_head: Cell::new(false),
            ended: Latch::default(),
            has_failed: Cell::new(false),
            job_watchers: RefCell::default(),
            config,
        };
        let log = Log { core: Rc::new(core) };
        log.core.refuse_damaged();
        log.core.keeper.look_at_all(log.core.slots.borrow().keys().copied());
        // Whoever owns the catalog writes to it at once; all others are opened at their first use.
        log.open_partition(PartitionId::CATALOG).await.map_err(|(path, source)| LogError::Disk { path, source })?;
        Ok(log)
    }

    /// Drives the lanes until [`Log::close`] has finished. The host spawns it once. An error means that the journal
    /// failed: the process must say so and end, without acking anything more.
    ///
    /// # Errors
    /// [`LogError::Journal`].
    pub async fn run(&self) -> Result<(), LogError> {
        let writer = self.core.journal.borrow_mut().take().expect("a log is run once");
        let journal = pin!(journal_lane::run(&self.core, writer));
        let bulk = pin!(bulk_lane::run(&self.core));
        let opened = pin!(async {
            waiting::open_recovered(&self.core).await;
            pending().await
        });
        let result = select(select(journal, bulk), opened).await.factor_first().0.factor_first().0;
        self.core.has_failed.set(result.is_err());
        self.core.end();
        result
    }

    /// Opens what was not used since the start. Every other call on a partition expects it to be open: call this first.
    ///
    /// # Errors
    /// What the disk says of one of them, or that it is damaged; an unknown partition is no error here.
    pub async fn ready(&self, ids: &[PartitionId]) -> Result<(), ReadError> {
        for id in ids {
            self.open_partition(*id).await.map_err(|(path, source)| storage(path, source))?;
        }
        Ok(())
    }

    /// How long ago, in ms, something was appended, by the broker's clock.
    #[must_use]
    pub fn appended_ms_ago(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.core.limits.now_ms.get())
    }

    /// Waits until `bytes` more may be appended: this is how senders are slowed (bytes that are in no segment yet are
    /// bounded). Call it before [`Log::append`]; it returns at once while there is room.
    pub async fn admit(&self, bytes: usize) {
        waiting::admit(&self.core, bytes as u64).await;
    }

    /// Validates a batch in Kafka's order, gives it offsets and copies it into the partition's tail. Not durable and
    /// not readable before [`Log::durable`] of its last offset. `now_ms` is the broker's clock.
    ///
    /// # Errors
    /// Each variant is one of Kafka's answers; nothing has changed then.
    pub fn append(&self, id: PartitionId, batch: &[u8], now_ms: i64) -> Result<Appended, AppendError> {
        self.take_in(id, Incoming::Borrowed(batch), now_ms)
    }

    /// As [`Log::append`], but the batch lies in memory that the tail may adopt instead of copying: it does if the slice is
    /// the only part of its chunk and ends what is filled of it, and has the phase of [`Log::append_phase`].
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_received(&self, id: PartitionId, batch: Slice, now_ms: i64) -> Result<Appended, AppendError> {
        self.take_in(id, Incoming::Received(batch), now_ms)
    }

    /// Where in a block the next batch of a partition will begin, if nothing else is appended before and no segment is
    /// rolled: a hint, for whoever receives a large batch. `None` if the partition is not open here.
    #[must_use]
    pub fn append_phase(&self, id: PartitionId) -> Option<u64> {
        self.core.look(id, |partition| partition.back().end() % BLOCK)
    }

    fn take_in(&self, id: PartitionId, batch: Incoming<'_>, now_ms: i64) -> Result<Appended, AppendError> {
        let core = &self.core;
        if core.has_failed.get() || core.is_closing.get() {
            return Err(closed());
        }
        core.limits.now_ms.set(now_ms.max(core.limits.now_ms.get()));
        let mut slots = core.slots.borrow_mut();
        let partition = match slots.get_mut(&id) {
            None => return Err(AppendError::UnknownPartition),
            Some(Slot::Closed(_)) => return Err(AppendError::Storage("the partition is not open".into())),
            Some(Slot::Open(partition)) => partition,
        };
        partition.ask_for_space(now_ms, &core.limits);
        let result = partition.append(batch, now_ms, &core.limits);
        core.settle(partition);
        let (appended, chunks) = result?;
        if chunks > 0 {
            if !std::mem::replace(&mut partition.holds_memory, true) {
                core.holders.borrow_mut().push_back(id);
            }
            core.release_memory(&mut slots);
        }
        Ok(appended)
    }

    /// Waits until what was appended is durable.
    ///
    /// # Errors
    /// [`AppendError::Storage`] if it never will be: it was dropped, the partition went offline, or the log closed.
    /// [`AppendError::UnknownPartition`] if the partition was deleted.
    pub fn durable_of(&self, id: PartitionId, appended: &Appended) -> impl Future<Output = Result<(), AppendError>> + use<D> {
        waiting::durable(&self.core, id, appended.last_offset, appended.discards)
    }

    /// Waits until everything up to `last_offset` is durable, as the log is at this call: for an append that was made
    /// earlier, [`Log::durable_of`] is exact also if its offset was given again since.
    ///
    /// # Errors
    /// As [`Log::durable_of`].
    pub fn durable(&self, id: PartitionId, last_offset: i64) -> impl Future<Output = Result<(), AppendError>> + use<D> {
        let since = self.core.look(id, |partition| partition.discards()).unwrap_or_default();
        waiting::durable(&self.core, id, last_offset, since)
    }

    async fn open_partition(&self, id: PartitionId) -> Result<(), OpenError> {
        waiting::open_partition(&self.core, id).await
    }

    /// What a reader at `offset` gets: whole batches from the one that holds `offset`, up to the high watermark
    /// (`read_committed`: the last stable offset). `bytes_max` bounds it, but with `at_least_one` the first batch goes
    /// out whatever its size. Empty at the end.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] below the log start or above the log end, and what the disk says.
    pub async fn read(
        &self,
        id: PartitionId,
        offset: i64,
        bytes_max: usize,
        at_least_one: bool,
        read_committed: bool,
    ) -> Result<ReadPlan<D>, ReadError> {
        let mut plan = self.read_batches(id, Ask { offset, bytes_max, at_least_one, read_committed }).await?;
        if read_committed && plan.bytes > 0 {
            plan.aborted = changes::aborted(self, id, offset, plan.next_offset).await?;
        }
        Ok(plan)
    }

    async fn read_batches(&self, id: PartitionId, mut ask: Ask) -> Result<ReadPlan<D>, ReadError> {
        let core = &self.core;
        let (bytes_max, at_least_one, next_offset) = (ask.bytes_max, ask.at_least_one, ask.offset);
        let empty = || ReadPlan { pieces: Vec::new(), bytes: 0, next_offset, aborted: Vec::new() };
        let (mut what, mut missing) = (None, None);
        let mut attempts = 0;
        while attempts < READ_ATTEMPTS {
            attempts += 1;
            let found = core.look(id, |partition| {
                let source = partition.source(&ask);
                // As it is now: a segment that takes the place of several while this one is read would be skipped.
                let next = match &source {
                    Ok(Source::Sealed(segment, _)) => partition.segment_after(segment.base_offset),
                    _ => None,
                };
                (source, next, partition.directory.clone())
            });
            let (source, next, directory) = match found {
                Some((source, next, directory)) => (source?, next, directory),
                None if core.slots.borrow().contains_key(&id) => {
                    self.ready(&[id]).await?;
                    continue;
                }
                None => return Err(ReadError::UnknownPartition),
            };
            match source {
                Source::Empty => return Ok(empty()),
                Source::Memory(plan) => return Ok(plan),
                Source::Sealed(segment, limit) => {
                    match read_sealed(&core.disk, &core.segments, &directory, id, segment.base_offset, &ask, limit).await {
                        Ok(Some(plan)) => return Ok(plan),
                        // Compaction may have left nothing behind the offset in it: the next segment goes on.
                        Ok(None) => {
                            let Some(next) = next else { return Ok(empty()) };
                            if next > ask.offset {
                                ask.offset = next;
                                // That is progress: there may be any number of segments with nothing left in them.
                                attempts = 0;
                            }
                        }
                        // It may have been removed meanwhile.
                        Err(error) => what = Some(error),
                    }
                }
                Source::Active(view, limit) => match view.range(&core.disk, &ask, limit).await? {
                    Ok(range) => return Ok(view.plan(&range)),
                    Err(at) => {
                        let mut plan = core.look(id, |partition| partition.straddling(at)).flatten();
                        if plan.is_none() {
                            let header = view.header_bytes(&core.disk, at).await?;
                            plan = core.look(id, |partition| partition.straddling_offline(at, header)).flatten();
                        }
                        if let Some(plan) = plan {
                            let fits = plan.bytes <= bytes_max || at_least_one;
                            return Ok(if fits { plan } else { empty() });
                        }
                        let what = "no batch begins here, where one should".to_owned();
                        missing = Some(ReadError::Corrupt { path: view.path().to_owned(), position: at, what });
                    }
                },
            }
        }
        Err(what.or(missing).unwrap_or_else(|| {
            let what = format!("no batch is found at offset {}", ask.offset);
            ReadError::Corrupt { path: core.config.data_dir.clone(), position: 0, what }
        }))
    }

    /// A partition's offsets now; `None` if this core does not own it.
    #[must_use]
    pub fn offsets(&self, id: PartitionId) -> Option<Offsets> {
        Some(match self.core.slots.borrow().get(&id)? {
            Slot::Open(partition) if partition.is_deleted => return None,
            Slot::Open(partition) => Offsets {
                log_start: partition.log_start,
                high_watermark: partition.high_watermark,
                last_stable: partition.last_stable(),
                log_end: partition.log_end(),
                leader_epoch: partition.leader_epoch,
                offline: partition.offline.is_some(),
            },
            // Until it is opened its end is known from below only.
            Slot::Closed(unopened) => {
                let line = &unopened.recovered.line;
                let end = unopened.recovered.scanned.as_ref().map_or(line.segment_base, |scanned| scanned.log_end);
                let end = end.max(line.log_start);
                Offsets {
                    log_start: line.log_start,
                    high_watermark: end,
                    last_stable: end,
                    log_end: end,
                    leader_epoch: self.core.leader_epoch,
                    offline: unopened.refused.is_some(),
                }
            }
        })
    }

    /// Resolves when the offsets of one of the partitions have moved since the call (high watermark, log start), or one
    /// was deleted or went offline. Subscribes when it is called, not when it is first polled.
    pub fn changed(&self, ids: &[PartitionId]) -> impl Future<Output = ()> + use<D> {
        changes::Changed::new(&self.core, ids)
    }

    /// The record that a time query finds among the readable ones, as (timestamp in ms, offset); `None` if there is none.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub async fn offset_for(&self, id: PartitionId, query: TimeQuery) -> Result<Option<(i64, i64)>, ReadError> {
        changes::offset_for(self, id, query).await
    }

    /// The largest epoch at or below `epoch` and where it ends, as OffsetForLeaderEpoch answers (KIP-101, KIP-279);
    /// `None` if the partition has none.
    #[must_use]
    pub fn epoch_end(&self, id: PartitionId, epoch: i32) -> Option<(i32, i64)> {
        self.core.look(id, |partition| partition.epochs.end_offset_for(epoch, partition.high_watermark)).flatten()
    }

    /// Creates a partition: when this returns, its directory and `partition.metadata` are durable. Repeating it for
    /// the same id is no error. Leftovers of another topic id in the directory are removed.
    ///
    /// # Errors
    /// The disk's, or [`LogError::JournalTooSmall`].
    pub async fn create(&self, spec: PartitionSpec) -> Result<(), LogError> {
        let core = &self.core;
        let partitions = core.slots.borrow().len() + 1;
        if core.slots.borrow().contains_key(&spec.id) {
            return Ok(());
        }
        let needed = file_bytes_needed(partitions);
        if needed > core.limits.journal_file_bytes {
            return Err(LogError::JournalTooSmall { partitions, needed_bytes: 2 * needed });
        }
        changes::create(core, spec).await
    }

    /// Deletes a partition: waiters get an error, and its files are gone when this returns. The catalog must have
    /// said so durably before.
    ///
    /// # Errors
    /// The disk's; it may be repeated.
    pub async fn delete(&self, id: PartitionId) -> Result<(), LogError> {
        changes::delete(&self.core, id).await
    }

    /// Takes over changed topic settings for what comes next.
    pub fn configure(&self, id: PartitionId, config: PartitionConfig) {
        match self.core.slots.borrow_mut().get_mut(&id) {
            Some(Slot::Open(partition)) => partition.spec.config = config,
            Some(Slot::Closed(unopened)) => unopened.recovered.spec.config = config,
            None => return,
        }
        self.core.keeper.soon(id);
    }

    /// Does what retention asks for of the partitions whose time has come, at `now_ms` of the broker's clock: segments are
    /// rolled by age, the log start is raised, files are removed. Returns when to call it again, in ms, unless
    /// [`Log::keep_sooner`] resolves before; `None` if nothing is to come. One call at a time. What fails is logged and
    /// tried again.
    pub async fn keep(&self, now_ms: i64) -> Option<i64> {
        keeper::keep(self, now_ms).await
    }

    /// The next round of compaction, if one is worth while: run it anywhere, and bring back what came of it with
    /// [`Log::finish_cleaning`]. At most `keys_max` keys are remembered in it, [`crate::compaction::KEY_BYTES`] each; `secret`
    /// is random. [`Log::keep`] finds out what is worth while.
    pub async fn next_cleaning(&self, now_ms: i64, keys_max: usize, secret: (u64, u64)) -> Option<Job> {
        keeper::next_job(&self.core, now_ms, keys_max, secret).await
    }

    /// Swaps in what a job has cleaned. A failure is logged, and the round tried again later. No other cleaning is finished
    /// at the same time.
    pub async fn finish_cleaning(&self, job: &Job, result: Result<Cleaned, CleanError>, now_ms: i64) {
        keeper::finish(&self.core, job, result, now_ms).await;
    }

    /// Resolves when [`Log::next_cleaning`] may have a job.
    pub async fn has_cleaning(&self) {
        self.core.keeper.has_work().await;
    }

    /// Tells `observer` of everything that retention and compaction do from now on, on this thread. It must not call the log.
    pub fn observe_keeping(&self, observer: Observer) {
        self.core.keeper.observe(observer);
    }

    /// Retention and compaction look at nothing but these partitions from now on, and at these at once.
    pub fn keep_only(&self, ids: &BTreeSet<PartitionId>) {
        self.core.keeper.only(ids);
    }

    /// Has [`Log::keep`] look at a partition as soon as possible, also if something of it has failed and is to be tried later.
    pub fn keep_soon(&self, id: PartitionId) {
        self.core.keeper.retry(id);
    }

    /// When retention or compaction of a partition is due next, in ms, as far as [`Log::keep`] knows; `None` if nothing is to
    /// come. Of a partition that is not open it is a time that is not later.
    #[must_use]
    pub fn next_keeping(&self, id: PartitionId) -> Option<i64> {
        self.core.keeper.deadline(id)
    }

    /// True if retention or compaction of a partition is under way, or due at `now_ms`.
    #[must_use]
    pub fn is_keeping(&self, id: PartitionId, now_ms: i64) -> bool {
        self.core.keeper.is_busy(id, now_ms)
    }

    /// Resolves when something has changed that [`Log::keep`] should look at.
    pub async fn keep_sooner(&self) {
        self.core.keeper.changed().await;
    }

    /// Raises the log start offset (DeleteRecords), durably. At most the high watermark. Files wholly below it are removed,
    /// those that the journal still needs by a later [`Log::keep`]. Returns the log start offset.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] above the high watermark.
    pub async fn delete_records(&self, id: PartitionId, before: i64) -> Result<i64, ReadError> {
        self.ready(&[id]).await?;
        changes::delete_records(&self.core, id, before).await
    }

    /// Bytes of a partition's segments and tail; `None` if this core does not own it.
    #[must_use]
    pub fn size(&self, id: PartitionId) -> Option<u64> {
        Some(match self.core.slots.borrow().get(&id)? {
            Slot::Open(partition) => partition.size(),
            Slot::Closed(unopened) => u64::from(unopened.recovered.line.flushed),
        })
    }

    /// A clean stop of this core: everything into the segments, cut and flushed, and heads without bytes. Returns how many
    /// partitions that was not possible for: offline ones. Whatever of them is in the journal only, the last head carries on. The
    /// superblock's clean mark is the host's to write once every core has come this far with none of these.
    ///
    /// # Errors
    /// The disk's: the next start then recovers as after a crash.
    pub async fn close(&self) -> Result<usize, LogError> {
        changes::close(self).await
    }
}
