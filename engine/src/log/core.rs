//! What one core's log is made of, and the bookkeeping after every change.

use super::{
    LogConfig,
    keeper::Keeper,
    signal::{Course, Latch, Signal},
};
use crate::{
    disk::Disk,
    journal::JournalWriter,
    measure::Lane,
    partition::{
        Partition, PartitionId, Recovered,
        limits::Limits,
        open::{self, OpenError},
        tail::block_floor,
        waiters::{Watch, Watchers},
    },
    segment::OpenSegments,
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    rc::Rc,
    task::Waker,
};

/// How many partitions are asked to give memory back at an append.
const RELEASES_A_TURN: usize = 8;

/// Runs bring so many times the size of a journal file at most into segments between two heads.
const RUN_BYTES_SHARE: u64 = 2;

/// A partition of this core.
pub(super) enum Slot<D: Disk> {
    /// Not used since the start.
    Closed(Box<Unopened>),
    /// In use.
    Open(Box<Partition<D>>),
}

/// A partition that was not used since the start.
pub(super) struct Unopened {
    pub recovered: Recovered,
    /// Somebody is opening it; the others wait.
    pub is_opening: bool,
    /// It is being deleted: nobody opens it any more.
    pub is_deleted: bool,
    /// Why it can't be opened.
    pub refused: Option<Refusal>,
    pub waiting: Watchers,
}

impl Unopened {
    /// A partition that the start has found.
    pub fn new(recovered: Recovered) -> Unopened {
        Unopened { recovered, is_opening: false, is_deleted: false, refused: None, waiting: Watchers::default() }
    }
}

/// Why a partition can't be opened.
pub(super) struct Refusal {
    path: PathBuf,
    kind: io::ErrorKind,
    what: String,
}

impl Refusal {
    /// Nothing mends damage while the broker runs.
    pub fn is_final(&self) -> bool {
        self.kind == io::ErrorKind::InvalidData
    }

    pub fn error(&self) -> OpenError {
        (self.path.clone(), io::Error::new(self.kind, self.what.clone()))
    }
}

/// Everything of one core's log.
pub(super) struct Core<D: Disk> {
    pub disk: D,
    pub config: LogConfig,
    pub leader_epoch: i32,
    pub limits: Limits,
    pub slots: RefCell<BTreeMap<PartitionId, Slot<D>>>,
    pub segments: OpenSegments<D>,
    /// Taken by [`super::Log::run`].
    pub journal: RefCell<Option<JournalWriter<D>>>,
    pub journal_queue: RefCell<VecDeque<PartitionId>>,
    pub journal_signal: Signal,
    /// The frame in flight, if it is small and has small appends.
    pub small_frame: Course,
    /// Small appends are in the frame in flight.
    pub small_appends_wait: Cell<bool>,
    /// What the journal lane has written.
    pub journal_lane: Rc<Lane>,
    /// What the bulk lane has written.
    pub bulk: Rc<Lane>,
    pub bulk_queue: RefCell<VecDeque<PartitionId>>,
    pub bulk_signal: Signal,
    /// Partitions whose runs nobody waits for, in turn.
    pub quiet_queue: RefCell<VecDeque<PartitionId>>,
    /// Senders that wait for room, in order.
    pub admissions: RefCell<BTreeMap<u64, (u64, Waker)>>,
    /// The partitions that have memory to give back, in turn, each once.
    pub holders: RefCell<VecDeque<PartitionId>>,
    pub tickets: Cell<u64>,
    /// Nothing is appended any more.
    pub is_closing: Cell<bool>,
    /// Why a partition could not be completed for a clean stop.
    pub close_error: RefCell<Option<super::LogError>>,
    /// The journal is to begin its other file now, so that its head lets go of segments that are sealed.
    pub wants_switch: Cell<bool>,
    /// The core is idle: the next switch parks everything.
    pub rests: Cell<bool>,
    /// Everything is parked when the bulk lane has nothing more to do: memory goes back to the system then.
    pub gives_memory_back: Cell<bool>,
    /// And a head that carries nothing is written.
    pub empties_head: Cell<bool>,
    /// Bytes that runs have brought into segments since the last head.
    pub run_bytes: Cell<u64>,
    /// What retention and compaction do next, and when.
    pub keeper: Keeper,
    /// Every partition is in its files: the last heads may be written.
    pub final_head: Cell<bool>,
    /// The last head is written, or the journal has failed.
    pub ended: Latch,
    /// The journal has failed: nothing is acked any more.
    pub has_failed: Cell<bool>,
    /// Told whenever a job on a partition's files has ended.
    pub job_watchers: RefCell<Watchers>,
}

