//! What the coordinator of a core holds of its bounds, and its groups with their offsets, for whoever watches them.

use super::{Entry, ShardIndex};
use crate::core::Core;
use std::ops::Bound::{Excluded, Unbounded};

/// What a coordinator holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Groups.
    pub groups: usize,
    /// Committed offsets.
    pub committed: usize,
    /// What members brought, in bytes.
    pub metadata_bytes: usize,
}

/// A group at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// Its name.
    pub name: String,
    /// Its members.
    pub members: usize,
    /// Topic, partition, committed offset; those of deleted topics aren't among them.
    pub offsets: Vec<(String, i32, i64)>,
}

/// Where a walk over all groups goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    shard: ShardIndex,
    /// The last group that was looked at.
    after: Option<String>,
}

/// What the coordinator of this core holds.
#[must_use]
pub fn usage(core: &Core) -> Usage {
    let groups = core.groups.shards.borrow().values().map(|shard| shard.groups.len()).sum();
    Usage { groups, committed: core.groups.committed.get(), metadata_bytes: core.groups.metadata_bytes.get() }
}

/// The next groups: at most `rows_max` groups and offsets together (one group at least, cut off there). Also how many
/// offsets were cut off, and where to go on; `None` at the end.
#[must_use]
pub fn groups_from(core: &Core, place: &Place, rows_max: usize) -> (Vec<GroupRow>, usize, Option<Place>) {
    let (mut rows, mut taken, mut cut_off) = (Vec::new(), 0, 0);
    let shards = core.groups.shards.borrow();
    for (index, shard) in shards.range(place.shard..) {
        let after = place.after.as_deref().filter(|_| *index == place.shard);
        for (name, entry) in shard.groups.range::<str, _>((after.map_or(Unbounded, Excluded), Unbounded)) {
            let row = row(core, name, entry, rows_max);
            cut_off += row.1;
            taken += 1 + row.0.offsets.len();
            rows.push(row.0);
            if taken >= rows_max {
                return (rows, cut_off, Some(Place { shard: *index, after: Some(name.clone()) }));
            }
        }
    }
    (rows, cut_off, None)
}

fn row(core: &Core, name: &str, entry: &Entry, offsets_max: usize) -> (GroupRow, usize) {
    let catalog = core.catalog.borrow();
    let current = entry.offsets.iter().filter(|(topic, _, committed)| {
        catalog.topic(topic).is_some_and(|topic| committed.topic_id.is_nil() || committed.topic_id == topic.id)
    });
    let offsets = current.take(offsets_max).map(|(topic, partition, committed)| (topic.to_owned(), partition, committed.offset)).collect();
    let row = GroupRow { name: name.to_owned(), members: entry.group.size(), offsets };
    (row, entry.offsets.len().saturating_sub(offsets_max))
}
