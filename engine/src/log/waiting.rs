//! Who waits for something of a core: for a partition to open, for room, for an append to be durable. Each of these futures
//! may be dropped at any time, and then leaves nothing behind.

use super::{
    closed,
    core::{Core, Slot},
};
use crate::{
    disk::Disk,
    partition::{AppendError, PartitionId, open, waiters::Watch},
};
use futures_util::stream::{self, StreamExt};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// Partitions that are opened at the same time where all are.
const OPENED_AT_ONCE: usize = 8;

/// Opens a partition that was not used since the start; whoever comes meanwhile waits for the first.
///
/// # Errors
/// The disk's, or [`std::io::ErrorKind::InvalidData`] if it is damaged.
pub(super) async fn open_partition<D: Disk>(core: &Core<D>, id: PartitionId) -> Result<(), open::OpenError> {
    loop {
        let (recovered, watch) = {
            let mut slots = core.slots.borrow_mut();
            let Some(Slot::Closed(unopened)) = slots.get_mut(&id) else { return Ok(()) };
            if unopened.is_deleted {
                return Ok(());
            }
            if let Some(refusal) = unopened.refused.as_ref().filter(|refusal| refusal.is_final()) {
                return Err(refusal.error());
            }
            if unopened.is_opening {
                let watch = Rc::new(Watch::default());
                unopened.waiting.add(core.ticket(), &watch);
                (None, watch)
            } else {
                unopened.is_opening = true;
                (Some(unopened.recovered.clone()), Rc::default())
            }
        };
        let Some(recovered) = recovered else {
            poll_fn(|context| if watch.poll(context) { Poll::Ready(()) } else { Poll::Pending }).await;
            continue;
        };
        // If this call is given up half-way, another one begins anew.
        let _guard = Opening { core, id };
        let config = &core.config;
        let opened = open::open(&core.disk, &config.data_dir, &recovered, core.leader_epoch, &core.limits).await;
        let mut slots = core.slots.borrow_mut();
        if let (Err(error), Some(Slot::Closed(unopened))) = (&opened, slots.get_mut(&id)) {
            core.refuse(unopened, error);
        }
        let mut partition = opened?;
        if let Some(slot @ Slot::Closed(_)) = slots.get_mut(&id) {
            if let Slot::Closed(unopened) = slot {
                partition.spec = unopened.recovered.spec.clone();
                core.is_unopened_no_more(unopened);
            }
            partition.wants_keeping = true;
            if recovered.scanned.is_some() {
                core.has_work(core.limits.now_ms.get());
            }
            // A clean stop that has begun meanwhile completes it too.
            partition.is_closing = core.is_closing.get();
            core.settle(&mut partition);
            *slot = Slot::Open(Box::new(partition));
        }
        return Ok(());
    }
}

/// Opens those that the journal held bytes of: until then memory holds them, every head carries them, and they don't move to
/// their segments. One that can't be opened is offline.
pub(super) async fn open_recovered<D: Disk>(core: &Core<D>) {
    let has_bytes = |slot: &Slot<D>| matches!(slot, Slot::Closed(unopened) if unopened.recovered.scanned.is_some());
    let ids: Vec<_> = core.slots.borrow().iter().filter(|(_, slot)| has_bytes(slot)).map(|(id, _)| *id).collect();
    open_all(core, ids).await;
}

/// Opens partitions, a few at a time. Those that can't be opened are told of, and stay as they are.
pub(super) async fn open_all<D: Disk>(core: &Core<D>, ids: Vec<PartitionId>) {
    stream::iter(ids).for_each_concurrent(OPENED_AT_ONCE, async |id| drop(open_partition(core, id).await)).await;
}

/// Nobody waits for room, and there is room for `bytes` more that are in no segment.
pub(super) fn admits<D: Disk>(core: &Core<D>, bytes: u64) -> bool {
    core.admissions.borrow().is_empty() && core.has_room(bytes)
}

