//! ListOffsets: the ends of partitions, and offsets by time.

use super::{
    RequestContext,
    locate::{TopicKey, check_epoch},
};
use crate::{core::Core, errors};
use engine::{log::TimeQuery, partition::PartitionId};
use kafka_protocol::{
    ResponseError,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_request::ListOffsetsPartition,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};
use std::rc::Rc;

/// The high watermark, or the last stable offset for `read_committed`.
pub const LATEST: i64 = -1;
/// The log start offset.
pub const EARLIEST: i64 = -2;
/// The record with the highest timestamp (KIP-734), from version 7.
pub const MAX_TIMESTAMP: i64 = -3;
/// The log start offset on this machine (KIP-405), from version 8.
pub const EARLIEST_LOCAL: i64 = -4;
/// The end of what is in remote storage, from version 9: there is none.
pub const LATEST_TIERED: i64 = -5;

/// What was found, as (timestamp, offset, leader epoch); -1 for what isn't known.
type Found = (i64, i64, i32);

/// Answers each partition on its own.
pub async fn handle(core: &Rc<Core>, context: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let committed = request.isolation_level == 1;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let answer = ListOffsetsPartitionResponse::default().with_partition_index(partition.partition_index);
            partitions.push(match find(core, context.version, &topic.name, partition, committed).await {
                Ok((timestamp, offset, epoch)) => {
                    let epoch = if context.version >= 4 { epoch } else { -1 };
                    answer.with_timestamp(timestamp).with_offset(offset).with_leader_epoch(epoch)
                }
                Err(error) => answer.with_error_code(error.code()).with_timestamp(-1).with_offset(-1),
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn find(core: &Rc<Core>, version: i16, topic: &str, request: &ListOffsetsPartition, committed: bool) -> Result<Found, ResponseError> {
    let id = core.locate(TopicKey::Name(topic), request.partition_index).here()?;
    core.log.ready(&[id]).await.map_err(|error| errors::of_read(&error))?;
    let offsets = core.log.offsets(id).ok_or(ResponseError::NotLeaderOrFollower)?;
    check_epoch(request.current_leader_epoch, offsets.leader_epoch)?;
    let supported = match request.timestamp {
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        other => other >= EARLIEST,
    };
    if !supported {
        return Err(ResponseError::UnsupportedVersion);
    }
    let query = match request.timestamp {
        LATEST if committed => return Ok((-1, offsets.last_stable, offsets.leader_epoch)),
        LATEST => return Ok((-1, offsets.high_watermark, offsets.leader_epoch)),
        EARLIEST | EARLIEST_LOCAL => return Ok((-1, offsets.log_start, epoch_of(core, id, offsets.log_start, offsets.leader_epoch))),
        LATEST_TIERED => return Ok((-1, -1, -1)),
        MAX_TIMESTAMP => TimeQuery::Max,
        timestamp => TimeQuery::AtOrAfter(timestamp),
    };
    let end = if committed { offsets.last_stable } else { offsets.high_watermark };
    let found = core.log.offset_for(id, query).await.map_err(|error| {
        core.read_failed(id, &error);
        errors::of_read(&error)
    })?;
    let found = found.filter(|(_, offset)| *offset < end);
    Ok(found.map_or((-1, -1, -1), |(timestamp, offset)| (timestamp, offset, epoch_of(core, id, offset, offsets.leader_epoch))))
}

/// The leader epoch of the record at an offset; -1 if there is none (yet). `current` is the partition's own.
fn epoch_of(core: &Core, id: PartitionId, offset: i64, current: i32) -> i32 {
    first_epoch(current, |epoch| core.log.epoch_end(id, epoch).is_none_or(|(_, end)| end > offset))
        .filter(|epoch| core.log.epoch_end(id, *epoch).is_some())
        .unwrap_or(-1)
}

/// The first epoch up to `current` that ends behind something; all above it do too.
fn first_epoch(current: i32, ends_behind: impl Fn(i32) -> bool) -> Option<i32> {
    let (mut low, mut high) = (0, i64::from(current) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if ends_behind(middle as i32) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    (low <= i64::from(current)).then_some(low as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_epoch_that_reaches_behind_an_offset_is_found() {
        // Epochs 3, 4 and 9 that end at 10, 20 and 30; those between end where the one below does.
        let end = |epoch| match epoch {
            ..3 => 0,
            3 => 10,
            4..9 => 20,
            _ => 30,
        };
        let of = |offset| first_epoch(9, |epoch| end(epoch) > offset);
        assert_eq!([0, 9, 10, 19, 20, 29].map(of), [Some(3), Some(3), Some(4), Some(4), Some(9), Some(9)]);
        assert_eq!(of(30), None);
        assert_eq!(first_epoch(i32::MAX, |epoch| epoch == i32::MAX), Some(i32::MAX));
        assert_eq!(first_epoch(-1, |_| true), None);
    }
}
