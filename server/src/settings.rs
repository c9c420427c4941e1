//! What the operator decided, with Kafka's names and defaults. Every core has a copy.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Members of a group, where `group.max.size` says nothing else. Kafka has no bound.
pub const GROUP_MEMBERS_MAX: usize = 10_000;

/// Where clients reach a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The settings of a running broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cores by node id, as clients see them.
    pub nodes: Vec<Node>,
    /// `log.dirs`: the data directory.
    pub data_dir: PathBuf,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_partitions: i32,
    /// `message.max.bytes`: the default of topics, in bytes.
    pub message_max_bytes: i32,
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `fetch.max.bytes`: the most that one fetch is answered, in bytes (but for one whole batch).
    pub fetch_bytes_max: usize,
    /// `max.connections` of a core.
    pub connections_max: usize,
    /// `connections.max.idle.ms`.
    pub connection_idle_ms_max: u64,
    /// `group.initial.rebalance.delay.ms`.
    pub group_initial_rebalance_delay_ms: i32,
    /// `group.min.session.timeout.ms`.
    pub group_session_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub group_session_ms_max: i32,
    /// `group.max.size`: members of a group.
    pub group_members_max: usize,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`.
    pub offsets_retention_minutes: i64,
    /// `validate = "strict"`: decompress and walk every batch, as Kafka does.
    pub strict: bool,
    /// Topic settings that the configuration gave for all topics, by the topic's name for them (`retention.ms`).
    pub topic_defaults: BTreeMap<String, String>,
    /// Every Kafka property that the configuration gave, by its Kafka name, for DescribeConfigs.
    pub properties: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            nodes: vec![Node { host: "localhost".into(), port: 9092 }],
            data_dir: PathBuf::from("thalweg-data"),
            num_partitions: 1,
            auto_create_topics: true,
            delete_topics: true,
            offsets_topic_partitions: 50,
            message_max_bytes: 1_048_588,
            request_bytes_max: 100 << 20,
            fetch_bytes_max: 55 << 20,
            connections_max: 10_000,
            connection_idle_ms_max: 600_000,
            group_initial_rebalance_delay_ms: 0,
            group_session_ms_min: 6_000,
            group_session_ms_max: 1_800_000,
            group_members_max: GROUP_MEMBERS_MAX,
            offset_metadata_bytes_max: 4096,
            offsets_retention_minutes: 10_080,
            strict: false,
            topic_defaults: BTreeMap::new(),
            properties: BTreeMap::new(),
        }
    }
}
