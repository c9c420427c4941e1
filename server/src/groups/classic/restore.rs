//! A group as it's written down, and back from there.

use super::{Group, Member, Now, Rules, State};
use bytes::Bytes;

/// What is written down of a group, as Kafka's `GroupMetadataValue`: enough for its members to go on after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// `consumer`, `connect`; empty if nobody ever joined.
    pub protocol_type: String,
    /// See [`Group::generation`].
    pub generation: i32,
    /// The chosen assignor.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: Option<String>,
    /// Wall ms.
    pub state_since_ms: i64,
    /// Its members.
    pub members: Vec<SnapshotMember>,
}

/// A member as it's written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMember {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// Its `client.id`.
    pub client_id: String,
    /// Where it comes from.
    pub client_host: String,
    /// In ms.
    pub rebalance_timeout_ms: i32,
    /// In ms.
    pub session_timeout_ms: i32,
    /// Its metadata for the chosen assignor.
    pub subscription: Bytes,
    /// What it was given.
    pub assignment: Bytes,
}

impl Group {
    /// What has to be written down of it now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |member: &Member| SnapshotMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        };
        Snapshot {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_wall_ms,
            members: self.members.values().map(member).collect(),
        }
    }

    /// The group as it was written down: members are there under their ids, each with a new session.
    #[must_use]
    pub fn restore(rules: Rules, snapshot: Snapshot, now: Now) -> Group {
        let mut group = Group::new(rules, now);
        group.generation = snapshot.generation;
        group.protocol_type = Some(snapshot.protocol_type).filter(|name| !name.is_empty());
        group.protocol = snapshot.protocol;
        group.state = if snapshot.members.is_empty() { State::Empty } else { State::Stable };
        group.state_since_wall_ms = if snapshot.state_since_ms < 0 { now.wall_ms } else { snapshot.state_since_ms };
        for written in snapshot.members {
            if let Some(instance) = &written.instance {
                group.statics.insert(instance.clone(), written.id.clone());
            }
            let mut member = Member {
                id: written.id,
                instance: written.instance,
                client_id: written.client_id,
                client_host: written.client_host,
                rebalance_timeout_ms: written.rebalance_timeout_ms,
                session_timeout_ms: written.session_timeout_ms,
                protocols: vec![(group.protocol.clone().unwrap_or_default(), written.subscription)],
                assignment: written.assignment,
                join: None,
                sync: None,
                new: false,
                owes_sync: false,
                session_ends: 0,
            };
            member.touch(now);
            group.members.insert(member.id.clone(), member);
        }
        group.leader = snapshot.leader.filter(|id| group.members.contains_key(id)).or_else(|| group.members.keys().next().cloned());
        group.subscribed = group.subscriptions();
        group
    }
}
