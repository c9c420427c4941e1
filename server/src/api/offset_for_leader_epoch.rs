//! OffsetForLeaderEpoch: where a leader epoch ends (KIP-101, KIP-279), by which consumers notice that a log was cut.

use super::{
    RequestContext,
    locate::{TopicKey, check_epoch},
};
use crate::{core::Core, errors};
use kafka_protocol::{
    ResponseError,
    messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_request::OffsetForLeaderPartition,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};
use std::rc::Rc;

/// Answers each partition on its own.
pub async fn handle(core: &Rc<Core>, _context: &RequestContext, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let answer = EpochEndOffset::default().with_partition(partition.partition);
            partitions.push(match find(core, &topic.topic, partition).await {
                Ok((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end),
                Err(error) => answer.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
            });
        }
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

async fn find(core: &Rc<Core>, topic: &str, request: &OffsetForLeaderPartition) -> Result<(i32, i64), ResponseError> {
    let id = core.locate(TopicKey::Name(topic), request.partition).here()?;
    core.log.ready(&[id]).await.map_err(|error| errors::of_read(&error))?;
    let offsets = core.log.offsets(id).ok_or(ResponseError::NotLeaderOrFollower)?;
    check_epoch(request.current_leader_epoch, offsets.leader_epoch)?;
    // An epoch above the partition's own has no end (Kafka's UNDEFINED_EPOCH_OFFSET).
    if request.leader_epoch > offsets.leader_epoch {
        return Ok((-1, -1));
    }
    Ok(core.log.epoch_end(id, request.leader_epoch).unwrap_or((-1, -1)))
}
