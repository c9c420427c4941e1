//! Retention and compaction on the core: which partition is to be looked at when, and what is then done.
//!
//! Nothing is polled. Each partition has one deadline at most: the moment at which the verdict of `retention` on its oldest
//! segment changes if nothing else happens. Whatever else changes a verdict (a segment that was sealed, a first append, a
//! new setting, bytes) moves the deadline to now. So an idle broker does nothing, and a deadline is met when it comes.
//!
//! One rule keeps the journal and the files together: **a segment is removed or rewritten only when the line of its
//! partition in the journal's current head names a later one** ([`Partition::journal_base`]). Until then a start could lay
//! entries over the segment, or look for it in vain. Where that is missing, the journal is asked for a switch.
//!
//! [`Partition::journal_base`]: crate::partition::Partition

mod calls;
mod compaction;
mod event;
mod rest;
mod retention;
mod survey;

pub use event::{KeepEvent, Observer};

pub(super) use retention::{raise_log_start, remove_dead};

use super::{
    Log,
    core::{Core, Slot},
    signal::Signal,
};
use crate::{
    disk::Disk,
    partition::{
        PartitionId,
        open::{OpenError, is_damage},
    },
    retention::earlier,
};
use futures_util::{StreamExt, stream};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

/// Partitions that one call looks at: the next call goes on with the others.
const PARTITIONS_MAX: usize = 64;
/// Partitions that are looked at together.
const PARTITIONS_AT_ONCE: usize = 8;
/// When something that failed is tried again, in ms.
const RETRY_MS: i64 = 5_000;

/// The deadlines of a core's partitions.
#[derive(Default)]
pub(super) struct Keeper {
    deadlines: RefCell<Deadlines>,
    signal: Signal,
    /// The compacted partitions.
    states: RefCell<BTreeMap<PartitionId, compaction::State>>,
    /// A round of compaction is worth while.
    work: Signal,
    /// Only these are looked at, if it is set.
    only: RefCell<Option<BTreeSet<PartitionId>>>,
    /// Partitions that are looked at now.
    looked_at: RefCell<BTreeSet<PartitionId>>,
    rest: rest::Rest,
    observer: RefCell<Option<Observer>>,
    /// What could not be done last time, of each partition: it is logged once, however often it is tried.
    failures: RefCell<BTreeMap<PartitionId, String>>,
}

#[derive(Debug, Default)]
struct Deadlines {
    by_time: BTreeSet<(i64, PartitionId)>,
    of: BTreeMap<PartitionId, i64>,
}

impl Deadlines {
    fn set(&mut self, id: PartitionId, at_ms: i64) {
        if let Some(before) = self.of.get(&id) {
            if *before <= at_ms {
                return;
            }
            self.by_time.remove(&(*before, id));
        }
        self.of.insert(id, at_ms);
        self.by_time.insert((at_ms, id));
    }

    fn remove(&mut self, id: PartitionId) {
        if let Some(at_ms) = self.of.remove(&id) {
            self.by_time.remove(&(at_ms, id));
        }
    }

    fn take(&mut self, now_ms: i64, most: usize) -> Vec<PartitionId> {
        let due: Vec<_> = self.by_time.iter().take_while(|(at_ms, _)| *at_ms <= now_ms).take(most).map(|(_, id)| *id).collect();
        due.iter().for_each(|id| self.remove(*id));
        due
    }
}

impl Keeper {
    /// Something of a partition has changed: it is looked at as soon as possible.
    pub fn soon(&self, id: PartitionId) {
        self.at(id, i64::MIN);
        self.signal.set();
    }

    /// Something is appended.
    pub fn appended(&self, now_ms: i64) {
        if self.rest.ends(now_ms) {
            self.signal.set();
        }
    }

    /// True if no core of this process has work.
    pub fn all_rest(&self) -> bool {
        rest::all_rest()
    }

    /// Whether producers of this core go on.
    pub fn has_producers(&self, now_ms: i64) -> bool {
        self.rest.has_producers(now_ms)
    }

    /// As [`Keeper::soon`], and what has failed doesn't wait any longer.
    pub fn retry(&self, id: PartitionId) {
        if let Some(state) = self.states.borrow_mut().get_mut(&id) {
            state.retry();
        }
        self.soon(id);
    }

    /// Whoever is to be told what is done, in the place of who was told before.
    pub fn observe(&self, observer: Observer) {
        *self.observer.borrow_mut() = Some(observer);
    }

    fn tell(&self, event: &KeepEvent) {
        if let Some(observer) = &*self.observer.borrow() {
            observer(event);
        }
    }

    /// Looks at nothing but these partitions from now on.
    pub fn only(&self, ids: &BTreeSet<PartitionId>) {
        *self.only.borrow_mut() = Some(ids.clone());
        *self.deadlines.borrow_mut() = Deadlines::default();
        self.states.borrow_mut().retain(|id, _| ids.contains(id));
        self.look_at_all(ids.iter().copied());
    }

    /// When a partition is looked at next, in ms; `None` if nothing is to come of it.
    pub fn deadline(&self, id: PartitionId) -> Option<i64> {
        self.deadlines.borrow().of.get(&id).copied()
    }

    /// True if something of a partition is being done, or due at `now_ms`.
    pub fn is_busy(&self, id: PartitionId, now_ms: i64) -> bool {
        let is_due = self.deadline(id).is_some_and(|at_ms| at_ms <= now_ms);
        is_due || self.looked_at.borrow().contains(&id) || self.states.borrow().get(&id).is_some_and(compaction::State::is_busy)
    }

