//! The settings of the broker that Kafka's tools ask for, with Kafka's names and types. All nodes share one set.
//!
//! Those that stand behind a topic's setting may be changed while the broker runs; the others come from the config file.

use super::settings::{
    Kind::{self, Boolean, Double, Int, List, Long, String},
    Rule::{self, Any, AtLeast, Between, Fraction, GzipLevel, OneOf},
    Setting,
};
use super::topic_configs::{CODECS, LONG_MAX};

const fn dynamic(name: &'static str, kind: Kind, default: Option<&'static str>, rule: Rule, doc: &'static str) -> Setting {
    Setting { name, kind, default, rule, synonyms: &[], dynamic: true, doc }
}

const fn fixed(name: &'static str, kind: Kind, default: Option<&'static str>, rule: Rule, doc: &'static str) -> Setting {
    Setting { name, kind, default, rule, synonyms: &[], dynamic: false, doc }
}

/// Every setting of the broker, by name.
#[rustfmt::skip]
pub const ALL: &[Setting] = &[
    fixed("advertised.listeners", List, None, Any, "The addresses that clients are told to connect to, one per core."),
    fixed("auto.create.topics.enable", Boolean, Some("true"), Any, "Whether asking for a topic that does not exist creates it."),
    fixed("broker.id", Int, Some("0"), Any, "The node's id: the index of its core."),
    fixed("broker.rack", String, None, Any, "The node's rack. All nodes are cores of one machine."),
    dynamic("compression.gzip.level", Int, Some("-1"), GzipLevel, "Default of the topic setting of this name."),
    dynamic("compression.lz4.level", Int, Some("9"), Between(1, 17), "Default of the topic setting of this name."),
    dynamic("compression.type", String, Some("producer"), OneOf(CODECS), "Default of the topic setting of this name."),
    dynamic("compression.zstd.level", Int, Some("3"), Between(-131_072, 22), "Default of the topic setting of this name."),
    fixed("connections.max.idle.ms", Long, Some("600000"), Any, "After how many ms an idle connection is closed."),
    fixed("default.replication.factor", Int, Some("1"), Any, "The replication factor of topics that are created without one. There is one replica."),
    fixed("delete.topic.enable", Boolean, Some("true"), Any, "Whether topics may be deleted."),
    fixed("fetch.max.bytes", Int, Some("57671680"), AtLeast(1024), "The largest answer to a fetch, in bytes."),
    fixed("group.initial.rebalance.delay.ms", Int, Some("0"), Any, "How long, in ms, a new group waits for more members before its first rebalance."),
    fixed("group.max.session.timeout.ms", Int, Some("1800000"), Any, "The longest session timeout that a member may ask for, in ms."),
    fixed("group.max.size", Int, Some("10000"), AtLeast(1), "The most members that a group may have."),
    fixed("group.min.session.timeout.ms", Int, Some("6000"), Any, "The shortest session timeout that a member may ask for, in ms."),
    fixed("listeners", List, None, Any, "The addresses that the cores listen on."),
    dynamic("log.cleaner.delete.retention.ms", Long, Some("86400000"), AtLeast(0), "Default of delete.retention.ms."),
    dynamic("log.cleaner.max.compaction.lag.ms", Long, Some(LONG_MAX), AtLeast(1), "Default of max.compaction.lag.ms."),
    dynamic("log.cleaner.min.cleanable.ratio", Double, Some("0.5"), Fraction, "Default of min.cleanable.dirty.ratio."),
    dynamic("log.cleaner.min.compaction.lag.ms", Long, Some("0"), AtLeast(0), "Default of min.compaction.lag.ms."),
    dynamic("log.cleanup.policy", List, Some("delete"), OneOf(&["compact", "delete"]), "Default of cleanup.policy."),
    fixed("log.dirs", List, Some("./thalweg-data"), Any, "The data directory."),
    dynamic("log.flush.interval.messages", Long, Some(LONG_MAX), AtLeast(1), "Default of flush.messages."),
    dynamic("log.flush.interval.ms", Long, None, Any, "Default of flush.ms."),
    dynamic("log.index.interval.bytes", Int, Some("4096"), AtLeast(0), "Default of index.interval.bytes."),
    dynamic("log.index.size.max.bytes", Int, Some("10485760"), AtLeast(4), "Default of segment.index.bytes."),
    dynamic("log.local.retention.bytes", Long, Some("-2"), AtLeast(-2), "Default of local.retention.bytes."),
    dynamic("log.local.retention.ms", Long, Some("-2"), AtLeast(-2), "Default of local.retention.ms."),
    dynamic("log.message.timestamp.after.max.ms", Long, Some("3600000"), AtLeast(0), "Default of message.timestamp.after.max.ms."),
    dynamic("log.message.timestamp.before.max.ms", Long, Some(LONG_MAX), AtLeast(0), "Default of message.timestamp.before.max.ms."),
    dynamic("log.message.timestamp.type", String, Some("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), "Default of message.timestamp.type."),
    dynamic("log.preallocate", Boolean, Some("false"), Any, "Default of preallocate."),
    dynamic("log.retention.bytes", Long, Some("-1"), Any, "Default of retention.bytes."),
    fixed("log.retention.hours", Int, Some("168"), Any, "Default of retention.ms, in hours."),
    fixed("log.retention.minutes", Int, None, Any, "Default of retention.ms, in minutes; before log.retention.hours."),
    dynamic("log.retention.ms", Long, None, Any, "Default of retention.ms; before log.retention.minutes."),
    fixed("log.roll.hours", Int, Some("168"), AtLeast(1), "Default of segment.ms, in hours."),
    fixed("log.roll.jitter.hours", Int, Some("0"), AtLeast(0), "Default of segment.jitter.ms, in hours."),
    dynamic("log.roll.jitter.ms", Long, None, Any, "Default of segment.jitter.ms; before log.roll.jitter.hours."),
    dynamic("log.roll.ms", Long, None, Any, "Default of segment.ms; before log.roll.hours."),
    dynamic("log.segment.bytes", Int, Some("1073741824"), AtLeast(1 << 20), "Default of segment.bytes."),
    dynamic("log.segment.delete.delay.ms", Long, Some("60000"), AtLeast(0), "Default of file.delete.delay.ms."),
    fixed("max.connections", Int, Some("2147483647"), AtLeast(0), "The most connections of all clients."),
    dynamic("message.max.bytes", Int, Some("1048588"), AtLeast(0), "Default of max.message.bytes."),
    dynamic("min.insync.replicas", Int, Some("1"), AtLeast(1), "Default of the topic setting of this name. There is one replica."),
    fixed("node.id", Int, Some("0"), Any, "The node's id: the index of its core."),
    fixed("num.io.threads", Int, Some("8"), AtLeast(1), "Kafka's I/O threads. Every core has one thread here."),
    fixed("num.network.threads", Int, Some("3"), AtLeast(1), "Kafka's network threads. Every core has one thread here."),
    fixed("num.partitions", Int, Some("1"), AtLeast(1), "The partitions of topics that are created without a count."),
    fixed("offset.metadata.max.bytes", Int, Some("4096"), Any, "The most bytes of metadata that go with a committed offset."),
    fixed("offsets.retention.minutes", Int, Some("10080"), AtLeast(1), "For how many minutes offsets of a group without members are kept."),
    fixed("offsets.topic.num.partitions", Int, Some("50"), AtLeast(1), "The partitions of __consumer_offsets: always 50 here."),
    fixed("offsets.topic.replication.factor", Int, Some("1"), AtLeast(1), "The replication factor of __consumer_offsets. There is one replica."),
    fixed("producer.id.expiration.ms", Int, Some("86400000"), AtLeast(1), "After how many ms without a write an idempotent producer is forgotten."),
    fixed("socket.request.max.bytes", Int, Some("104857600"), AtLeast(1), "The largest request, in bytes."),
    dynamic("unclean.leader.election.enable", Boolean, Some("false"), Any, "Default of the topic setting of this name. There is one replica."),
];

/// A setting by its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    ALL.binary_search_by(|setting| setting.name.cmp(name)).ok().map(|index| &ALL[index])
}