/// Waits until there is room for `bytes` more that are in no segment.
pub(super) async fn admit<D: Disk>(core: &Core<D>, bytes: u64) {
    if admits(core, bytes) {
        return;
    }
    core.limits.senders_waiting.set(core.limits.senders_waiting.get() + 1);
    core.press();
    let ticket = core.ticket();
    let _guard = Admission { core, ticket };
    poll_fn(|context| {
        let mut admissions = core.admissions.borrow_mut();
        let is_first = admissions.keys().next().is_none_or(|first| *first >= ticket);
        if is_first && core.has_room(bytes) {
            return Poll::Ready(());
        }
        admissions.insert(ticket, (bytes, context.waker().clone()));
        Poll::Pending
    })
    .await;
}

/// Waits until an append is durable, see [`Log::durable_of`](super::Log::durable_of). Polled again when it was ready, it says how things are then.
pub struct Durable<D: Disk> {
    core: Rc<Core<D>>,
    id: PartitionId,
    offset: i64,
    /// The partition's count of discards when it was appended.
    since: u64,
    ticket: u64,
    /// It is among the partition's waiters.
    is_waiting: bool,
}

impl<D: Disk> Durable<D> {
    pub(super) fn new(core: &Rc<Core<D>>, id: PartitionId, offset: i64, since: u64) -> Durable<D> {
        Durable { core: Rc::clone(core), id, offset, since, ticket: core.ticket(), is_waiting: false }
    }
}

impl<D: Disk> Future for Durable<D> {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Durable { core, id, offset, since, ticket, is_waiting } = &mut *self;
        let mut slots = core.slots.borrow_mut();
        let Some(Slot::Open(partition)) = slots.get_mut(id) else { return Poll::Ready(Err(AppendError::UnknownPartition)) };
        if partition.was_discarded(*offset, *since) {
            let why = partition.offline.clone().unwrap_or_else(|| "no space left; the append was dropped".into());
            return Poll::Ready(Err(AppendError::Storage(why)));
        }
        if *offset < partition.high_watermark {
            // Who moves the high watermark takes all below it off the waiters.
            *is_waiting = false;
            return Poll::Ready(Ok(()));
        }
        if partition.is_deleted {
            return Poll::Ready(Err(AppendError::UnknownPartition));
        }
        if let Some(why) = &partition.offline {
            return Poll::Ready(Err(AppendError::Storage(why.clone())));
        }
        if *offset >= partition.log_end() {
            return Poll::Ready(Err(AppendError::Storage("the append was dropped".into())));
        }
        if core.ended.is_set() {
            return Poll::Ready(Err(closed()));
        }
        partition.waiters.wait(*offset, *ticket, context);
        *is_waiting = true;
        Poll::Pending
    }
}

impl<D: Disk> Drop for Durable<D> {
    fn drop(&mut self) {
        if self.is_waiting
            && let Some(Slot::Open(partition)) = self.core.slots.borrow_mut().get_mut(&self.id)
        {
            partition.waiters.leave(self.offset, self.ticket);
        }
    }
}

/// Somebody opens a partition: if they give up, the next one may.
struct Opening<'a, D: Disk> {
    core: &'a Core<D>,
    id: PartitionId,
}

impl<D: Disk> Drop for Opening<'_, D> {
    fn drop(&mut self) {
        if let Some(Slot::Closed(unopened)) = self.core.slots.borrow_mut().get_mut(&self.id) {
            unopened.is_opening = false;
            unopened.waiting.fire();
        }
        // A deletion waits for it, however it ended.
        self.core.job_ended();
    }
}

/// A sender waits for room.
struct Admission<'a, D: Disk> {
    core: &'a Core<D>,
    ticket: u64,
}

impl<D: Disk> Drop for Admission<'_, D> {
    fn drop(&mut self) {
        self.core.admissions.borrow_mut().remove(&self.ticket);
        let waiting = &self.core.limits.senders_waiting;
        waiting.set(waiting.get() - 1);
        self.core.admit_waiting();
    }
}
