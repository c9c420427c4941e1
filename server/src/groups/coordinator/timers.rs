//! The groups' time: one task that sleeps until the next deadline of any group.

use super::{Coordinator, Entry, ShardIndex, settle};
use crate::{asker::bounded, core::Core};
use std::{rc::Rc, time::Duration};

/// Groups that are looked at before others get their turn.
const GROUPS_PER_TURN: usize = 64;

/// Members that the log names, of those that a group loses at once.
const NAMED_MAX: usize = 5;

/// Notes when a group has to be looked at. A deadline that moves later is noticed when the earlier one comes: heartbeats,
/// which do only that, cost nothing here.
pub(super) fn look_ahead(coordinator: &Coordinator, shard: ShardIndex, name: &str, entry: &mut Entry) {
    let Some(next) = entry.group.next_deadline() else { return };
    if entry.wake_at.is_some_and(|at| at <= next) {
        return;
    }
    let mut deadlines = coordinator.deadlines.borrow_mut();
    if let Some(at) = entry.wake_at.replace(next) {
        deadlines.remove(&(at, shard, name.to_owned()));
    }
    if deadlines.first().is_none_or(|(first, ..)| next < *first) {
        coordinator.earlier.notify_one();
    }
    deadlines.insert((next, shard, name.to_owned()));
}

pub(super) fn spawn(core: &Rc<Core>) {
    let weak = Rc::downgrade(core);
    tokio::task::spawn_local(async move {
        while let Some(core) = weak.upgrade() {
            let coordinator = Rc::clone(&core.groups);
            let next = fire(&core);
            drop(core);
            match next {
                None => coordinator.earlier.notified().await,
                Some(wait) => drop(tokio::time::timeout(wait, coordinator.earlier.notified()).await),
            }
        }
    });
}

/// Looks at the groups that are due. Returns how long nothing is due then.
fn fire(core: &Rc<Core>) -> Option<Duration> {
    let coordinator = &core.groups;
    for _ in 0..GROUPS_PER_TURN {
        let now = coordinator.now();
        let due = coordinator.deadlines.borrow().first().cloned();
        let (at, shard, name) = due?;
        if at > now.steady_ms {
            return Some(Duration::from_millis((at - now.steady_ms) as u64));
        }
        coordinator.deadlines.borrow_mut().pop_first();
        if let Some(entry) = coordinator.shards.borrow_mut().get_mut(&shard).and_then(|shard| shard.groups.get_mut(&name)) {
            // A group that was removed and made anew has a deadline of its own.
            if entry.wake_at != Some(at) {
                continue;
            }
            entry.wake_at = None;
            tell_of_silent(&name, &entry.group.tick(now));
        }
        settle(core, shard, &name);
    }
    Some(Duration::from_millis(1))
}

fn tell_of_silent(group: &str, silent: &[String]) {
    if silent.is_empty() {
        return;
    }
    let (group, named) = (bounded(group), silent.iter().take(NAMED_MAX).map(|member| bounded(member)).collect::<Vec<_>>());
    let more = if named.len() < silent.len() { " and others" } else { "" };
    tracing::info!("group {group:?} has lost {} of its members, of which nothing was heard in time: {named:?}{more}", silent.len());
}
