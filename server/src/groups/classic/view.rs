//! What others may know of a group: DescribeGroups, and which topics its consumers read.

use super::{Group, Member, State};
use bytes::Bytes;
use std::collections::BTreeSet;

/// A group as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// See [`State::name`].
    pub state: &'static str,
    /// `consumer`, `connect`.
    pub protocol_type: String,
    /// The chosen assignor, of a stable group.
    pub protocol: String,
    /// Its members.
    pub members: Vec<MemberDescription>,
}

/// A member as DescribeGroups shows it. Metadata and assignment are empty while the group is not stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// Its `client.id`.
    pub client_id: String,
    /// Where it comes from.
    pub client_host: String,
    /// Its metadata for the chosen assignor.
    pub metadata: Bytes,
    /// What it was given.
    pub assignment: Bytes,
}

/// What an id that was handed out takes beside its text, in bytes: its place in the map, and the deadline.
const PENDING_BYTES: usize = 64;

/// What an assignor of a member takes beside its name and metadata, in bytes: its place in the list.
const PROTOCOL_BYTES: usize = 64;

/// What a member brings, in bytes.
pub(super) fn bytes_of(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| PROTOCOL_BYTES + name.len() + metadata.len()).sum()
}

impl Group {
    /// The group now.
    #[must_use]
    pub fn describe(&self) -> Description {
        let protocol = self.protocol.as_deref().filter(|_| self.state == State::Stable);
        let member = |member: &Member| MemberDescription {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol.map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            assignment: if protocol.is_some() { member.assignment.clone() } else { Bytes::new() },
        };
        Description {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: self.members.values().map(member).collect(),
        }
    }

    /// What its members have brought and were given, in bytes, with the ids of those that were announced.
    #[must_use]
    pub fn metadata_bytes(&self) -> usize {
        let members: usize = self.members.values().map(|member| bytes_of(&member.protocols) + member.assignment.len()).sum();
        members + self.pending.keys().map(|id| id.len() + PENDING_BYTES).sum::<usize>()
    }

    /// What a member has brought, in bytes; `None` if it is none.
    #[must_use]
    pub fn member_bytes(&self, id: &str) -> Option<usize> {
        self.members.get(id).map(|member| bytes_of(&member.protocols))
    }

    /// Whether it is a consumer group, whose metadata are subscriptions.
    #[must_use]
    pub fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some("consumer")
    }

    /// The topics that its members subscribe to; `None` if that can't be known.
    #[must_use]
    pub fn subscribed(&self) -> Option<&BTreeSet<String>> {
        self.subscribed.as_ref()
    }

    /// Subscriptions of all members together, as far as this is a consumer group with readable metadata.
    pub(super) fn subscriptions(&self) -> Option<BTreeSet<String>> {
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref().filter(|_| self.is_consumer_group())?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }
}

/// The topics of a `ConsumerProtocolSubscription`: a version, then an array of names. Later versions add behind them.
fn subscription_topics(metadata: &[u8]) -> Option<Vec<String>> {
    fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_at_checked(len)?;
        *bytes = rest;
        Some(head)
    }
    let mut rest = metadata;
    take(&mut rest, 2)?;
    let count = i32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let mut topics = Vec::new();
    for _ in 0..count.max(0) {
        let len = i16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
        topics.push(String::from_utf8(take(&mut rest, usize::try_from(len).ok()?)?.to_vec()).ok()?);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::subscription_topics;

    #[test]
    fn topics_of_a_subscription_are_read_and_garbage_is_not() {
        let good = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
        assert_eq!(subscription_topics(good), Some(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(subscription_topics(b"\0\x01\x7f\xff\xff\xff\0\x01a"), None, "a count beyond the bytes");
        assert_eq!(subscription_topics(b"\0"), None);
        assert_eq!(subscription_topics(b"\0\x01\0\0\0\x01\xff\xff"), None, "a negative length");
    }
}
