//! Where a partition is: here, on another core, or nowhere.

use crate::{
    catalog::{Catalog, Partition, Topic},
    core::Core,
};
use engine::partition::PartitionId;
use kafka_protocol::ResponseError;
use uuid::Uuid;

/// Who leads a partition (KIP-951).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its node.
    pub node: usize,
    /// Its leader epoch.
    pub epoch: i32,
}

/// Where a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// On this core.
    Here(PartitionId),
    /// On another core.
    Elsewhere(Leader),
    /// It does not exist.
    Nowhere(ResponseError),
}

impl Location {
    /// The partition if it is here, else the answer.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER, UNKNOWN_TOPIC_OR_PARTITION or UNKNOWN_TOPIC_ID.
    pub fn here(self) -> Result<PartitionId, ResponseError> {
        match self {
            Location::Here(id) => Ok(id),
            Location::Elsewhere(_) => Err(ResponseError::NotLeaderOrFollower),
            Location::Nowhere(error) => Err(error),
        }
    }
}

/// A topic as a request names it: by id from some version on, by name before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicKey<'a> {
    /// By its name.
    Name(&'a str),
    /// By its id.
    Id(Uuid),
}

impl TopicKey<'_> {
    /// The topic in a catalog.
    #[must_use]
    pub fn find<'c>(&self, catalog: &'c Catalog) -> Option<&'c Topic> {
        match self {
            TopicKey::Name(name) => catalog.topic(name),
            TopicKey::Id(id) => catalog.topic_by_id(id),
        }
    }
}

impl Core {
    /// The leader epoch of a partition, as all answers give it.
    #[must_use]
    pub fn leader_epoch(&self, partition: &Partition) -> i32 {
        partition.leader_epoch
    }

    /// Where a partition is.
    #[must_use]
    pub fn locate(&self, topic: TopicKey<'_>, partition: i32) -> Location {
        let catalog = self.catalog.borrow();
        self.locate_in(topic, topic.find(&catalog), partition)
    }

    /// The same for a topic that was looked up already.
    pub(super) fn locate_in(&self, topic: TopicKey<'_>, found: Option<&Topic>, partition: i32) -> Location {
        let Some(found) = found else {
            return Location::Nowhere(match topic {
                TopicKey::Name(_) => ResponseError::UnknownTopicOrPartition,
                TopicKey::Id(_) => ResponseError::UnknownTopicId,
            });
        };
        match usize::try_from(partition).ok().and_then(|index| found.partitions.get(index)) {
            None => Location::Nowhere(ResponseError::UnknownTopicOrPartition),
            Some(partition) if partition.core == self.index => Location::Here(partition.id),
            Some(partition) => Location::Elsewhere(Leader { node: partition.core, epoch: self.leader_epoch(partition) }),
        }
    }
}

/// Checks a client's leader epoch against the partition's (-1: it doesn't know).
///
/// # Errors
/// FENCED_LEADER_EPOCH if the client's is older, UNKNOWN_LEADER_EPOCH if it is newer.
pub fn check_epoch(clients: i32, current: i32) -> Result<(), ResponseError> {
    match clients {
        -1 => Ok(()),
        _ if clients < current => Err(ResponseError::FencedLeaderEpoch),
        _ if clients > current => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
