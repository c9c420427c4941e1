//! The calls that take several steps: watching, searching by time, creating, deleting, raising the log start, closing.

use super::{
    Log, LogError, ReadError, TimeQuery,
    core::{Core, Slot},
    keeper,
    read::READ_ATTEMPTS,
    storage, waiting,
};
use crate::{
    batch::{Scanner, scan},
    disk::Disk,
    journal::Line,
    partition::{AbortedTransaction, PartitionId, PartitionSpec, Recovered, directory, open, waiters::Watch},
    segment::first_at_or_after,
};
use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// Bytes that a search by time looks at together.
const TIME_SEARCH_BYTES: usize = 128 << 10;

/// A reader's subscription. It begins when it is made.
pub(super) struct Changed<D: Disk> {
    core: Rc<Core<D>>,
    ids: Vec<PartitionId>,
    watch: Rc<Watch>,
    ticket: u64,
}

impl<D: Disk> Changed<D> {
    pub fn new(core: &Rc<Core<D>>, ids: &[PartitionId]) -> Changed<D> {
        let (watch, ticket) = (Rc::new(Watch::default()), core.ticket());
        let mut slots = core.slots.borrow_mut();
        for id in ids {
            match slots.get_mut(id) {
                Some(Slot::Open(partition)) if !partition.is_deleted => partition.watchers.add(ticket, &watch),
                Some(Slot::Closed(unopened)) => unopened.waiting.add(ticket, &watch),
                _ => watch.fire(),
            }
        }
        drop(slots);
        if core.ended.is_set() {
            watch.fire();
        }
        Changed { core: Rc::clone(core), ids: ids.to_vec(), watch, ticket }
    }
}

impl<D: Disk> Future for Changed<D> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.watch.poll(context) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<D: Disk> Drop for Changed<D> {
    fn drop(&mut self) {
        let mut slots = self.core.slots.borrow_mut();
        for id in &self.ids {
            match slots.get_mut(id) {
                Some(Slot::Open(partition)) => partition.watchers.remove(self.ticket),
                Some(Slot::Closed(unopened)) => unopened.waiting.remove(self.ticket),
                None => {}
            }
        }
    }
}

/// The aborted transactions that overlap the offsets from `from` up to but not including `to`. Their markers may be in
/// any later segment; only those that a Kafka wrote have any.
pub(super) async fn aborted<D: Disk>(log: &Log<D>, id: PartitionId, from: i64, to: i64) -> Result<Vec<AbortedTransaction>, ReadError> {
    anew(async || aborted_once(log, id, from, to).await).await
}

/// Runs `read`, which goes over a list of segments, and runs it anew if one of them was removed or merged meanwhile.
async fn anew<T>(read: impl AsyncFn() -> Result<T, ReadError>) -> Result<T, ReadError> {
    let mut left = READ_ATTEMPTS;
    loop {
        match read().await {
            Err(ReadError::Storage { source, .. }) if source.kind() == std::io::ErrorKind::NotFound && left > 0 => left -= 1,
            done => return done,
        }
    }
}

async fn aborted_once<D: Disk>(log: &Log<D>, id: PartitionId, from: i64, to: i64) -> Result<Vec<AbortedTransaction>, ReadError> {
    let core = &log.core;
    let look = |partition: &crate::partition::Partition<D>| (partition.directory.clone(), partition.aborted(from, to));
    let (directory, (sealed, active)) = core.look(id, look).ok_or(ReadError::UnknownPartition)?;
    let mut found = Vec::new();
    let mut complete = false;
    for segment in sealed {
        let segment = core.segments.get(&core.disk, &directory, id, segment.base_offset).await?;
        complete = segment.aborted(from, to, &mut found);
        if complete {
            break;
        }
    }
    if !complete {
        found.extend(active);
    }
    Ok(found.into_iter().map(|txn| AbortedTransaction { producer_id: txn.producer_id, first_offset: txn.first_offset }).collect())
}

/// See [`Log::offset_for`].
pub(super) async fn offset_for<D: Disk>(log: &Log<D>, id: PartitionId, query: TimeQuery) -> Result<Option<(i64, i64)>, ReadError> {
    log.ready(&[id]).await?;
    anew(async || match query {
        TimeQuery::AtOrAfter(timestamp) => at_or_after(log, id, timestamp).await,
        TimeQuery::Max => {
            let Some(newest) = newest(log, id).await? else { return Ok(None) };
            at_or_after(log, id, newest).await
        }
    })
    .await
}