impl<D: Disk> Core<D> {
    pub fn ticket(&self) -> u64 {
        self.tickets.set(self.tickets.get() + 1);
        self.tickets.get()
    }

    /// Runs `work` on an open partition and does the bookkeeping for what it has changed. `None` if it isn't open.
    pub fn with<T>(&self, id: PartitionId, work: impl FnOnce(&mut Partition<D>) -> T) -> Option<T> {
        let mut slots = self.slots.borrow_mut();
        let Some(Slot::Open(partition)) = slots.get_mut(&id) else { return None };
        let result = work(partition);
        self.settle(partition);
        Some(result)
    }

    /// Looks at an open partition.
    pub fn look<T>(&self, id: PartitionId, look: impl FnOnce(&Partition<D>) -> T) -> Option<T> {
        match self.slots.borrow().get(&id) {
            Some(Slot::Open(partition)) => Some(look(partition)),
            _ => None,
        }
    }

    /// A partition is opened, or gone: from here on it counts its bytes itself, and who waits looks again.
    pub fn is_unopened_no_more(&self, unopened: &mut Unopened) {
        let Limits { unmoved, offline, .. } = &self.limits;
        match unopened.refused.take() {
            None => unmoved.set(unmoved.get() - unopened.recovered.unmoved_bytes()),
            Some(_) => offline.set(offline.get() - 1),
        }
        unopened.waiting.fire();
    }

    /// A partition can't be opened. It is offline; the others must not wait for its bytes to be moved.
    pub fn refuse(&self, unopened: &mut Unopened, (path, error): &OpenError) {
        let Limits { unmoved, offline, .. } = &self.limits;
        let refusal = Refusal { path: path.clone(), kind: error.kind(), what: error.to_string() };
        if unopened.refused.as_ref().is_none_or(|before| before.what != refusal.what) {
            tracing::error!("{} can't be opened: {}: {error}", unopened.recovered.spec.directory.display(), path.display());
        }
        if unopened.refused.replace(refusal).is_none() {
            unmoved.set(unmoved.get() - unopened.recovered.unmoved_bytes());
            offline.set(offline.get() + 1);
            self.admit_waiting();
        }
    }

    /// Refuses what the start has found to be damaged.
    pub fn refuse_damaged(&self) {
        for slot in self.slots.borrow_mut().values_mut() {
            let Slot::Closed(unopened) = slot else { continue };
            let Some(damage) = unopened.recovered.damage.as_deref() else { continue };
            let error = (damage.path.clone(), open::damage(&damage.what));
            self.refuse(unopened, &error);
        }
    }

    /// Counts what has changed, and tells the lanes and the senders.
    pub fn settle(&self, partition: &mut Partition<D>) {
        if partition.must_discard && partition.progress.is_idle() {
            partition.discard();
        }
        if partition.recount(&self.limits) {
            self.admit_waiting();
        }
        if partition.wants_head() {
            self.ask_for_switch();
        }
        if partition.wants_keeping {
            partition.wants_keeping = false;
            self.keeper.soon(partition.spec.id);
        }
        if !partition.jobs.journal_queued && partition.wants_journal() {
            partition.jobs.journal_queued = true;
            self.journal_queue.borrow_mut().push_back(partition.spec.id);
            self.journal_signal.set();
        }
        if !partition.jobs.bulk_queued && partition.wants_bulk(&self.limits) {
            partition.jobs.bulk_queued = true;
            self.bulk_queue.borrow_mut().push_back(partition.spec.id);
            self.bulk_signal.set();
        }
    }

    /// The partition that the bulk lane looks at next: those whose runs somebody waits for come first.
    pub fn next_for_bulk(&self) -> Option<PartitionId> {
        self.bulk_queue.borrow_mut().pop_front().or_else(|| {
            if !self.limits.may_run_quietly() {
                return None;
            }
            let id = self.quiet_queue.borrow_mut().pop_front()?;
            if let Some(Slot::Open(partition)) = self.slots.borrow_mut().get_mut(&id) {
                partition.jobs.waits_quietly = false;
            }
            Some(id)
        })
    }

