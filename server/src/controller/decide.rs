//! What creating topics and partitions means: requests and a catalog in, changes or refusals out. Nothing here waits.
//!
//! The order of the checks, and the words, are those of Kafka's controller (`ReplicationControlManager`), since tools show
//! them and scripts look for them.

use super::{Refusal, names};
use crate::{
    catalog::{Catalog, Change, Configs, change::Placed, placement, topic_configs},
    settings::Settings,
};
use engine::{kafka::CLUSTER_METADATA, partition::PartitionId};
use kafka_protocol::{
    ResponseError,
    messages::{
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
    },
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The most partitions that one request may create, as in Kafka.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// The longest value of a setting, in bytes.
pub const CONFIG_VALUE_BYTES_MAX: usize = 16 << 10;

/// The cluster, as far as decisions need it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The catalog.
    pub catalog: &'a Catalog,
    /// What the operator decided.
    pub settings: &'a Settings,
    /// How many cores there are.
    pub cores: usize,
}

/// Numbers for new partitions, beyond those that the catalog has given out.
struct Numbers {
    next: u32,
    left: usize,
}

impl Numbers {
    fn of(catalog: &Catalog) -> Numbers {
        Numbers { next: catalog.next_partition(), left: PARTITIONS_PER_REQUEST_MAX }
    }

    fn take(&mut self, count: usize) -> Result<impl Iterator<Item = PartitionId> + use<>, Refusal> {
        self.left = self
            .left
            .checked_sub(count)
            .ok_or_else(|| Refusal::new(ResponseError::PolicyViolation, "Excessively large number of partitions per request."))?;
        let first = self.next;
        self.next = u32::try_from(count)
            .ok()
            .and_then(|count| first.checked_add(count))
            .ok_or_else(|| Refusal::new(ResponseError::PolicyViolation, "All partition numbers have been used."))?;
        Ok((first..).take(count).map(PartitionId))
    }
}

/// What each topic of a CreateTopics request leads to, in the request's order. Duplicate names appear once.
pub fn create_topics(
    view: View<'_>,
    topics: &[CreatableTopic],
    mut new_id: impl FnMut() -> Uuid,
) -> Vec<(String, Result<Change, Refusal>)> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for topic in topics {
        *counts.entry(topic.name.0.as_str()).or_default() += 1;
    }
    let mut numbers = Numbers::of(view.catalog);
    let mut seen = BTreeSet::new();
    let first_of_name = topics.iter().filter(|topic| seen.insert(topic.name.0.as_str()));
    first_of_name
        .map(|topic| {
            let name = topic.name.0.as_str();
            let decided = if counts[name] > 1 {
                Err(Refusal::new(ResponseError::InvalidRequest, "Duplicate topic name."))
            } else {
                create_topic(view, topic, &mut numbers, &mut new_id)
            };
            (name.to_owned(), decided)
        })
        .collect()
}

fn collides(name: &str, other: &str) -> Refusal {
    Refusal::new(ResponseError::InvalidTopicException, format!("Topic '{name}' collides with existing topic: {other}"))
}

