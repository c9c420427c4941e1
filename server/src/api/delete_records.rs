//! DeleteRecords: raises the log start offset of partitions.

use super::{RequestContext, locate::TopicKey};
use crate::{asker::Asker, catalog::Topic, core::Core, errors};
use kafka_protocol::{
    ResponseError,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};
use std::rc::Rc;

/// The high watermark, as an offset to delete up to.
const UP_TO_HIGH_WATERMARK: i64 = -1;

/// Answers each partition on its own.
pub async fn handle(core: &Rc<Core>, context: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let asker = context.asker();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
            partitions.push(match delete(core, &asker, &topic.name, partition.partition_index, partition.offset).await {
                Ok(log_start) => answer.with_low_watermark(log_start),
                Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete(core: &Rc<Core>, asker: &Asker, topic: &str, partition: i32, before: i64) -> Result<i64, ResponseError> {
    let id = core.locate(TopicKey::Name(topic), partition).here()?;
    let is_kept = |topic: &Topic| topic.internal || !core.catalog.borrow().deletes(&topic.configs, &core.settings);
    if core.catalog.borrow().topic(topic).is_some_and(is_kept) {
        return Err(ResponseError::PolicyViolation);
    }
    core.log.ready(&[id]).await.map_err(|error| errors::of_read(&error))?;
    let offsets = core.log.offsets(id).ok_or(ResponseError::NotLeaderOrFollower)?;
    let before = match before {
        UP_TO_HIGH_WATERMARK => offsets.high_watermark,
        ..0 => return Err(ResponseError::OffsetOutOfRange),
        _ => before,
    };
    let log_start = core.log.delete_records(id, before).await.map_err(|error| errors::of_read(&error))?;
    if log_start > offsets.log_start {
        asker.has_deleted_records(topic, partition, offsets.log_start, log_start);
    }
    Ok(log_start)
}
