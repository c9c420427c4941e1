//! What the catalog says of a partition: who it is, where it lives, how it behaves.

use crate::{
    batch::{DECOMPRESSED_BYTES_MAX, Rules},
    ids::PartitionId,
    retention::Retention,
};
use std::path::PathBuf;
use uuid::Uuid;

/// Where a record's timestamp comes from (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's clock.
    CreateTime,
    /// The broker's clock: the batch's maximum timestamp and CRC are rewritten on append.
    LogAppendTime,
}

/// The topic settings that the engine acts on. Names and defaults are Kafka's.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionConfig {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `max.message.bytes`: the largest batch, header included.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` contains `compact`: only the last record of each key is kept. Every record needs a key, so compressed
    /// batches are walked too.
    pub compacted: bool,
    /// `cleanup.policy` contains `delete`, with its bounds; `None` if records stay whatever their age.
    pub retention: Option<Retention>,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long a tombstone stays after it was first compacted.
    pub delete_retention_ms: i64,
    /// Decompress and walk every batch, as Kafka does (`validate = "strict"` of the broker).
    pub strict: bool,
}

impl Default for PartitionConfig {
    fn default() -> Self {
        PartitionConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
            // Whoever isn't told otherwise keeps everything.
            retention: None,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 3_600_000,
            strict: false,
        }
    }
}

impl PartitionConfig {
    /// After how many ms a segment is closed although it is not full: compaction takes only closed ones, so the longest
    /// lag bounds it too (Kafka: `LogConfig.maxSegmentMs`).
    #[must_use]
    pub fn roll_ms(&self) -> i64 {
        if self.compacted { self.segment_ms.min(self.max_compaction_lag_ms) } else { self.segment_ms }
    }

    /// What it asks of a produced batch at this moment of the broker's clock.
    #[must_use]
    pub fn rules(&self, now_ms: i64) -> Rules {
        Rules {
            max_message_bytes: self.max_message_bytes,
            segment_bytes: self.segment_bytes,
            log_append_time: self.timestamp_type == TimestampType::LogAppendTime,
            timestamp_before_max_ms: self.timestamp_before_max_ms,
            timestamp_after_max_ms: self.timestamp_after_max_ms,
            compacted: self.compacted,
            strict: self.strict,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            now_ms,
        }
    }
}

/// One partition as the catalog describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionSpec {
    /// Its number in the catalog.
    pub id: PartitionId,
    /// The topic's id, written to `partition.metadata`; a directory with another id is not this partition.
    pub topic_id: Uuid,
    /// Its directory relative to the data directory: `orders-0`.
    pub directory: PathBuf,
    /// The core that owns it.
    pub core: usize,
    /// The leader epoch of its new batches if it is created while running; a start gives its own to all.
    pub leader_epoch: i32,
    /// The broker's own (catalog, `__consumer_offsets`): it may use the ballast of a full disk.
    pub internal: bool,
    /// The topic's settings.
    pub config: PartitionConfig,
}