fn create_topic(
    view: View<'_>,
    topic: &CreatableTopic,
    numbers: &mut Numbers,
    new_id: &mut impl FnMut() -> Uuid,
) -> Result<Change, Refusal> {
    let name = topic.name.0.as_str();
    if name == CLUSTER_METADATA {
        return Err(Refusal::new(ResponseError::InvalidRequest, format!("Creation of internal topic {name} is prohibited.")));
    }
    names::validate(name)?;
    if view.catalog.topic(name).is_some() {
        return Err(Refusal::new(ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    if view.catalog.is_deleting(name) {
        return Err(Refusal::new(ResponseError::TopicAlreadyExists, format!("Topic '{name}' is still being deleted; try again.")));
    }
    if let Some(other) = names::collision(view.catalog, name) {
        return Err(collides(name, other));
    }
    let given = topic.configs.iter().map(|config| (config.name.as_str(), config.value.as_ref().map(|value| value.as_str())));
    let configs = creation_configs(given)?;
    let partitions = if topic.assignments.is_empty() { automatic(view, topic, numbers)? } else { manual(view, topic, numbers)? };
    Ok(Change::TopicCreated { name: name.to_owned(), id: new_id(), internal: false, configs, partitions })
}

/// The configs of a new topic.
///
/// # Errors
/// INVALID_CONFIG, in Kafka's words.
pub fn creation_configs<'a>(given: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Result<Configs, Refusal> {
    let refuse = |why: String| Refusal::new(ResponseError::InvalidConfig, why);
    let mut configs = Configs::new();
    for (name, value) in given {
        let value = value.ok_or_else(|| refuse(format!("Null value not supported for topic configs: {name}")))?;
        bounded(name, value)?;
        configs.insert(name.to_owned(), value.to_owned());
    }
    topic_configs::validate(&configs).map_err(refuse)?;
    Ok(configs)
}

/// Names and values of settings have bounds of their own.
pub(super) fn bounded(name: &str, value: &str) -> Result<(), Refusal> {
    let name_max = 255;
    if name.len() > name_max || value.len() > CONFIG_VALUE_BYTES_MAX {
        let why = format!("A config's name may have {name_max} bytes, its value {CONFIG_VALUE_BYTES_MAX}.");
        return Err(Refusal::new(ResponseError::InvalidConfig, why));
    }
    Ok(())
}

fn automatic(view: View<'_>, topic: &CreatableTopic, numbers: &mut Numbers) -> Result<Vec<Placed>, Refusal> {
    let (factor, count) = (topic.replication_factor, topic.num_partitions);
    if factor < -1 || factor == 0 {
        let why = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(Refusal::new(ResponseError::InvalidReplicationFactor, why));
    }
    if count < -1 || count == 0 {
        return Err(Refusal::new(ResponseError::InvalidPartitions, "Number of partitions was set to an invalid non-positive value."));
    }
    let cores = view.cores;
    if usize::try_from(factor).is_ok_and(|factor| factor > cores) {
        return Err(Refusal::new(
            ResponseError::InvalidReplicationFactor,
            format!(
                "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because \
                 only {cores} broker(s) are registered. Thalweg keeps one replica on one machine: use replication factor 1 or -1."
            ),
        ));
    }
    if factor > 1 {
        tracing::info!("topic {}: replication factor {factor} was asked for; there is one replica on one machine", topic.name.0.as_str());
    }
    let count = if count == -1 { view.settings.num_partitions.max(1) } else { count } as usize;
    let name = topic.name.0.as_str();
    Ok(numbers.take(count)?.enumerate().map(|(index, id)| (id, placement::rule(name, index, cores) as u16, None)).collect())
}

fn manual(view: View<'_>, topic: &CreatableTopic, numbers: &mut Numbers) -> Result<Vec<Placed>, Refusal> {
    let invalid =
        |why: &str| Refusal::new(ResponseError::InvalidRequest, format!("A manual partition assignment was specified, but {why}"));
    if topic.replication_factor != -1 {
        return Err(invalid("replication factor was not set to -1."));
    }
    if topic.num_partitions != -1 {
        return Err(invalid("numPartitions was not set to -1."));
    }
    let refuse = |why: String| Refusal::new(ResponseError::InvalidReplicaAssignment, why);
    let mut pins = BTreeMap::new();
    let mut replicas = None;
    for CreatableReplicaAssignment { partition_index, broker_ids, .. } in &topic.assignments {
        if pins.contains_key(partition_index) {
            return Err(refuse(format!("Found multiple manual partition assignments for partition {partition_index}")));
        }
        pins.insert(*partition_index, assigned(broker_ids.iter().map(|id| id.0), &mut replicas, view.cores)?);
    }
    if !pins.keys().copied().eq(0..pins.len() as i32) {
        return Err(refuse("partitions should be a consecutive 0-based integer sequence".into()));
    }
    Ok(numbers.take(pins.len())?.zip(pins.into_values()).map(|(id, core)| (id, core, Some(core))).collect())
}

/// The core of a manual assignment: its first replica, the preferred leader.
fn assigned(brokers: impl Iterator<Item = i32>, replicas: &mut Option<usize>, cores: usize) -> Result<u16, Refusal> {
    let refuse =
        |why: String| Refusal::new(ResponseError::InvalidReplicaAssignment, format!("The manual partition assignment includes {why}"));
    let brokers: Vec<i32> = brokers.collect();
    let first = *brokers.first().ok_or_else(|| refuse("an empty replica list.".into()))?;
    let mut sorted = brokers.clone();
    sorted.sort_unstable();
    for (index, broker) in sorted.iter().enumerate() {
        if !usize::try_from(*broker).is_ok_and(|broker| broker < cores) {
            return Err(refuse(format!("broker {broker}, but no such broker is registered.")));
        }
        if index > 0 && sorted[index - 1] == *broker {
            return Err(refuse(format!("the broker {broker} more than once.")));
        }
    }
    match replicas.replace(brokers.len()) {
        Some(before) if before != brokers.len() => Err(refuse(format!(
            "a partition with {} replica(s), but this is not consistent with previous partitions, which have {before} replica(s).",
            brokers.len()
        ))),
        _ => Ok(first as u16),
    }
}

/// What each topic of a CreatePartitions request leads to, in the request's order. Duplicate names appear once.
#[must_use]
pub fn create_partitions(view: View<'_>, topics: &[CreatePartitionsTopic]) -> Vec<(String, Result<Change, Refusal>)> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for topic in topics {
        *counts.entry(topic.name.0.as_str()).or_default() += 1;
    }
    let mut numbers = Numbers::of(view.catalog);
    let mut seen = BTreeSet::new();
    let first_of_name = topics.iter().filter(|topic| seen.insert(topic.name.0.as_str()));
    first_of_name
        .map(|topic| {
            let name = topic.name.0.as_str();
            let decided = if counts[name] > 1 {
                Err(Refusal::new(ResponseError::InvalidRequest, "Duplicate topic name."))
            } else {
                more_partitions(view, topic, &mut numbers)
            };
            (name.to_owned(), decided)
        })
        .collect()
}

fn more_partitions(view: View<'_>, request: &CreatePartitionsTopic, numbers: &mut Numbers) -> Result<Change, Refusal> {
    let name = request.name.0.as_str();
    let topic = view.catalog.topic(name).ok_or_else(Refusal::unknown_topic)?;
    let now = topic.partitions.len();
    let refuse = |why: String| Err(Refusal::new(ResponseError::InvalidPartitions, why));
    if topic.internal {
        return refuse(format!("The partitions of the internal topic {name} can't be changed: groups are spread over {now} of them."));
    }
    let wanted = usize::try_from(request.count).unwrap_or(0);
    if wanted == now {
        return refuse(format!("Topic already has {now} partition(s)."));
    }
    if wanted < now {
        return refuse(format!("The topic {name} currently has {now} partition(s); {} would not be an increase.", request.count));
    }
    let additional = wanted - now;
    let ids = numbers.take(additional)?;
    let partitions = match &request.assignments {
        None => ids.zip(now..).map(|(id, index)| (id, placement::rule(name, index, view.cores) as u16, None)).collect(),
        Some(assignments) if assignments.len() != additional => {
            let why = format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, why));
        }
        Some(assignments) => {
            let mut replicas = None;
            let cores = assignments
                .iter()
                .map(|assignment| assigned(assignment.broker_ids.iter().map(|id| id.0), &mut replicas, view.cores))
                .collect::<Result<Vec<_>, _>>()?;
            ids.zip(cores).map(|(id, core)| (id, core, Some(core))).collect()
        }
    };
    Ok(Change::PartitionsAdded { id: topic.id, first: now as u32, partitions })
}
