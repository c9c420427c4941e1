//! What the coordinator of a core holds of its bounds, and its groups with their offsets, for whoever watches them.

use super::{Entry, ShardIndex};
use crate::{core::Core, groups::records::Committed};
use std::ops::Bound::{Excluded, Included, Unbounded};

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
    group: Option<String>,
    /// The last of its offsets that was; `None` if it is done with.
    offset: Option<(String, i32)>,
}

/// What the coordinator of this core holds.
#[must_use]
pub fn usage(core: &Core) -> Usage {
    let groups = core.groups.shards.borrow().values().map(|shard| shard.groups.len()).sum();
    Usage { groups, committed: core.groups.committed.get(), metadata_bytes: core.groups.metadata_bytes.get() }
}

/// The next groups: at most `rows_max` groups and offsets together (one more, if a group is the last row). A group with more goes on in the next step, under the
/// same name. Also where to go on; `None` at the end.
#[must_use]
pub fn groups_from(core: &Core, place: &Place, rows_max: usize) -> (Vec<GroupRow>, Option<Place>) {
    let (mut rows, mut taken) = (Vec::new(), 0);
    let shards = core.groups.shards.borrow();
    for (index, shard) in shards.range(place.shard..) {
        let last = place.group.as_deref().filter(|_| *index == place.shard);
        let first = match (last, &place.offset) {
            (None, _) => Unbounded,
            (Some(last), Some(_)) => Included(last),
            (Some(last), None) => Excluded(last),
        };
        for (name, entry) in shard.groups.range::<str, _>((first, Unbounded)) {
            let place_at = |offset| Some(Place { shard: *index, group: Some(name.clone()), offset });
            let after = place.offset.as_ref().filter(|_| last == Some(name.as_str()));
            let (row, rest) = row(core, name, entry, after, rows_max.saturating_sub(taken + 1).max(1));
            taken += 1 + row.offsets.len();
            rows.push(row);
            if rest.is_some() || taken >= rows_max {
                return (rows, place_at(rest));
            }
        }
    }
    (rows, None)
}

/// A group with its offsets behind `after`, so many at most (one or more); the last of them if there are more.
fn row(core: &Core, name: &str, entry: &Entry, after: Option<&(String, i32)>, offsets_max: usize) -> (GroupRow, Option<(String, i32)>) {
    let catalog = core.catalog.borrow();
    let is_current = |topic: &str, committed: &Committed| {
        catalog.topic(topic).is_some_and(|topic| committed.topic_id.is_nil() || committed.topic_id == topic.id)
    };
    let mut offsets = Vec::new();
    let mut last = after.cloned();
    let mut rest = entry.offsets.iter_after(after).peekable();
    while offsets.len() < offsets_max
        && let Some((topic, partition, committed)) = rest.next()
    {
        if is_current(topic, committed) {
            offsets.push((topic.to_owned(), partition, committed.offset));
        }
        if offsets.len() == offsets_max {
            last = Some((topic.to_owned(), partition));
        }
    }
    let is_cut_off = rest.peek().is_some();
    (GroupRow { name: name.to_owned(), members: entry.group.size(), offsets }, last.filter(|_| is_cut_off))
}