async fn at_or_after<D: Disk>(log: &Log<D>, id: PartitionId, timestamp: i64) -> Result<Option<(i64, i64)>, ReadError> {
    let core = &log.core;
    let look = |partition: &crate::partition::Partition<D>| {
        let from = partition.indexes.times.lookup(timestamp).max(partition.log_start);
        (partition.directory.clone(), partition.sealed.clone(), partition.log_start, from)
    };
    let (directory, sealed, log_start, mut from) = core.look(id, look).ok_or(ReadError::UnknownPartition)?;
    for segment in sealed {
        let segment = core.segments.get(&core.disk, &directory, id, segment.base_offset).await?;
        if let Some(found) = segment.find_time(&core.disk, timestamp, log_start).await? {
            return Ok(Some(found));
        }
    }
    // The active segment, as its readers get it.
    loop {
        let plan = log.read(id, from, TIME_SEARCH_BYTES, true, false).await?;
        if plan.bytes == 0 {
            return Ok(None);
        }
        let bytes = plan.collect(&core.disk).await.map_err(|error| storage(directory.clone(), error))?;
        let mut found = None;
        let mut next = from;
        scan(&bytes, Scanner::new(0, 0, i32::MIN), |_, header, batch| {
            next = header.next_offset();
            if found.is_none() && header.max_timestamp() >= timestamp && header.last_offset() >= log_start {
                found = first_at_or_after(header, batch, timestamp, log_start).unwrap_or_default();
            }
        });
        if found.is_some() || next <= from {
            return Ok(found);
        }
        from = next;
    }
}

/// The newest timestamp of all readable records.
async fn newest<D: Disk>(log: &Log<D>, id: PartitionId) -> Result<Option<i64>, ReadError> {
    let core = &log.core;
    let look = |partition: &crate::partition::Partition<D>| {
        (partition.directory.clone(), partition.sealed.clone(), partition.indexes.newest().map(|newest| newest.0))
    };
    let (directory, sealed, mut newest) = core.look(id, look).ok_or(ReadError::UnknownPartition)?;
    for segment in sealed {
        newest = newest.max(core.segments.get(&core.disk, &directory, id, segment.base_offset).await?.max_timestamp());
    }
    Ok(newest)
}

/// See [`Log::create`].
pub(super) async fn create<D: Disk>(core: &Core<D>, spec: PartitionSpec) -> Result<(), LogError> {
    let id = spec.id;
    let failed = |source| LogError::Disk { path: core.config.data_dir.join(&spec.directory), source };
    directory::create(&core.disk, &core.config.data_dir, &spec).await.map_err(failed)?;
    let line = Line { partition: id, segment_base: 0, flushed: 0, batch_start: 0, index_end: 0, log_start: 0 };
    let epoch = spec.leader_epoch;
    let recovered = Recovered { spec: spec.clone(), line, producers: Vec::new(), epochs: Vec::new(), scanned: None, damage: None };
    let mut partition = open::open(&core.disk, &core.config.data_dir, &recovered, epoch, &core.limits)
        .await
        .map_err(|(path, source)| LogError::Disk { path, source })?;
    // A clean stop that has begun meanwhile completes it too.
    partition.is_closing = core.is_closing.get();
    core.settle(&mut partition);
    core.slots.borrow_mut().entry(id).or_insert(Slot::Open(Box::new(partition)));
    Ok(())
}

