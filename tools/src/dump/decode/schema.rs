//! The records of Kafka's internal topics, as data (Kafka: `group-coordinator` and `transaction-coordinator`,
//! `common/message/*.json`). Share and streams groups are not among them.

use std::ops::RangeInclusive;

/// What a field holds.
pub(super) enum Kind {
    Int8,
    Int16,
    Int32,
    Int64,
    Uuid,
    Text,
    Bytes,
    Array(&'static Kind),
    Struct(&'static [Field]),
    /// A structure that may be missing.
    Nullable(&'static [Field]),
}

/// One field.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) versions: RangeInclusive<i16>,
    /// Its number among the tagged fields, if it is one.
    pub(super) tag: Option<u32>,
}

/// What a key that begins with `number` is about.
pub(super) struct RecordType {
    pub(super) number: i16,
    pub(super) key: &'static [Field],
    pub(super) value: &'static [Field],
    /// The newest version of the value that is known.
    pub(super) version_max: i16,
    /// The first version of the value that has compact lengths and tagged fields.
    pub(super) flexible: i16,
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, versions: 0..=i16::MAX, tag: None }
}

const fn since(version: i16, name: &'static str, kind: Kind) -> Field {
    Field { name, kind, versions: version..=i16::MAX, tag: None }
}

const fn tagged(tag: u32, since: i16, name: &'static str, kind: Kind) -> Field {
    Field { name, kind, versions: since..=i16::MAX, tag: Some(tag) }
}

const NUMBERS: Kind = Kind::Array(&Kind::Int32);
const TEXTS: Kind = Kind::Array(&Kind::Text);

const GROUP_KEY: &[Field] = &[field("groupId", Kind::Text)];
const MEMBER_KEY: &[Field] = &[field("groupId", Kind::Text), field("memberId", Kind::Text)];
const OFFSET_KEY: &[Field] = &[field("group", Kind::Text), field("topic", Kind::Text), field("partition", Kind::Int32)];

const OFFSET_VALUE: &[Field] = &[
    field("offset", Kind::Int64),
    since(3, "leaderEpoch", Kind::Int32),
    field("metadata", Kind::Text),
    field("commitTimestamp", Kind::Int64),
    Field { name: "expireTimestamp", kind: Kind::Int64, versions: 1..=1, tag: None },
    tagged(0, 4, "topicId", Kind::Uuid),
];

const CLASSIC_MEMBER: &[Field] = &[
    field("memberId", Kind::Text),
    since(3, "groupInstanceId", Kind::Text),
    field("clientId", Kind::Text),
    field("clientHost", Kind::Text),
    since(1, "rebalanceTimeout", Kind::Int32),
    field("sessionTimeout", Kind::Int32),
    field("subscription", Kind::Bytes),
    field("assignment", Kind::Bytes),
];

const CLASSIC_GROUP: &[Field] = &[
    field("protocolType", Kind::Text),
    field("generation", Kind::Int32),
    field("protocol", Kind::Text),
    field("leader", Kind::Text),
    since(2, "currentStateTimestamp", Kind::Int64),
    field("members", Kind::Array(&Kind::Struct(CLASSIC_MEMBER))),
];

const PARTITION_METADATA: &[Field] = &[field("partition", Kind::Int32), field("racks", TEXTS)];

const TOPIC_METADATA: &[Field] = &[
    field("topicId", Kind::Uuid),
    field("topicName", Kind::Text),
    field("numPartitions", Kind::Int32),
    field("partitionMetadata", Kind::Array(&Kind::Struct(PARTITION_METADATA))),
];

const CLASSIC_PROTOCOL: &[Field] = &[field("name", Kind::Text), field("metadata", Kind::Bytes)];

const CLASSIC_METADATA: &[Field] =
    &[field("sessionTimeoutMs", Kind::Int32), field("supportedProtocols", Kind::Array(&Kind::Struct(CLASSIC_PROTOCOL)))];

const MEMBER_METADATA: &[Field] = &[
    field("instanceId", Kind::Text),
    field("rackId", Kind::Text),
    field("clientId", Kind::Text),
    field("clientHost", Kind::Text),
    field("subscribedTopicNames", TEXTS),
    field("subscribedTopicRegex", Kind::Text),
    field("rebalanceTimeoutMs", Kind::Int32),
    field("serverAssignor", Kind::Text),
    tagged(0, 0, "classicMemberMetadata", Kind::Nullable(CLASSIC_METADATA)),
];

const TARGET_PARTITIONS: &[Field] = &[field("topicId", Kind::Uuid), field("partitions", NUMBERS)];
const ASSIGNED_PARTITIONS: &[Field] =
    &[field("topicId", Kind::Uuid), field("partitions", NUMBERS), tagged(0, 0, "assignmentEpochs", NUMBERS)];

const CURRENT_ASSIGNMENT: &[Field] = &[
    field("memberEpoch", Kind::Int32),
    field("previousMemberEpoch", Kind::Int32),
    field("state", Kind::Int8),
    field("assignedPartitions", Kind::Array(&Kind::Struct(ASSIGNED_PARTITIONS))),
    field("partitionsPendingRevocation", Kind::Array(&Kind::Struct(ASSIGNED_PARTITIONS))),
];

const REGEX_KEY: &[Field] = &[field("groupId", Kind::Text), field("regularExpression", Kind::Text)];
const REGEX_VALUE: &[Field] = &[field("topics", TEXTS), field("version", Kind::Int64), field("timestamp", Kind::Int64)];

const fn of_group(number: i16, key: &'static [Field], value: &'static [Field]) -> RecordType {
    RecordType { number, key, value, version_max: 0, flexible: 0 }
}

/// `__consumer_offsets`.
pub(super) const OFFSETS: &[RecordType] = &[
    RecordType { number: 0, key: OFFSET_KEY, value: OFFSET_VALUE, version_max: 4, flexible: 4 },
    RecordType { number: 1, key: OFFSET_KEY, value: OFFSET_VALUE, version_max: 4, flexible: 4 },
    RecordType { number: 2, key: &[field("group", Kind::Text)], value: CLASSIC_GROUP, version_max: 4, flexible: 4 },
    of_group(3, GROUP_KEY, &[field("epoch", Kind::Int32), tagged(0, 0, "metadataHash", Kind::Int64)]),
    of_group(4, GROUP_KEY, &[field("topics", Kind::Array(&Kind::Struct(TOPIC_METADATA)))]),
    of_group(5, MEMBER_KEY, MEMBER_METADATA),
    of_group(6, GROUP_KEY, &[field("assignmentEpoch", Kind::Int32), tagged(0, 0, "assignmentTimestamp", Kind::Int64)]),
    of_group(7, MEMBER_KEY, &[field("topicPartitions", Kind::Array(&Kind::Struct(TARGET_PARTITIONS)))]),
    of_group(8, MEMBER_KEY, CURRENT_ASSIGNMENT),
    of_group(16, REGEX_KEY, REGEX_VALUE),
];

const TRANSACTION_PARTITIONS: &[Field] = &[field("topic", Kind::Text), field("partitionIds", NUMBERS)];

const TRANSACTION_VALUE: &[Field] = &[
    field("producerId", Kind::Int64),
    tagged(0, 1, "previousProducerId", Kind::Int64),
    tagged(1, 1, "nextProducerId", Kind::Int64),
    field("producerEpoch", Kind::Int16),
    tagged(3, 1, "nextProducerEpoch", Kind::Int16),
    field("transactionTimeoutMs", Kind::Int32),
    field("transactionStatus", Kind::Int8),
    field("transactionPartitions", Kind::Array(&Kind::Struct(TRANSACTION_PARTITIONS))),
    field("transactionLastUpdateTimestampMs", Kind::Int64),
    field("transactionStartTimestampMs", Kind::Int64),
    tagged(2, 1, "clientTransactionVersion", Kind::Int16),
];

/// `__transaction_state`.
pub(super) const TRANSACTIONS: &[RecordType] =
    &[RecordType { number: 0, key: &[field("transactionalId", Kind::Text)], value: TRANSACTION_VALUE, version_max: 1, flexible: 1 }];

const TOPIC_PARTITIONS: &[Field] = &[field("topic", Kind::Text), field("partitions", NUMBERS)];

/// What a member of a consumer group asks for (Kafka: `ConsumerProtocolSubscription`).
pub(super) const CONSUMER_SUBSCRIPTION: &[Field] = &[
    field("topics", TEXTS),
    field("userData", Kind::Bytes),
    since(1, "ownedPartitions", Kind::Array(&Kind::Struct(TOPIC_PARTITIONS))),
    since(2, "generationId", Kind::Int32),
    since(3, "rackId", Kind::Text),
];

/// What it is given (Kafka: `ConsumerProtocolAssignment`).
pub(super) const CONSUMER_ASSIGNMENT: &[Field] =
    &[field("assignedPartitions", Kind::Array(&Kind::Struct(TOPIC_PARTITIONS))), field("userData", Kind::Bytes)];
