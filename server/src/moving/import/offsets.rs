//! Committed offsets of a Kafka's groups, written into the target's `__consumer_offsets`.

use super::target::Running;
use crate::{
    catalog::CONSUMER_OFFSETS,
    controller::now_ms,
    groups::{
        classic::Snapshot,
        coordinator::partition_of,
        records::{Key, encode_group, encode_offset},
        replay::Replay,
    },
    moving::groups::Groups,
};
use anyhow::{Context, Result};
use engine::{batch::BatchBuilder, disk::UringDisk, log::Log, partition::PartitionId};
use std::collections::BTreeMap;

/// Records beyond so many bytes go into the next batch.
const BATCH_BYTES: usize = 256 << 10;
/// What is read at once of what is there already, in bytes.
const READ_BYTES: usize = 1 << 20;

/// Writes all of them, durably. A group that the target has already keeps what it has; the offsets are added to it.
pub(super) async fn write(running: &Running, groups: &Groups) -> Result<()> {
    let topic = running.catalog.topic(CONSUMER_OFFSETS).context("a start makes __consumer_offsets")?;
    let mut of_partitions: BTreeMap<usize, Vec<&String>> = BTreeMap::new();
    for group in groups.offsets.keys() {
        of_partitions.entry(partition_of(group, topic.partitions.len())).or_default().push(group);
    }
    for (index, names) in of_partitions {
        let partition = &topic.partitions[index];
        let log = running.log(partition.core);
        log.ready(&[partition.id]).await?;
        let (known, _) = read(running, log, partition.id).await?.finish();
        let mut last = None;
        let mut batch = BatchBuilder::new();
        for group in names {
            let wall_ms = now_ms();
            let metadata = groups.metadata.get(group).filter(|_| !known.contains_key(group));
            if let Some(metadata) = metadata {
                batch.push(wall_ms, Some(&Key::Group(group.clone()).encode()), Some(&encode_group(&emptied(metadata, wall_ms))), &[]);
            }
            for (topic, partition_index, committed) in groups.offsets[group].iter() {
                let mut committed = committed.clone();
                // Without a group that says since when it is empty, offsets expire from their commit on.
                committed.commit_ms = if metadata.is_some() { committed.commit_ms } else { committed.commit_ms.max(wall_ms) };
                let key = Key::Offset { group: group.clone(), topic: topic.to_owned(), partition: partition_index };
                batch.push(wall_ms, Some(&key.encode()), Some(&encode_offset(&committed)), &[]);
                if batch.bytes() >= BATCH_BYTES {
                    last = Some(append(log, partition.id, std::mem::replace(&mut batch, BatchBuilder::new())).await?);
                }
            }
        }
        if !batch.is_empty() {
            last = Some(append(log, partition.id, batch).await?);
        }
        if let Some(last) = last {
            log.durable(partition.id, last).await?;
        }
    }
    Ok(())
}

/// The group without its members, which are gone. Its offsets expire from now on, as if it had just become empty.
fn emptied(group: &Snapshot, wall_ms: i64) -> Snapshot {
    Snapshot { protocol: None, leader: None, members: Vec::new(), state_since_ms: wall_ms, ..group.clone() }
}

async fn append(log: &Log<UringDisk>, id: PartitionId, batch: BatchBuilder) -> Result<i64> {
    let batch = batch.build();
    log.admit(batch.len()).await;
    Ok(log.append(id, &batch, now_ms())?.last_offset)
}

async fn read(running: &Running, log: &Log<UringDisk>, id: PartitionId) -> Result<Replay> {
    let mut replay = Replay::default();
    let offsets = log.offsets(id).context("a partition of __consumer_offsets is not there")?;
    let mut at = offsets.log_start;
    while at < offsets.high_watermark {
        let plan = log.read(id, at, READ_BYTES, true, false).await?;
        let bytes = plan.collect(&running.disk).await?;
        at = replay.apply(&bytes, at)?.max(at + 1);
    }
    Ok(replay)
}
