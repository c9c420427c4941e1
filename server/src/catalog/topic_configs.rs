//! The settings of a topic, with Kafka 4.3's names, types, defaults and bounds.

use super::settings::{
    Kind::{Boolean, Double, Int, List, Long, String},
    Rule::{self, Any, AtLeast, Between, False, Fraction, GzipLevel, OneOf, Replicas},
    Setting,
};

/// The largest number of Kafka's LONG.
pub const LONG_MAX: &str = "9223372036854775807";

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// Words of `compression.type`.
pub const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

const NO_TIERS: &str = "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.";

const fn setting(
    name: &'static str,
    kind: super::settings::Kind,
    default: &'static str,
    rule: Rule,
    synonyms: &'static [(&'static str, i64)],
    doc: &'static str,
) -> Setting {
    Setting { name, kind, default: Some(default), rule, synonyms, dynamic: true, doc }
}

/// Every setting of a topic, by name.
#[rustfmt::skip]
pub const ALL: &[Setting] = &[
    setting("cleanup.policy", List, "delete", OneOf(&["compact", "delete"]), &[("log.cleanup.policy", 1)],
        "What happens to old data: delete by age or size, compact by key, or both. An empty list keeps everything."),
    setting("compression.gzip.level", Int, "-1", GzipLevel, &[("compression.gzip.level", 1)],
        "Level for gzip when the broker compresses. Batches pass through as they came, so it has no effect with compression.type=producer."),
    setting("compression.lz4.level", Int, "9", Between(1, 17), &[("compression.lz4.level", 1)],
        "Level for lz4 when the broker compresses. Batches pass through as they came, so it has no effect with compression.type=producer."),
    setting("compression.type", String, "producer", OneOf(CODECS), &[("compression.type", 1)],
        "The codec of the topic's data. Batches are stored as the producer sent them."),
    setting("compression.zstd.level", Int, "3", Between(-131_072, 22), &[("compression.zstd.level", 1)],
        "Level for zstd when the broker compresses. Batches pass through as they came, so it has no effect with compression.type=producer."),
    setting("delete.retention.ms", Long, "86400000", AtLeast(0), &[("log.cleaner.delete.retention.ms", 1)],
        "How long, in ms, a tombstone of a compacted topic stays readable after it was compacted."),
    setting("file.delete.delay.ms", Long, "60000", AtLeast(0), &[("log.segment.delete.delay.ms", 1)],
        "How long Kafka waits, in ms, before it removes a deleted file. Files are removed at once here."),
    setting("flush.messages", Long, LONG_MAX, AtLeast(1), &[("log.flush.interval.messages", 1)],
        "After how many records Kafka flushes. Every record that is acked with acks=all is flushed here, whatever this says."),
    setting("flush.ms", Long, LONG_MAX, AtLeast(0), &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)],
        "After how many ms Kafka flushes. Every record that is acked with acks=all is flushed here, whatever this says."),
    setting("follower.replication.throttled.replicas", List, "", Replicas, &[],
        "Replicas whose replication is throttled on followers. There are none on one machine."),
    setting("index.interval.bytes", Int, "4096", AtLeast(0), &[("log.index.interval.bytes", 1)],
        "How many bytes of log lie between two index entries at least."),
    setting("leader.replication.throttled.replicas", List, "", Replicas, &[],
        "Replicas whose replication is throttled on leaders. There are none on one machine."),
    setting("local.retention.bytes", Long, "-2", AtLeast(-2), &[("log.local.retention.bytes", 1)],
        "Local bytes of a tiered topic. There is no tiered storage."),
    setting("local.retention.ms", Long, "-2", AtLeast(-2), &[("log.local.retention.ms", 1)],
        "Local age of a tiered topic in ms. There is no tiered storage."),
    setting("max.compaction.lag.ms", Long, LONG_MAX, AtLeast(1), &[("log.cleaner.max.compaction.lag.ms", 1)],
        "After how many ms a record of a compacted topic may no longer stay uncompacted."),
    setting("max.message.bytes", Int, "1048588", AtLeast(0), &[("message.max.bytes", 1)],
        "The largest record batch that is accepted, in bytes, as it was sent."),
    setting("message.timestamp.after.max.ms", Long, "3600000", AtLeast(0), &[("log.message.timestamp.after.max.ms", 1)],
        "How far, in ms, a record's CreateTime may lie ahead of the broker's clock."),
    setting("message.timestamp.before.max.ms", Long, LONG_MAX, AtLeast(0), &[("log.message.timestamp.before.max.ms", 1)],
        "How far, in ms, a record's CreateTime may lie behind the broker's clock."),
    setting("message.timestamp.type", String, "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), &[("log.message.timestamp.type", 1)],
        "Whose clock a record's timestamp is from: the producer's (CreateTime) or the broker's (LogAppendTime)."),
    setting("min.cleanable.dirty.ratio", Double, "0.5", Fraction, &[("log.cleaner.min.cleanable.ratio", 1)],
        "Which part of a compacted log must be uncompacted before compaction begins."),
    setting("min.compaction.lag.ms", Long, "0", AtLeast(0), &[("log.cleaner.min.compaction.lag.ms", 1)],
        "For how many ms a record of a compacted topic stays uncompacted at least."),
    setting("min.insync.replicas", Int, "1", AtLeast(1), &[("min.insync.replicas", 1)],
        "How many replicas must have a record that acks=all acks. There is one replica, and it is flushed: a higher value is taken for 1."),
    setting("preallocate", Boolean, "false", Any, &[("log.preallocate", 1)],
        "Whether Kafka preallocates segments. They are preallocated in steps here, whatever this says."),
    setting("remote.log.copy.disable", Boolean, "false", Any, &[],
        "Whether a tiered topic stops copying to the remote tier. There is no tiered storage."),
    setting("remote.log.delete.on.disable", Boolean, "false", Any, &[],
        "Whether remote data goes when tiering is switched off. There is no tiered storage."),
    setting("remote.storage.enable", Boolean, "false", False(NO_TIERS), &[],
        "Whether the topic is tiered. There is no tiered storage."),
    setting("retention.bytes", Long, "-1", Any, &[("log.retention.bytes", 1)],
        "How many bytes of a partition are kept before its oldest segments go; -1 for no bound."),
    setting("retention.ms", Long, "604800000", AtLeast(-1),
        &[("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS), ("log.retention.hours", HOUR_MS)],
        "For how many ms records are kept before their segment goes; -1 for no bound. It goes within seconds of that."),
    setting("segment.bytes", Int, "1073741824", AtLeast(1 << 20), &[("log.segment.bytes", 1)],
        "The size of a segment in bytes."),
    setting("segment.index.bytes", Int, "10485760", AtLeast(4), &[("log.index.size.max.bytes", 1)],
        "The size that Kafka gives an index. Indexes grow as needed here."),
    setting("segment.jitter.ms", Long, "0", AtLeast(0), &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)],
        "By how many ms at most a segment's roll by age is moved, so that not all roll at once."),
    setting("segment.ms", Long, "604800000", AtLeast(1), &[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)],
        "After how many ms a segment is closed although it is not full, so that retention can reach it."),
    setting("unclean.leader.election.enable", Boolean, "false", Any, &[("unclean.leader.election.enable", 1)],
        "Whether a replica that lacks records may lead. There is one replica."),
];

/// A setting by its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    ALL.binary_search_by(|setting| setting.name.cmp(name)).ok().map(|index| &ALL[index])
}

/// Checks a topic's whole map: every name is known, every value allowed, and they go together.
///
/// # Errors
/// The reason, in Kafka's words (INVALID_CONFIG).
pub fn validate(configs: &super::Configs) -> Result<(), std::string::String> {
    for (name, value) in configs {
        find(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?.validate(value)?;
    }
    let lag = |name: &str| {
        let default = find(name).and_then(|setting| setting.default).unwrap_or("0");
        configs.get(name).map_or(default, |value| value.trim()).parse::<i64>().unwrap_or(0)
    };
    let (least, most) = (lag("min.compaction.lag.ms"), lag("max.compaction.lag.ms"));
    if least > most {
        return Err(format!("conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"));
    }
    Ok(())
}
