//! The committed offsets of one group, and when they expire.

use super::{classic::Group, classic::State, records::Committed};
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
};
use uuid::Uuid;

/// Committed offsets by topic and partition.
#[derive(Debug, Default)]
pub struct Offsets {
    topics: BTreeMap<String, BTreeMap<i32, Committed>>,
}

impl Offsets {
    /// No offset at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.values().map(BTreeMap::len).sum()
    }

    /// The offset of one partition.
    #[must_use]
    pub fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.topics.get(topic)?.get(&partition)
    }

    /// Sets one; true if it's a new one.
    pub fn set(&mut self, topic: &str, partition: i32, committed: Committed) -> bool {
        match self.topics.get_mut(topic) {
            Some(partitions) => partitions.insert(partition, committed).is_none(),
            None => self.topics.entry(topic.to_owned()).or_default().insert(partition, committed).is_none(),
        }
    }

    /// Takes one away; true if it was there.
    pub fn remove(&mut self, topic: &str, partition: i32) -> bool {
        let Some(partitions) = self.topics.get_mut(topic) else { return false };
        let removed = partitions.remove(&partition).is_some();
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
        removed
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.topics
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(move |(partition, committed)| (topic.as_str(), *partition, committed)))
    }

    /// Those behind a topic's partition, or all of them.
    pub fn iter_after<'a>(&'a self, after: Option<&'a (String, i32)>) -> impl Iterator<Item = (&'a str, i32, &'a Committed)> {
        let first = after.map_or(Unbounded, |(topic, _)| Included(topic.as_str()));
        self.topics.range::<str, _>((first, Unbounded)).flat_map(move |(topic, partitions)| {
            let behind = after.filter(|(name, _)| name == topic).map_or(Unbounded, |(_, partition)| Excluded(*partition));
            partitions.range((behind, Unbounded)).map(move |(partition, committed)| (topic.as_str(), *partition, committed))
        })
    }

    /// Those of topics that are no longer the ones that they were committed for. `current` names a topic's id.
    #[must_use]
    pub fn orphans(&self, current: impl Fn(&str) -> Option<Uuid>) -> Vec<(String, i32)> {
        let mut orphans = Vec::new();
        for (topic, partitions) in &self.topics {
            let id = current(topic);
            let gone =
                partitions.iter().filter(|(_, committed)| id.is_none_or(|id| !committed.topic_id.is_nil() && committed.topic_id != id));
            orphans.extend(gone.map(|(partition, _)| (topic.clone(), *partition)));
        }
        orphans
    }

    /// Those that have expired (`offsets.retention.minutes`): counted from when the group became empty; from the commit
    /// for a group that never had members, and for topics that a stable consumer group no longer reads (KIP-211).
    #[must_use]
    pub fn expired(&self, group: &Group, wall_ms: i64, retention_ms: i64) -> Vec<(String, i32)> {
        let since = |topic: &str, committed: &Committed| match (group.protocol_type(), group.state()) {
            (None, _) => Some(committed.commit_ms),
            (Some(_), State::Empty) => Some(group.state_since_wall_ms().max(committed.commit_ms)),
            (Some(_), State::Stable) if group.is_consumer_group() => {
                group.subscribed().filter(|topics| !topics.contains(topic)).map(|_| committed.commit_ms)
            }
            _ => None,
        };
        let due = |topic: &str, committed: &Committed| {
            since(topic, committed).is_some_and(|since| match committed.expire_ms {
                Some(expire_ms) => wall_ms >= expire_ms,
                None => wall_ms.saturating_sub(since) >= retention_ms,
            })
        };
        self.iter()
            .filter(|(topic, _, committed)| due(topic, committed))
            .map(|(topic, partition, _)| (topic.to_owned(), partition))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::classic::{Now, Rules, Snapshot, SnapshotMember};
    use bytes::Bytes;

    const RETENTION: i64 = 1_000;

    fn at(commit_ms: i64) -> Committed {
        Committed { offset: 1, leader_epoch: -1, metadata: String::new(), commit_ms, expire_ms: None, topic_id: Uuid::nil() }
    }

    fn offsets() -> Offsets {
        let mut offsets = Offsets::default();
        offsets.set("orders", 0, at(500));
        offsets.set("other", 0, at(500));
        offsets
    }

    fn group(protocol_type: &str, since: i64, members: bool) -> Group {
        let member = SnapshotMember {
            id: "m".into(),
            instance: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: 1,
            session_timeout_ms: 1,
            subscription: Bytes::from_static(b"\0\x01\0\0\0\x01\0\x06orders"),
            assignment: Bytes::new(),
        };
        let snapshot = Snapshot {
            protocol_type: protocol_type.into(),
            generation: 1,
            protocol: members.then(|| "range".into()),
            leader: None,
            state_since_ms: since,
            members: if members { vec![member] } else { Vec::new() },
        };
        Group::restore(Rules::default(), snapshot, Now { steady_ms: 0, wall_ms: 0 })
    }

    #[test]
    fn offsets_expire_by_who_uses_them() {
        let both = || vec![("orders".to_owned(), 0), ("other".to_owned(), 0)];
        let table = [
            ("a simple consumer's: from the commit", group("", 1_400, false), 1_500, both()),
            ("a simple consumer's, in time", group("", 0, false), 1_499, vec![]),
            ("an empty group's: from when it became empty", group("consumer", 700, false), 1_700, both()),
            ("an empty group's, in time", group("consumer", 700, false), 1_699, vec![]),
            ("a commit to an empty group counts too", group("consumer", 100, false), 1_499, vec![]),
            ("a stable consumer group's topics that it no longer reads", group("consumer", 0, true), 1_500, vec![("other".to_owned(), 0)]),
            ("any other group's with members: never", group("connect", 0, true), i64::MAX, vec![]),
        ];
        for (claim, group, now, expected) in table {
            assert_eq!(offsets().expired(&group, now, RETENTION), expected, "{claim}");
        }
    }

    #[test]
    fn an_expiry_that_was_said_at_the_commit_counts() {
        let mut offsets = Offsets::default();
        offsets.set("orders", 0, Committed { expire_ms: Some(600), ..at(500) });
        assert_eq!(offsets.expired(&group("", 0, false), 599, RETENTION).len(), 0);
        assert_eq!(offsets.expired(&group("", 0, false), 600, RETENTION).len(), 1);
    }

    #[test]
    fn offsets_of_a_topic_that_was_made_anew_are_orphans() {
        let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut offsets = Offsets::default();
        offsets.set("orders", 0, Committed { topic_id: old, ..at(0) });
        offsets.set("orders", 1, Committed { topic_id: new, ..at(0) });
        offsets.set("gone", 0, at(0));
        let current = |topic: &str| (topic == "orders").then_some(new);
        assert_eq!(offsets.orphans(current), [("gone".to_owned(), 0), ("orders".to_owned(), 0)]);
    }

    #[test]
    fn the_last_offset_of_a_topic_takes_the_topic_along() {
        let mut offsets = offsets();
        assert!(offsets.remove("orders", 0));
        assert!(!offsets.remove("orders", 0));
        assert!(!offsets.remove("orders", 1));
        assert_eq!(offsets.len(), 1);
        assert!(offsets.set("other", 1, at(0)) && !offsets.set("other", 1, at(1)));
        offsets.remove("other", 0);
        offsets.remove("other", 1);
        assert!(offsets.is_empty());
    }
}
