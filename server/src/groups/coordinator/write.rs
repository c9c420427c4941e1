//! Records on their way into `__consumer_offsets`.

use super::{OFFSETS_TOPIC, Shard, ShardIndex, load};
use crate::{
    core::Core,
    groups::{
        classic::Snapshot,
        records::{Committed, Key, encode_group, encode_offset},
    },
};
use engine::{batch::BatchBuilder, log::AppendError};
use kafka_protocol::ResponseError;
use std::rc::Rc;

/// Records beyond this many bytes go into the next batch, so that a batch stays below `max.message.bytes`.
const BATCH_BYTES: usize = 256 << 10;

/// A record: key and value, or a tombstone.
pub(super) type Record = (Vec<u8>, Option<Vec<u8>>);

/// A group's metadata, or the end of it.
pub(super) fn group_record(group: &str, snapshot: Option<&Snapshot>) -> Record {
    (Key::Group(group.to_owned()).encode(), snapshot.map(encode_group))
}

/// A committed offset, or the end of it.
pub(super) fn offset_record(group: &str, topic: &str, partition: i32, committed: Option<&Committed>) -> Record {
    (Key::Offset { group: group.to_owned(), topic: topic.to_owned(), partition }.encode(), committed.map(encode_offset))
}

/// Appends records in as few batches as they need. Returns how many were appended, and the last offset: an error means
/// that the rest was not. Nothing is durable yet; a task begins to wait for that.
pub(super) fn append(
    core: &Rc<Core>,
    index: ShardIndex,
    shard: &mut Shard,
    records: impl IntoIterator<Item = Record>,
    wall_ms: i64,
) -> (usize, Result<Option<i64>, AppendError>) {
    let mut done = 0;
    let mut last = None;
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let mut batch = BatchBuilder::new();
        while batch.is_empty() || batch.bytes() < BATCH_BYTES {
            let Some((key, value)) = records.next() else { break };
            batch.push(wall_ms, Some(&key), value.as_deref(), &[]);
        }
        let count = batch.len();
        match core.log.append(shard.id, &batch.build(), wall_ms) {
            Ok(appended) => {
                done += count;
                shard.appended = appended.last_offset;
                last = Some(appended.last_offset);
            }
            Err(error) => {
                tracing::warn!("{count} records of {OFFSETS_TOPIC}-{index} can't be written: {error}");
                watch(core, index, shard);
                return (done, Err(error));
            }
        }
    }
    watch(core, index, shard);
    (done, Ok(last))
}

/// What a client is told about a record that was not written.
pub(super) fn answer_to(error: &AppendError) -> ResponseError {
    match error {
        AppendError::TooLarge { .. } | AppendError::LargerThanSegment { .. } => ResponseError::InvalidCommitOffsetSize,
        AppendError::UnknownPartition => ResponseError::NotCoordinator,
        _ => ResponseError::CoordinatorNotAvailable,
    }
}

/// Waits for the durability of what was appended, whoever else does: if it fails, memory is ahead of the log for good.
fn watch(core: &Rc<Core>, index: ShardIndex, shard: &mut Shard) {
    if std::mem::replace(&mut shard.watched, true) {
        return;
    }
    let core = Rc::clone(core);
    let id = shard.id;
    tokio::task::spawn_local(async move {
        loop {
            let Some(target) = core.groups.shards.borrow().get(&index).map(|shard| shard.appended) else { return };
            let durable = core.log.durable(id, target).await;
            let mut shards = core.groups.shards.borrow_mut();
            let Some(shard) = shards.get_mut(&index) else { return };
            if durable.is_err() {
                shard.watched = false;
                drop(shards);
                load::again(&core, index);
                return;
            }
            if shard.appended <= target {
                shard.watched = false;
                return;
            }
        }
    });
}
