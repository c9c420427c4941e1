//! Offsets that nobody needs any more: expired ones, and those of topics that were deleted.

use super::{Gate, OFFSETS_TOPIC, ShardIndex, load, pass, write};
use crate::core::Core;
use kafka_protocol::ResponseError;
use std::{collections::BTreeSet, rc::Rc, time::Duration};

/// `offsets.retention.check.interval.ms`, Kafka's default.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// A pause between two partitions, for the others on this core.
const BREATH: Duration = Duration::from_millis(1);

pub(super) fn spawn(core: &Rc<Core>) {
    let weak = Rc::downgrade(core);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let Some(core) = weak.upgrade() else { return };
            let shards: Vec<ShardIndex> = core.groups.shards.borrow().keys().copied().collect();
            for shard in shards {
                expired(&core, shard);
                tokio::time::sleep(BREATH).await;
            }
        }
    });
}

/// Tombstones what has expired in one partition, and groups that are empty in every sense.
fn expired(core: &Rc<Core>, index: ShardIndex) {
    let coordinator = &core.groups;
    let wall_ms = coordinator.now().wall_ms;
    let doomed: Vec<(String, Vec<(String, i32)>)> = {
        let shards = coordinator.shards.borrow();
        let Some(shard) = shards.get(&index).filter(|shard| shard.ready) else { return };
        let of_group = |(name, entry): (&String, &super::Entry)| {
            let offsets = entry.offsets.expired(&entry.group, wall_ms, coordinator.retention_ms);
            let useless = entry.group.is_empty() && entry.offsets.is_empty();
            (useless || !offsets.is_empty()).then(|| (name.clone(), offsets))
        };
        shard.groups.iter().filter_map(of_group).collect()
    };
    for (group, offsets) in doomed {
        bury(core, index, &group, &offsets);
    }
}

/// Tombstones offsets of a group, and the group itself if nothing is left of it. Returns what has to be durable.
fn bury(core: &Rc<Core>, index: ShardIndex, group: &str, offsets: &[(String, i32)]) -> Option<Gate> {
    let coordinator = &core.groups;
    let mut shards = coordinator.shards.borrow_mut();
    let shard = shards.get_mut(&index)?;
    let records: Vec<_> = offsets.iter().map(|(topic, partition)| write::offset_record(group, topic, *partition, None)).collect();
    let wall_ms = coordinator.now().wall_ms;
    let (written, _) = write::append(core, index, shard, records, wall_ms);
    let last = shard.appended;
    let entry = shard.groups.get_mut(group)?;
    for (topic, partition) in &offsets[..written] {
        if entry.offsets.remove(topic, *partition) {
            coordinator.committed.set(coordinator.committed.get() - 1);
        }
    }
    if written > 0 {
        entry.gate = Some(last);
    }
    let is_over = entry.group.is_empty() && entry.offsets.is_empty();
    if is_over
        && write::append(core, index, shard, [write::group_record(group, None)], wall_ms).1.is_ok()
        && let Some(entry) = shard.groups.remove(group)
    {
        coordinator.forget(&entry);
    }
    Some(Gate { shard: index, id: shard.id, offset: shard.appended })
}

/// Tombstones the offsets of a partition's groups that belong to topics which are gone or were made anew; only those of
/// `names` if it's given.
pub(super) fn orphans(core: &Rc<Core>, index: ShardIndex, names: Option<&BTreeSet<String>>) -> Option<Gate> {
    let doomed: Vec<(String, Vec<(String, i32)>)> = {
        let catalog = core.catalog.borrow();
        let shards = core.groups.shards.borrow();
        let shard = shards.get(&index).filter(|shard| shard.ready)?;
        let of_group = |(name, entry): (&String, &super::Entry)| {
            let mut orphans = entry.offsets.orphans(|topic| catalog.topic(topic).map(|topic| topic.id));
            orphans.retain(|(topic, _)| names.is_none_or(|names| names.contains(topic)));
            (!orphans.is_empty()).then(|| (name.clone(), orphans))
        };
        shard.groups.iter().filter_map(of_group).collect()
    };
    let mut gate = None;
    for (group, offsets) in doomed {
        tracing::debug!("{} offsets of group {group} go with their topics", offsets.len());
        gate = bury(core, index, &group, &offsets).or(gate);
    }
    gate
}

/// Topics were deleted, and this core's catalog says so: their offsets go too, durably, before this returns. A topic of
/// the same name that was made since keeps its own. Those of a partition that can't be loaded go when it can.
///
/// # Errors
/// COORDINATOR_NOT_AVAILABLE if that can't be written; the next start then sees to it.
pub async fn topics_deleted(core: &Rc<Core>, names: Vec<String>) -> Result<(), ResponseError> {
    let names: BTreeSet<String> = names.into_iter().collect();
    load::all_loaded(core).await;
    let shards: Vec<ShardIndex> = core.groups.shards.borrow().keys().copied().collect();
    let gates: Vec<Option<Gate>> = shards.into_iter().map(|shard| orphans(core, shard, Some(&names))).collect();
    for gate in gates {
        pass(core, gate).await.inspect_err(|_| tracing::warn!("offsets of deleted topics are still in {OFFSETS_TOPIC}"))?;
    }
    Ok(())
}
