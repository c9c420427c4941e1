//! The catalog: topics, their ids, configs and partitions, and the broker-wide counters. A log of its own (partition 0
//! of core 0) holds its changes in order; every core applies the same ones to a copy.
//!
//! * [`change`]: what a record holds, byte by byte. * [`records`]: changes as record batches, one batch per decision.
//! * [`placement`]: which core owns what. * [`start`]: what a start makes of the log it found. * [`topic_configs`] and
//!   [`broker_configs`]: the settings, with Kafka's names. * [`effective`]: which value a setting has, and from where.

#![deny(clippy::disallowed_types)]

pub mod broker_configs;
pub mod change;
pub mod effective;
pub mod placement;
pub mod records;
pub mod settings;
pub mod start;
pub mod topic_configs;

#[cfg(test)]
mod tests;

pub use change::Change;
pub use records::RecordsError;

use engine::partition::PartitionId;
use std::{collections::BTreeMap, ops::Bound};
use uuid::Uuid;

/// The topic of committed offsets and group metadata.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// Partitions of `__consumer_offsets`, whatever the core count (`offsets.topic.num.partitions`).
pub const CONSUMER_OFFSETS_PARTITIONS: usize = 50;

/// Settings, by Kafka's names.
pub type Configs = BTreeMap<String, String>;

/// Every topic of the broker, and its counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    topics: BTreeMap<String, Topic>,
    names: BTreeMap<Uuid, String>,
    /// Topics whose deletion is durable but not confirmed by all cores, by name.
    deleting: BTreeMap<String, Topic>,
    /// `BROKER` configs that were set while running: one store for all nodes.
    broker_configs: Configs,
    cluster_id: Uuid,
    cores: usize,
    leader_epoch: i32,
    next_partition: u32,
    next_producer_id: i64,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id, persistent from its creation on.
    pub id: Uuid,
    /// Its partitions, by index.
    pub partitions: Vec<Partition>,
    /// Configs that were set, by Kafka's names; all others have the broker's defaults.
    pub configs: Configs,
    /// `__consumer_offsets`.
    pub internal: bool,
}

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the engine.
    pub id: PartitionId,
    /// The core that owns it, which is its leader's node id.
    pub core: usize,
    /// The core that a manual assignment asked for. While that core does not exist, the rule decides.
    pub pin: Option<usize>,
    /// Its leader epoch: the counter at its creation, or that of the start. Not in the log.
    pub leader_epoch: i32,
}

/// A change contradicts the state: the log is damaged, or another program wrote it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the catalog contradicts itself: {0}")]
pub struct Contradiction(pub String);

impl Catalog {
    /// A topic by its name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// A topic by its id.
    #[must_use]
    pub fn topic_by_id(&self, id: &Uuid) -> Option<&Topic> {
        self.names.get(id).and_then(|name| self.topics.get(name))
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// Topics by name, from `name` on.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Topic> {
        self.topics.range::<str, _>((Bound::Included(name), Bound::Unbounded)).map(|(_, topic)| topic)
    }

    /// Topics that were deleted durably, but whose files some core may still have.
    pub fn deleting(&self) -> impl Iterator<Item = &Topic> {
        self.deleting.values()
    }

    /// True while a deleted topic of this name is not gone from every core.
    #[must_use]
    pub fn is_deleting(&self, name: &str) -> bool {
        self.deleting.contains_key(name)
    }