    /// Has all of these looked at.
    pub fn look_at_all(&self, ids: impl Iterator<Item = PartitionId>) {
        ids.for_each(|id| self.soon(id));
    }

    /// It is no more.
    pub fn forget(&self, id: PartitionId) {
        self.deadlines.borrow_mut().remove(id);
        self.states.borrow_mut().remove(&id);
        self.failures.borrow_mut().remove(&id);
    }

    /// Tells of something that could not be done. Returns what it was.
    fn tell_failed(&self, partition: PartitionId, (path, error): &OpenError) -> String {
        let what = format!("{}: {error}", path.display());
        self.tell(&KeepEvent::Failed { partition, what: what.clone() });
        what
    }

    /// Something could not be done, and is tried again.
    fn failed(&self, partition: PartitionId, error: &OpenError) {
        let what = self.tell_failed(partition, error);
        let before = self.failures.borrow_mut().insert(partition, what.clone());
        if before.as_ref() != Some(&what) {
            tracing::warn!("retention: {what}; it is tried again");
        }
    }

    /// Resolves when a deadline was moved to now.
    pub async fn changed(&self) {
        self.signal.wait().await;
    }

    fn at(&self, id: PartitionId, at_ms: i64) {
        if self.only.borrow().as_ref().is_none_or(|only| only.contains(&id)) {
            self.deadlines.borrow_mut().set(id, at_ms);
        }
    }

    fn next(&self) -> Option<i64> {
        self.deadlines.borrow().by_time.first().map(|(at_ms, _)| *at_ms)
    }
}

/// See [`Log::keep`].
pub(super) async fn keep<D: Disk>(log: &Log<D>, now_ms: i64) -> Option<i64> {
    let core = &log.core;
    if core.is_over() {
        return None;
    }
    core.limits.now_ms.set(now_ms.max(core.limits.now_ms.get()));
    let due = core.keeper.deadlines.borrow_mut().take(now_ms, PARTITIONS_MAX);
    core.keeper.looked_at.borrow_mut().extend(&due);
    stream::iter(due)
        .for_each_concurrent(PARTITIONS_AT_ONCE, async |id| {
            let _end = LookedAt { keeper: &core.keeper, id };
            let next = match look_at(log, id, now_ms).await {
                Ok(next) => {
                    core.keeper.failures.borrow_mut().remove(&id);
                    next
                }
                Err(error) => {
                    core.keeper.failed(id, &error);
                    Some(now_ms + RETRY_MS)
                }
            };
            // What a setting puts at the end of time never comes.
            if let Some(at_ms) = next.filter(|at_ms| *at_ms < i64::MAX)
                && core.slots.borrow().contains_key(&id)
            {
                core.keeper.at(id, at_ms);
            }
        })
        .await;
    let is_for_all = core.keeper.only.borrow().is_none();
    earlier(core.keeper.next(), if is_for_all { rest::look(core, now_ms) } else { None })
}

/// A look at a partition ends, also if its caller has given up.
struct LookedAt<'a> {
    keeper: &'a Keeper,
    id: PartitionId,
}

impl Drop for LookedAt<'_> {
    fn drop(&mut self) {
        self.keeper.looked_at.borrow_mut().remove(&self.id);
    }
}

/// Looks at one partition. Returns when to do so again.
async fn look_at<D: Disk>(log: &Log<D>, id: PartitionId, now_ms: i64) -> Result<Option<i64>, OpenError> {
    let core = &log.core;
    let closed = match core.slots.borrow().get(&id) {
        None => return Ok(None),
        Some(Slot::Closed(unopened)) if unopened.recovered.scanned.is_none() => Some(unopened.recovered.clone()),
        Some(_) => None,
    };
    if let Some(recovered) = closed {
        match survey::deadline(core, &recovered, now_ms).await? {
            Some(at_ms) if at_ms <= now_ms => {}
            later => return Ok(later),
        }
    }
    if let Err(error) = log.open_partition(id).await {
        // The log has said so already. Nothing of it can be kept before it is opened.
        core.keeper.tell_failed(id, &error);
        return Ok((!is_damage(&error.1)).then_some(now_ms + RETRY_MS));
    }
    let next = retention::keep(core, id, now_ms).await?;
    Ok(earlier(next, compaction::consider(core, id, now_ms).await?))
}

/// Waits until the journal needs nothing of the segments before `base_offset` of a partition. False if that won't come.
async fn let_go<D: Disk>(core: &Core<D>, id: PartitionId, base_offset: i64) -> bool {
    let has_let_go = |core: &Core<D>| core.look(id, |partition| partition.journal_base >= base_offset);
    if has_let_go(core) == Some(false) {
        core.ask_for_switch();
    }
    core.wait_for(|core| core.is_over() || has_let_go(core) != Some(false)).await;
    has_let_go(core) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_only_moves_forward_until_it_is_taken() {
        let keeper = Keeper::default();
        let (a, b) = (PartitionId(1), PartitionId(2));
        keeper.at(a, 100);
        keeper.at(a, 200);
        keeper.at(b, 50);
        assert_eq!(keeper.next(), Some(50));
        assert_eq!(keeper.deadlines.borrow_mut().take(99, 10), [b]);
        assert_eq!(keeper.next(), Some(100));
        keeper.soon(a);
        assert_eq!(keeper.deadlines.borrow_mut().take(0, 10), [a]);
        assert_eq!(keeper.next(), None);
        keeper.at(a, 200);
        keeper.forget(a);
        assert_eq!(keeper.next(), None);
    }
}