    /// True if `bytes` more may be appended now.
    pub fn has_room(&self, bytes: u64) -> bool {
        // What a full disk keeps in the journal must not stop the others: appends to it are refused instead.
        let unmoved = self.limits.unmoved.get() - self.limits.homeless.get();
        // Below half there is always room: partial blocks, which can't be moved, are bounded by that.
        let max = self.limits.unmoved_bytes_max;
        unmoved <= max / 2 || unmoved + bytes <= max || self.has_failed.get() || self.is_closing.get()
    }

    /// Wakes the senders that there is room for, in order.
    pub fn admit_waiting(&self) {
        let admissions = self.admissions.borrow();
        let mut bytes = 0;
        for (wanted, waker) in admissions.values() {
            bytes += wanted;
            if !self.has_room(bytes) {
                break;
            }
            waker.wake_by_ref();
        }
    }

    /// Something is appended, or has come back: a core that rests, or is about to, wakes up.
    pub fn has_work(&self, now_ms: i64) {
        self.keeper.appended(now_ms);
        self.rests.set(false);
        self.gives_memory_back.set(false);
        self.empties_head.set(false);
    }

    /// Moves to smaller runs for a sender that waits: all partitions that have whole blocks.
    pub fn press(&self) {
        let mut slots = self.slots.borrow_mut();
        for slot in slots.values_mut() {
            if let Slot::Open(partition) = slot {
                self.settle(partition);
            }
        }
    }

    /// Gives memory back while tails hold more than they may: what their segments have, of one partition after the other.
    pub fn release_memory(&self, slots: &mut BTreeMap<PartitionId, Slot<D>>) {
        let mut holders = self.holders.borrow_mut();
        for _ in 0..RELEASES_A_TURN {
            if !self.limits.budget.is_exceeded() {
                return;
            }
            let Some(id) = holders.pop_front() else { return };
            let Some(Slot::Open(partition)) = slots.get_mut(&id) else { continue };
            let flushed = partition.progress.flushed();
            let front = partition.stretches.front_mut().expect("a partition has a segment");
            // A batch that is not wholly durable may still have to be dropped, whole.
            let is_durable = flushed <= front.boundary(partition.progress.durable()).0;
            let unneeded = if is_durable { flushed } else { front.boundary(flushed).0 };
            if !front.release_oldest(unneeded) {
                front.condense_oldest(unneeded);
            }
            partition.holds_memory = front.tail().start() < block_floor(front.end()) || partition.stretches.len() > 1;
            if partition.holds_memory {
                holders.push_back(id);
            }
        }
    }

    /// Waits until `is_done` of the partition holds; it is asked again after every job and frame.
    pub async fn wait_for(&self, mut is_done: impl FnMut(&Core<D>) -> bool) {
        while !is_done(self) {
            let watch = Rc::new(Watch::default());
            let ticket = self.ticket();
            self.job_watchers.borrow_mut().add(ticket, &watch);
            std::future::poll_fn(|context| if watch.poll(context) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }).await;
            self.job_watchers.borrow_mut().remove(ticket);
        }
    }

    /// Has the journal begin its other file: from then on it needs nothing of what is sealed now.
    pub fn ask_for_switch(&self) {
        self.wants_switch.set(true);
        self.journal_signal.set();
    }

    /// True if the journal is to begin its other file for what runs have written: a start scans that, and writes it once more,
    /// although a run of any size leaves no more than a block in the journal.
    pub fn wants_head(&self) -> bool {
        self.run_bytes.get() >= RUN_BYTES_SHARE * self.limits.journal_file_bytes
    }

    /// True if nothing that is waited for will happen any more.
    pub fn is_over(&self) -> bool {
        self.has_failed.get() || self.is_closing.get() || self.ended.is_set()
    }

    /// A job or a frame has ended.
    pub fn job_ended(&self) {
        self.job_watchers.borrow_mut().fire();
    }

    /// The lanes have ended, by a clean stop or because the journal failed: everyone who waits learns that nothing more
    /// will happen.
    pub fn end(&self) {
        self.ended.set();
        for slot in self.slots.borrow_mut().values_mut() {
            if let Slot::Open(partition) = slot {
                partition.waiters.wake_all();
                partition.touch();
            }
        }
        self.admit_waiting();
        self.job_ended();
    }
}