    /// The cluster's id as Kafka writes it: 22 characters of URL-safe base64.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        base64_url(self.cluster_id)
    }

    /// How many cores the owners were decided for.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// The broker-wide leader epoch counter: new partitions begin at it.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// The number of the next partition.
    #[must_use]
    pub fn next_partition(&self) -> u32 {
        self.next_partition.max(PartitionId::CATALOG.0 + 1)
    }

    /// The first producer id that no block has reached yet.
    #[must_use]
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// `BROKER` configs that were set while running.
    #[must_use]
    pub fn broker_configs(&self) -> &Configs {
        &self.broker_configs
    }

    /// Partitions of all topics.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions.len()).sum()
    }

    /// What follows was decided behind the start that gave this leader epoch. That start is no change of its own: the epoch of
    /// the batches says it, so that who reads them counts as the broker did that wrote them.
    fn written_from(&mut self, leader_epoch: i32) {
        self.leader_epoch = self.leader_epoch.max(leader_epoch);
    }

    /// The start gave every partition this leader epoch.
    pub fn started(&mut self, leader_epoch: i32) {
        self.leader_epoch = self.leader_epoch.max(leader_epoch);
        for partition in self.topics.values_mut().chain(self.deleting.values_mut()).flat_map(|topic| &mut topic.partitions) {
            partition.leader_epoch = leader_epoch;
        }
    }

    /// Applies one change. All copies apply the same ones in the same order, so all stay equal.
    ///
    /// # Errors
    /// [`Contradiction`]; nothing has changed then.
    pub fn apply(&mut self, change: &Change) -> Result<(), Contradiction> {
        match change {
            Change::Cluster { id } => self.cluster_id = *id,
            Change::TopicCreated { name, id, internal, configs, partitions } => {
                if self.topics.contains_key(name) || self.names.contains_key(id) {
                    return Err(Contradiction(format!("topic {name} ({id}) is created twice")));
                }
                let mut topic =
                    Topic { name: name.clone(), id: *id, partitions: Vec::new(), configs: configs.clone(), internal: *internal };
                self.add_partitions(&mut topic, partitions);
                self.names.insert(*id, name.clone());
                self.topics.insert(name.clone(), topic);
            }
            Change::PartitionsAdded { id, first, partitions } => {
                let mut topic = self.known(id)?.clone();
                if topic.partitions.len() != *first as usize {
                    return Err(Contradiction(format!("topic {} has {} partitions, not {first}", topic.name, topic.partitions.len())));
                }
                self.add_partitions(&mut topic, partitions);
                self.topics.insert(topic.name.clone(), topic);
            }
            Change::PartitionsTakenBack { id, count } => {
                let topic = self.known(id)?;
                topic.partitions.truncate(*count as usize);
            }
            Change::TopicDeleted { id } => {
                let next_epoch = self.leader_epoch.checked_add(1).ok_or_else(|| Contradiction("no leader epoch is left".into()))?;
                let name = self.known(id)?.name.clone();
                let topic = self.topics.remove(&name).expect("just found");
                self.names.remove(id);
                self.deleting.insert(name, topic);
                self.leader_epoch = next_epoch;
            }
            Change::DeletionFinished { id } => self.deleting.retain(|_, topic| topic.id != *id),
            Change::TopicConfigs { id, configs } => self.known(id)?.configs = configs.clone(),
            Change::BrokerConfigs { configs } => self.broker_configs = configs.clone(),
            Change::ProducerIds { next } => self.next_producer_id = self.next_producer_id.max(*next),
            Change::Placed { id, cores } => {
                let topic = self.known(id)?;
                if cores.len() != topic.partitions.len() {
                    return Err(Contradiction(format!(
                        "topic {} has {} partitions, not {}",
                        topic.name,
                        topic.partitions.len(),
                        cores.len()
                    )));
                }
                for (partition, core) in topic.partitions.iter_mut().zip(cores) {
                    partition.core = usize::from(*core);
                }
            }
            Change::Cores { count } => self.cores = usize::from(*count),
            Change::Epoch { epoch } => self.leader_epoch = self.leader_epoch.max(*epoch),
            Change::NextPartition { id } => self.next_partition = self.next_partition.max(*id),
        }
        Ok(())
    }

    /// What is still to be known of a change that does not fit, since others in front of it are lost: each deletion raises the leader epoch.
    fn give_up(&mut self, change: &Change) {
        if matches!(change, Change::TopicDeleted { .. }) {
            self.leader_epoch = self.leader_epoch.saturating_add(1);
        }
    }

    /// The changes that make an empty catalog into this one: what a snapshot holds.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Change> {
        let created = |topic: &Topic| Change::TopicCreated {
            name: topic.name.clone(),
            id: topic.id,
            internal: topic.internal,
            configs: topic.configs.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|partition| (partition.id, partition.core as u16, partition.pin.map(|core| core as u16)))
                .collect(),
        };
        let mut changes = vec![Change::Cluster { id: self.cluster_id }];
        for topic in self.deleting.values() {
            changes.extend([created(topic), Change::TopicDeleted { id: topic.id }]);
        }
        changes.extend(self.topics.values().map(created));
        changes.extend([
            Change::BrokerConfigs { configs: self.broker_configs.clone() },
            Change::ProducerIds { next: self.next_producer_id },
            Change::Cores { count: self.cores as u16 },
            Change::Epoch { epoch: self.leader_epoch },
            Change::NextPartition { id: self.next_partition() },
        ]);
        changes
    }

    fn known(&mut self, id: &Uuid) -> Result<&mut Topic, Contradiction> {
        let name = self.names.get(id).ok_or_else(|| Contradiction(format!("topic id {id} is unknown")))?;
        self.topics.get_mut(name).ok_or_else(|| Contradiction(format!("topic {name} has an id but no entry")))
    }

    fn add_partitions(&mut self, topic: &mut Topic, partitions: &[change::Placed]) {
        for (id, core, pin) in partitions {
            let partition = Partition { id: *id, core: usize::from(*core), pin: pin.map(usize::from), leader_epoch: self.leader_epoch };
            topic.partitions.push(partition);
            self.next_partition = self.next_partition.max(id.0.saturating_add(1));
        }
    }
}

/// A UUID as Kafka writes it: 22 characters of URL-safe base64, no padding.
#[must_use]
pub fn base64_url(id: Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = id.as_u128();
    // 128 bits are 21 digits of 6 bits and one of the last 2, shifted up.
    (0..22)
        .map(|digit| if digit < 21 { bits >> (122 - 6 * digit) } else { bits << 4 })
        .map(|six| char::from(DIGITS[(six & 63) as usize]))
        .collect()
}
