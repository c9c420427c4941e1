//! OffsetCommit, OffsetFetch, OffsetDelete.

use super::{kept, kept_option, text};
use crate::{
    api::RequestContext,
    core::Core,
    groups::coordinator::{self, Commit, CommitBy, Fetched},
};
use kafka_protocol::{
    ResponseError,
    messages::{
        GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
        OffsetFetchResponse, TopicName,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
            OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};
use uuid::Uuid;

/// From here on a generation of an unknown group is GROUP_ID_NOT_FOUND.
const MISSING_GROUP_NAMED_SINCE: i16 = 9;
/// From here on OffsetFetch asks for several groups (KIP-709).
const FETCH_BATCHED_SINCE: i16 = 8;
/// From here on OffsetFetch has an error of its own beside those of partitions.
const FETCH_ERROR_SINCE: i16 = 2;

/// A topic's place in an answer: for each partition the number of what is done for it, or none if it doesn't exist.
type Place = (TopicName, Vec<(i32, Option<usize>)>);

/// The id of a topic that has such a partition.
fn topic_id(core: &Core, topic: &str, partition: i32) -> Option<Uuid> {
    let catalog = core.catalog.borrow();
    let topic = catalog.topic(topic)?;
    topic.partitions.get(usize::try_from(partition).ok()?).map(|_| topic.id)
}

/// OffsetCommit, version 2 to 9: durable when it's answered.
pub async fn offset_commit(core: &Rc<Core>, context: &RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut commits = Vec::new();
    let mut places: Vec<Place> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let id = topic_id(core, topic.name.0.as_str(), partition.partition_index);
            partitions.push((partition.partition_index, id.map(|_| commits.len())));
            if let Some(topic_id) = id {
                commits.push(Commit {
                    topic: kept(&topic.name.0),
                    topic_id,
                    partition: partition.partition_index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: kept_option(&partition.committed_metadata).unwrap_or_default(),
                });
            }
        }
        places.push((topic.name.clone(), partitions));
    }
    let by = CommitBy {
        group: kept(&request.group_id.0),
        member_id: kept(&request.member_id),
        instance: kept_option(&request.group_instance_id),
        generation: request.generation_id_or_member_epoch,
        names_missing_group: context.version >= MISSING_GROUP_NAMED_SINCE,
    };
    drop(request);
    let results = if commits.is_empty() { Vec::new() } else { coordinator::commit(core, by, commits).await };
    let code = |place: Option<usize>| match place {
        Some(at) => results[at].err().map_or(0, |error| error.code()),
        None => ResponseError::UnknownTopicOrPartition.code(),
    };
    let topics = places.into_iter().map(|(name, partitions)| {
        let partition = |(index, place)| OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code(place));
        OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.into_iter().map(partition).collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// OffsetFetch, version 1 to 9. `require_stable` has no meaning while there are no transactions.
pub async fn offset_fetch(core: &Rc<Core>, context: &RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if context.version < FETCH_BATCHED_SINCE {
        return fetch_one(core, context.version, request).await;
    }
    let mut groups = Vec::new();
    let mut seen = BTreeSet::new();
    for group in request.groups {
        if !seen.insert(group.group_id.clone()) {
            continue;
        }
        let topics = group.topics.map(|topics| distinct(topics.into_iter().map(|topic| (topic.name, topic.partition_indexes))));
        let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
        groups.push(match coordinator::fetch(core, group.group_id.0.as_str(), topics).await {
            Ok(fetched) => answer.with_topics(fetched.into_iter().map(batched_topic).collect()),
            Err(error) => answer.with_error_code(error.code()),
        });
    }
    OffsetFetchResponse::default().with_groups(groups)
}

/// Each partition once: its index costs 4 bytes, the metadata of its offset up to `offset.metadata.max.bytes`.
fn distinct(asked: impl Iterator<Item = (TopicName, Vec<i32>)>) -> Vec<(String, Vec<i32>)> {
    let mut places = BTreeMap::new();
    let mut topics: Vec<(String, Vec<i32>)> = Vec::new();
    let mut seen: Vec<BTreeSet<i32>> = Vec::new();
    for (name, partitions) in asked {
        let at = *places.entry(name).or_insert_with_key(|name| {
            topics.push((kept(&name.0), Vec::new()));
            seen.push(BTreeSet::new());
            topics.len() - 1
        });
        topics[at].1.extend(partitions.into_iter().filter(|partition| seen[at].insert(*partition)));
    }
    topics
}

fn batched_topic((name, offsets): (String, Vec<(i32, Fetched)>)) -> OffsetFetchResponseTopics {
    let partition = |(index, fetched): (i32, Fetched)| {
        let (offset, epoch, metadata) = told(fetched);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(Some(metadata))
    };
    OffsetFetchResponseTopics::default().with_name(TopicName(text(name))).with_partitions(offsets.into_iter().map(partition).collect())
}

/// Offset, leader epoch and metadata: -1, -1 and nothing if nothing was committed.
fn told(fetched: Fetched) -> (i64, i32, StrBytes) {
    fetched.map_or((-1, -1, StrBytes::default()), |committed| (committed.offset, committed.leader_epoch, text(committed.metadata)))
}

async fn fetch_one(core: &Rc<Core>, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let asked: Option<Vec<(String, Vec<i32>)>> = request
        .topics
        .map(|topics| distinct(topics.into_iter().map(|topic| (topic.name, topic.partition_indexes))))
        // Version 1 has no word for "all": nothing is nothing.
        .or_else(|| (version < FETCH_ERROR_SINCE).then(Vec::new));
    let GroupId(group) = request.group_id;
    let (error, fetched) = match coordinator::fetch(core, group.as_str(), asked.clone()).await {
        Ok(fetched) => (0, fetched),
        Err(error) if version >= FETCH_ERROR_SINCE => return OffsetFetchResponse::default().with_error_code(error.code()),
        Err(error) => {
            let nothing = |(topic, partitions): (String, Vec<i32>)| (topic, partitions.into_iter().map(|index| (index, None)).collect());
            (error.code(), asked.unwrap_or_default().into_iter().map(nothing).collect())
        }
    };
    let topics = fetched.into_iter().map(|(name, offsets)| {
        let partition = |(index, fetched): (i32, Fetched)| {
            let (offset, epoch, metadata) = told(fetched);
            let partition = OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_metadata(Some(metadata))
                .with_error_code(error);
            partition.with_committed_leader_epoch(epoch)
        };
        OffsetFetchResponseTopic::default().with_name(TopicName(text(name))).with_partitions(offsets.into_iter().map(partition).collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// OffsetDelete, version 0: durable when it's answered.
pub async fn offset_delete(core: &Rc<Core>, _: &RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut offsets = Vec::new();
    let mut places: Vec<Place> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let exists = topic_id(core, topic.name.0.as_str(), partition.partition_index).is_some();
            partitions.push((partition.partition_index, exists.then_some(offsets.len())));
            if exists {
                offsets.push((kept(&topic.name.0), partition.partition_index));
            }
        }
        places.push((topic.name.clone(), partitions));
    }
    let results = match coordinator::delete_offsets(core, request.group_id.0.as_str(), offsets).await {
        Ok(results) => results,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error.code()),
    };
    let code = |place: Option<usize>| match place {
        Some(at) => results[at].err().map_or(0, |error| error.code()),
        None => ResponseError::UnknownTopicOrPartition.code(),
    };
    let topics = places.into_iter().map(|(name, partitions)| {
        let partition = |(index, place)| OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code(place));
        OffsetDeleteResponseTopic::default().with_name(name).with_partitions(partitions.into_iter().map(partition).collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_told_once_however_often_it_is_asked_for() {
        let topic = |name: &'static str, partitions: &[i32]| (TopicName(StrBytes::from_static_str(name)), partitions.to_vec());
        let asked = [topic("b", &[1, 0, 1]), topic("a", &[]), topic("b", &[0, 2, 2]), topic("a", &[7])];
        assert_eq!(distinct(asked.into_iter()), [("b".to_owned(), vec![1, 0, 2]), ("a".to_owned(), vec![7])]);
    }
}
