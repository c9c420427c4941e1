//! DescribeLogDirs: what this core's partitions take on disk, and how much is left.

use super::RequestContext;
use crate::core::Core;
use kafka_protocol::{
    ResponseError,
    messages::{
        DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName,
        describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
    },
    protocol::StrBytes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Partitions whose sizes are asked for at once.
const READY_AT_ONCE: usize = 64;

/// Answers for the partitions of this core: clients ask every node.
pub async fn describe(core: &Rc<Core>, _context: &RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let asked: Option<BTreeMap<String, BTreeSet<i32>>> = request.topics.map(|topics| {
        let mut asked = BTreeMap::<String, BTreeSet<i32>>::new();
        for topic in topics {
            asked.entry(topic.topic.0.to_string()).or_default().extend(topic.partitions);
        }
        asked
    });
    let wanted = |topic: &str, partition: i32| {
        asked.as_ref().is_none_or(|asked| asked.get(topic).is_some_and(|partitions| partitions.contains(&partition)))
    };
    let mine: Vec<(String, Vec<_>)> = {
        let catalog = core.catalog.borrow();
        let of_topic = |topic: &crate::catalog::Topic| {
            let partitions =
                (0..).zip(&topic.partitions).filter(|(index, partition)| partition.core == core.index && wanted(&topic.name, *index));
            (topic.name.clone(), partitions.map(|(index, partition)| (index, partition.id)).collect())
        };
        catalog.topics().map(of_topic).filter(|(_, partitions): &(_, Vec<_>)| !partitions.is_empty()).collect()
    };
    let mut topics = Vec::with_capacity(mine.len());
    for (name, partitions) in mine {
        let mut described = Vec::with_capacity(partitions.len());
        for some in partitions.chunks(READY_AT_ONCE) {
            let ids: Vec<_> = some.iter().map(|(_, id)| *id).collect();
            // One that can't be opened has the size that is known of it.
            let _ = core.log.ready(&ids).await;
            described.extend(some.iter().map(|(index, id)| {
                let bytes = core.log.size(*id).unwrap_or(0);
                DescribeLogDirsPartition::default().with_partition_index(*index).with_partition_size(bytes as i64).with_offset_lag(0)
            }));
        }
        topics.push(DescribeLogDirsTopic::default().with_name(TopicName(StrBytes::from_string(name))).with_partitions(described));
    }
    let path = std::path::absolute(&core.settings.data_dir).unwrap_or_else(|_| core.settings.data_dir.clone());
    let (total, usable) = space(&path);
    let result = DescribeLogDirsResult::default()
        .with_error_code(if total < 0 { ResponseError::KafkaStorageError.code() } else { 0 })
        .with_log_dir(StrBytes::from_string(path.display().to_string()))
        .with_topics(topics)
        .with_total_bytes(total)
        .with_usable_bytes(usable);
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// The filesystem's size and what ordinary users may still take of it, in bytes; -1 if it does not say.
fn space(path: &std::path::Path) -> (i64, i64) {
    rustix::fs::statvfs(path).map_or((-1, -1), |stat| {
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
        (bytes(stat.f_blocks), bytes(stat.f_bavail))
    })
}