/// See [`Log::delete`].
pub(super) async fn delete<D: Disk>(core: &Core<D>, id: PartitionId) -> Result<(), LogError> {
    if let Some(Slot::Closed(unopened)) = core.slots.borrow_mut().get_mut(&id) {
        unopened.is_deleted = true;
    }
    // Whoever is opening it works with its files by name: they may be another partition's as soon as this one is gone.
    let is_opening = |core: &Core<D>| matches!(core.slots.borrow().get(&id), Some(Slot::Closed(unopened)) if unopened.is_opening);
    core.wait_for(|core| !is_opening(core)).await;
    let directory = match core.slots.borrow_mut().get_mut(&id) {
        None => return Ok(()),
        Some(Slot::Closed(unopened)) => unopened.recovered.spec.directory.clone(),
        Some(Slot::Open(partition)) => {
            partition.is_deleted = true;
            partition.waiters.wake_all();
            partition.touch();
            core.settle(partition);
            partition.spec.directory.clone()
        }
    };
    // A clean stop waits for it no more.
    core.job_ended();
    // What is in flight ends first: nothing writes to files that are gone.
    core.wait_for(|core| {
        core.has_failed.get()
            || core.ended.is_set()
            || core.look(id, |partition| partition.jobs.is_idle() && !partition.jobs.holds_directory()).unwrap_or(true)
    })
    .await;
    if let Some(Slot::Closed(mut unopened)) = core.slots.borrow_mut().remove(&id) {
        core.is_unopened_no_more(&mut unopened);
    }
    core.admit_waiting();
    core.keeper.forget(id);
    // Who waits for its log start to be raised would wait for ever.
    core.job_ended();
    core.segments.remove_partition(id);
    let path = core.config.data_dir.join(&directory);
    directory::remove(&core.disk, &core.config.data_dir, &directory).await.map_err(|source| LogError::Disk { path, source })
}

/// See [`Log::delete_records`].
pub(super) async fn delete_records<D: Disk>(core: &Core<D>, id: PartitionId, before: i64) -> Result<i64, ReadError> {
    let high_watermark = core.look(id, |partition| partition.high_watermark).ok_or(ReadError::UnknownPartition)?;
    if before > high_watermark {
        return Err(ReadError::OutOfRange);
    }
    if !keeper::raise_log_start(core, id, before).await {
        return Err(match core.is_over() {
            true => storage(core.config.journal_dir.clone(), std::io::Error::other("the log is closed")),
            false => ReadError::UnknownPartition,
        });
    }
    keeper::remove_dead(core, id).await.map_err(|(path, source)| storage(path, source))?;
    core.keeper.soon(id);
    core.look(id, |partition| partition.log_start).ok_or(ReadError::UnknownPartition)
}

/// See [`Log::close`].
pub(super) async fn close<D: Disk>(log: &Log<D>) -> Result<usize, LogError> {
    let core = &log.core;
    core.is_closing.set(true);
    core.admit_waiting();
    let ids: Vec<_> = core.slots.borrow().keys().copied().collect();
    // One that can't be opened is left as the start found it: the last head carries it on.
    waiting::open_all(core, ids.clone()).await;
    for id in &ids {
        core.with(*id, |partition| partition.is_closing = true);
    }
    let is_done = |core: &Core<D>| {
        let is_whole = |slot: &Slot<D>| match slot {
            Slot::Open(partition) => {
                let is_lost = partition.offline.is_some() && partition.jobs.is_idle();
                let is_gone = partition.is_deleted && partition.jobs.is_idle();
                let is_whole = partition.is_finished && partition.log_start_wanted == partition.log_start && !partition.jobs.swapping;
                is_whole || is_gone || is_lost
            }
            Slot::Closed(_) => true,
        };
        core.slots.borrow().values().all(is_whole)
    };
    core.wait_for(|core| is_done(core) || core.close_error.borrow().is_some() || core.ended.is_set()).await;
    if let Some(error) = core.close_error.borrow_mut().take() {
        return Err(error);
    }
    core.final_head.set(true);
    core.journal_signal.set();
    core.ended.wait().await;
    let is_left = |slot: &&Slot<D>| match slot {
        Slot::Open(partition) => !partition.is_deleted && (partition.offline.is_some() || partition.progress.carried_bytes() > 0),
        Slot::Closed(unopened) => {
            !unopened.is_deleted
                && (unopened.recovered.is_in_journal() || unopened.refused.as_ref().is_some_and(|refusal| !refusal.is_final()))
        }
    };
    match core.has_failed.get() {
        false => Ok(core.slots.borrow().values().filter(is_left).count()),
        true => {
            let source = std::io::Error::other("it failed before the stop was complete");
            Err(LogError::Journal { path: core.config.journal_dir.clone(), source })
        }
    }
}
