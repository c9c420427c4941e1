//! The partitions of one core: what the broker calls.
//!
//! ```text
//! append   batches come in, and are waited for          journal_lane, bulk_lane   they become durable
//! read     batches, offsets, epochs                     keeper/    retention and compaction
//! changes  the calls that take several steps            start/     all cores, before this
//! core     what a log is made of                        waiting    who waits for a core
//! ```

mod append;
mod bulk_lane;
mod changes;
mod config;
mod core;
mod error;
mod journal_lane;
mod keeper;
mod read;
mod signal;
mod start;
mod stats;
mod waiting;

pub use crate::partition::{AbortedTransaction, AppendError, Appended, Incoming, Piece, ReadError, ReadPlan};
pub use config::LogConfig;
pub use error::LogError;
pub use keeper::{KeepEvent, Observer};
pub use read::{Offsets, TimeQuery};
pub use start::{CATALOG, Foreign, Replay, Start, catalog_spec, find_foreign, mark_clean};
pub use stats::{LogStats, PartitionStats, Use};
pub use waiting::Durable;

use self::{
    core::{Core, Slot, Unopened},
    keeper::Keeper,
    signal::{Course, Latch, Signal},
};
use crate::{
    disk::Disk,
    journal::{JournalPosition, JournalWriter, file_bytes_needed},
    measure::Traffic,
    partition::{PartitionConfig, PartitionId, PartitionSpec, Recovered, limits::Limits, open::OpenError, tail::Budget},
    segment::OpenSegments,
};
use futures_util::future::{pending, select};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::pin,
    rc::Rc,
};

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
            quiet_runs: Cell::new(0),
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
            small_frame: Course::default(),
            small_appends_wait: Cell::new(false),
            bulk_queue: RefCell::default(),
            bulk_signal: Signal::default(),
            quiet_queue: RefCell::default(),
            admissions: RefCell::default(),
            holders: RefCell::new(VecDeque::new()),
            tickets: Cell::new(0),
            is_closing: Cell::new(false),
            close_error: RefCell::default(),
            wants_switch: Cell::new(false),
            rests: Cell::new(false),
            gives_memory_back: Cell::new(false),
            empties_head: Cell::new(false),
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

    /// Waits for the end of the journal's frame that is in flight, if it is a small one, with small appends that are waited for: what has
    /// time does not get between it and the disk. Not for the frame behind it. Returns at once where the journal is elsewhere.
    pub async fn small_frame_ended(&self) {
        let config = &self.core.config;
        if config.journal_dir.starts_with(&config.data_dir) {
            self.core.small_frame.ended().await;
        }
    }

    /// Whether producers of this core go on at `now_ms`, by the broker's clock: whoever has time leaves the disk to them, and reads little at
    /// once ([`GENTLE_BYTES`](crate::disk::GENTLE_BYTES)).
    #[must_use]
    pub fn has_producers(&self, now_ms: i64) -> bool {
        self.core.keeper.has_producers(now_ms)
    }

    async fn open_partition(&self, id: PartitionId) -> Result<(), OpenError> {
        waiting::open_partition(&self.core, id).await
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
