//! Metadata: the cores as nodes, topics, and who leads which partition. Asking for a topic may create it.

use super::RequestContext;
use crate::{
    catalog,
    controller::{names, topics},
    core::Core,
};
use kafka_protocol::{
    ResponseError,
    messages::{
        BrokerId, MetadataRequest, MetadataResponse, TopicName,
        metadata_request::MetadataRequestTopic,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::StrBytes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};
use uuid::Uuid;

/// What everybody may do with a topic, as bits of Kafka's AclOperation: read, write, create, delete, alter, describe,
/// describe and alter configs.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// The same for the cluster: create, alter, describe, cluster action, describe and alter configs, idempotent write.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;
/// Operations that were not asked for.
const NOT_ASKED: i32 = i32::MIN;

/// Answers with the nodes and the topics that were asked for.
pub async fn handle(core: &Rc<Core>, context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let version = context.version;
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { NOT_ASKED };
    // In version 0 an empty list means all topics; later null does.
    let asked = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    let mut topics: Vec<MetadataResponseTopic> = match asked {
        None => core.catalog.borrow().topics().map(|found| describe(core, found)).collect(),
        Some(asked) => {
            let may_create = core.settings.auto_create_topics && (version < 4 || request.allow_auto_topic_creation);
            let refused = if may_create { create_missing(core, context, &asked).await } else { BTreeMap::new() };
            distinct(asked).map(|topic| find(core, version, topic, &refused)).collect()
        }
    };
    for topic in &mut topics {
        topic.topic_authorized_operations = operations;
        if version < 10 {
            topic.topic_id = Uuid::nil();
        }
    }
    let brokers = core.settings.nodes.iter().enumerate().map(|(node, reached)| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(node as i32))
            .with_host(StrBytes::from_string(reached.host.clone()))
            .with_port(i32::from(reached.port))
    });
    let mut response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(core.catalog.borrow().cluster_id())))
        .with_controller_id(BrokerId(0))
        .with_topics(topics);
    if request.include_cluster_authorized_operations && (8..=10).contains(&version) {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// Each topic once, as in Kafka: a name costs a few bytes, its partitions thousands.
fn distinct(asked: Vec<MetadataRequestTopic>) -> impl Iterator<Item = MetadataRequestTopic> {
    let mut seen = BTreeSet::new();
    asked.into_iter().filter(move |topic| {
        // The id counts if there is no name.
        let id = if topic.name.is_none() { topic.topic_id } else { Uuid::nil() };
        seen.insert((topic.name.clone(), id))
    })
}

/// Creates the topics that don't exist, all in one. Returns why some could not be.
async fn create_missing(core: &Rc<Core>, context: &RequestContext, asked: &[MetadataRequestTopic]) -> BTreeMap<String, ResponseError> {
    let missing: BTreeSet<String> = {
        let catalog = core.catalog.borrow();
        let names = asked.iter().filter_map(|topic| topic.name.as_ref());
        names.filter(|name| catalog.topic(name).is_none()).map(|name| name.to_string()).collect()
    };
    if missing.is_empty() {
        return BTreeMap::new();
    }
    let outcomes = topics::auto_create(core, missing.into_iter().collect(), context.asker()).await;
    outcomes.into_iter().filter_map(|(name, outcome)| Some((name, outcome.err()?.code))).collect()
}

fn find(core: &Core, version: i16, asked: MetadataRequestTopic, refused: &BTreeMap<String, ResponseError>) -> MetadataResponseTopic {
    let catalog = core.catalog.borrow();
    let Some(name) = asked.name else {
        let found = catalog.topic_by_id(&asked.topic_id).map(|found| describe(core, found));
        return found.unwrap_or_else(|| {
            // Null names exist from version 12 on.
            let name = (version < 12).then(TopicName::default);
            failed(ResponseError::UnknownTopicId).with_topic_id(asked.topic_id).with_name(name)
        });
    };
    catalog.topic(&name).map(|found| describe(core, found)).unwrap_or_else(|| {
        let error = refused.get(name.as_str()).copied().unwrap_or(match names::validate(&name) {
            Ok(()) => ResponseError::UnknownTopicOrPartition,
            Err(refusal) => refusal.code,
        });
        failed(error).with_name(Some(name))
    })
}

fn failed(error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(error.code())
}

fn describe(core: &Core, topic: &catalog::Topic) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().enumerate().map(|(index, partition)| {
        let node = BrokerId(partition.core as i32);
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(node)
            .with_leader_epoch(core.leader_epoch(partition))
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_is_internal(topic.internal)
        .with_partitions(partitions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_described_once_however_often_it_is_named() {
        let named = |name: &'static str| MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(name))));
        let by_id = |id| MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(id));
        let asked = vec![named("b"), named("a"), by_id(2), named("b"), named("b").with_topic_id(Uuid::from_u128(1)), by_id(2), by_id(1)];
        assert_eq!(distinct(asked).collect::<Vec<_>>(), [named("b"), named("a"), by_id(2), by_id(1)]);
    }
}
