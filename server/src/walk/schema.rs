//! Every request that the broker takes, as data: names, order, versions and kinds of its fields, as in Kafka's message
//! definitions. A kind that carries a length or a count is what the walk checks.

use super::field::{Message, NEVER, array, bytes, fixed, fixeds, string, strings, structure};
use kafka_protocol::messages::ApiKey;

/// The requests, by key.
pub static REQUESTS: &[Message] = &[
    Message {
        key: ApiKey::Produce,
        flexible: 9,
        fields: &[
            string("transactional_id"),
            fixed("acks", 2),
            fixed("timeout_ms", 4),
            array(
                "topic_data",
                &[
                    string("name").until(12),
                    fixed("topic_id", 16).since(13),
                    array("partition_data", &[fixed("index", 4), bytes("records")]),
                ],
            ),
        ],
    },
    Message {
        key: ApiKey::Fetch,
        flexible: 12,
        fields: &[
            fixed("replica_id", 4).until(14),
            fixed("max_wait_ms", 4),
            fixed("min_bytes", 4),
            fixed("max_bytes", 4),
            fixed("isolation_level", 1),
            fixed("session_id", 4).since(7),
            fixed("session_epoch", 4).since(7),
            array(
                "topics",
                &[
                    string("topic").until(12),
                    fixed("topic_id", 16).since(13),
                    array(
                        "partitions",
                        &[
                            fixed("partition", 4),
                            fixed("current_leader_epoch", 4).since(9),
                            fixed("fetch_offset", 8),
                            fixed("last_fetched_epoch", 4).since(12),
                            fixed("log_start_offset", 8).since(5),
                            fixed("partition_max_bytes", 4),
                            fixed("replica_directory_id", 16).since(17).tag(0),
                            fixed("high_watermark", 8).since(18).tag(1),
                        ],
                    ),
                ],
            ),
            array(
                "forgotten_topics_data",
                &[string("topic").since(7).until(12), fixed("topic_id", 16).since(13), fixeds("partitions", 4).since(7)],
            )
            .since(7),
            string("rack_id").since(11),
            string("cluster_id").tag(0),
            structure("replica_state", &[fixed("replica_id", 4).since(15), fixed("replica_epoch", 8).since(15)]).since(15).tag(1),
        ],
    },
    Message {
        key: ApiKey::ListOffsets,
        flexible: 6,
        fields: &[
            fixed("replica_id", 4),
            fixed("isolation_level", 1).since(2),
            array(
                "topics",
                &[
                    string("name"),
                    array("partitions", &[fixed("partition_index", 4), fixed("current_leader_epoch", 4).since(4), fixed("timestamp", 8)]),
                ],
            ),
            fixed("timeout_ms", 4).since(10),
        ],
    },
    Message {
        key: ApiKey::Metadata,
        flexible: 9,
        fields: &[
            array("topics", &[fixed("topic_id", 16).since(10), string("name")]),
            fixed("allow_auto_topic_creation", 1).since(4),
            fixed("include_cluster_authorized_operations", 1).since(8).until(10),
            fixed("include_topic_authorized_operations", 1).since(8),
        ],
    },
    Message {
        key: ApiKey::OffsetCommit,
        flexible: 8,
        fields: &[
            string("group_id"),
            fixed("generation_id_or_member_epoch", 4),
            string("member_id"),
            string("group_instance_id").since(7),
            fixed("retention_time_ms", 8).until(4),
            array(
                "topics",
                &[
                    string("name"),
                    array(
                        "partitions",
                        &[
                            fixed("partition_index", 4),
                            fixed("committed_offset", 8),
                            fixed("committed_leader_epoch", 4).since(6),
                            string("committed_metadata"),
                        ],
                    ),
                ],
            ),
        ],
    },
    Message {
        key: ApiKey::OffsetFetch,
        flexible: 6,
        fields: &[
            string("group_id").until(7),
            array("topics", &[string("name").until(7), fixeds("partition_indexes", 4).until(7)]).until(7),
            array(
                "groups",
                &[
                    string("group_id").since(8),
                    string("member_id").since(9),
                    fixed("member_epoch", 4).since(9),
                    array("topics", &[string("name").since(8), fixeds("partition_indexes", 4).since(8)]).since(8),
                ],
            )
            .since(8),
            fixed("require_stable", 1).since(7),
        ],
    },
    Message {
        key: ApiKey::FindCoordinator,
        flexible: 3,
        fields: &[string("key").until(3), fixed("key_type", 1).since(1), strings("coordinator_keys").since(4)],
    },
    Message {
        key: ApiKey::JoinGroup,
        flexible: 6,
        fields: &[
            string("group_id"),
            fixed("session_timeout_ms", 4),
            fixed("rebalance_timeout_ms", 4).since(1),
            string("member_id"),
            string("group_instance_id").since(5),
            string("protocol_type"),
            array("protocols", &[string("name"), bytes("metadata")]),
            string("reason").since(8),
        ],
    },
    Message {
        key: ApiKey::Heartbeat,
        flexible: 4,
        fields: &[string("group_id"), fixed("generation_id", 4), string("member_id"), string("group_instance_id").since(3)],
    },
    Message {
        key: ApiKey::LeaveGroup,
        flexible: 4,
        fields: &[
            string("group_id"),
            string("member_id").until(2),
            array("members", &[string("member_id").since(3), string("group_instance_id").since(3), string("reason").since(5)]).since(3),
        ],
    },
    Message {
        key: ApiKey::SyncGroup,
        flexible: 4,
        fields: &[
            string("group_id"),
            fixed("generation_id", 4),
            string("member_id"),
            string("group_instance_id").since(3),
            string("protocol_type").since(5),
            string("protocol_name").since(5),
            array("assignments", &[string("member_id"), bytes("assignment")]),
        ],
    },
    Message { key: ApiKey::DescribeGroups, flexible: 5, fields: &[strings("groups"), fixed("include_authorized_operations", 1).since(3)] },
    Message { key: ApiKey::ListGroups, flexible: 3, fields: &[strings("states_filter").since(4), strings("types_filter").since(5)] },
    Message {
        key: ApiKey::ApiVersions,
        flexible: 3,
        fields: &[string("client_software_name").since(3), string("client_software_version").since(3)],
    },
    Message {
        key: ApiKey::CreateTopics,
        flexible: 5,
        fields: &[
            array(
                "topics",
                &[
                    string("name"),
                    fixed("num_partitions", 4),
                    fixed("replication_factor", 2),
                    array("assignments", &[fixed("partition_index", 4), fixeds("broker_ids", 4)]),
                    array("configs", &[string("name"), string("value")]),
                ],
            ),
            fixed("timeout_ms", 4),
            fixed("validate_only", 1),
        ],
    },
    Message {
        key: ApiKey::DeleteTopics,
        flexible: 4,
        fields: &[
            array("topics", &[string("name").since(6), fixed("topic_id", 16).since(6)]).since(6),
            strings("topic_names").until(5),
            fixed("timeout_ms", 4),
        ],
    },
    Message {
        key: ApiKey::DeleteRecords,
        flexible: 2,
        fields: &[
            array("topics", &[string("name"), array("partitions", &[fixed("partition_index", 4), fixed("offset", 8)])]),
            fixed("timeout_ms", 4),
        ],
    },
    Message {
        key: ApiKey::InitProducerId,
        flexible: 2,
        fields: &[
            string("transactional_id"),
            fixed("transaction_timeout_ms", 4),
            fixed("producer_id", 8).since(3),
            fixed("producer_epoch", 2).since(3),
        ],
    },
    Message {
        key: ApiKey::OffsetForLeaderEpoch,
        flexible: 4,
        fields: &[
            fixed("replica_id", 4).since(3),
            array(
                "topics",
                &[
                    string("topic"),
                    array("partitions", &[fixed("partition", 4), fixed("current_leader_epoch", 4), fixed("leader_epoch", 4)]),
                ],
            ),
        ],
    },
    Message {
        key: ApiKey::DescribeConfigs,
        flexible: 4,
        fields: &[
            array("resources", &[fixed("resource_type", 1), string("resource_name"), strings("configuration_keys")]),
            fixed("include_synonyms", 1),
            fixed("include_documentation", 1).since(3),
        ],
    },
    Message {
        key: ApiKey::AlterConfigs,
        flexible: 2,
        fields: &[
            array("resources", &[fixed("resource_type", 1), string("resource_name"), array("configs", &[string("name"), string("value")])]),
            fixed("validate_only", 1),
        ],
    },
    Message { key: ApiKey::DescribeLogDirs, flexible: 2, fields: &[array("topics", &[string("topic"), fixeds("partitions", 4)])] },
    Message {
        key: ApiKey::CreatePartitions,
        flexible: 2,
        fields: &[
            array("topics", &[string("name"), fixed("count", 4), array("assignments", &[fixeds("broker_ids", 4)])]),
            fixed("timeout_ms", 4),
            fixed("validate_only", 1),
        ],
    },
    Message { key: ApiKey::DeleteGroups, flexible: 2, fields: &[strings("groups_names")] },
    Message {
        key: ApiKey::IncrementalAlterConfigs,
        flexible: 1,
        fields: &[
            array(
                "resources",
                &[
                    fixed("resource_type", 1),
                    string("resource_name"),
                    array("configs", &[string("name"), fixed("config_operation", 1), string("value")]),
                ],
            ),
            fixed("validate_only", 1),
        ],
    },
    Message {
        key: ApiKey::OffsetDelete,
        flexible: NEVER,
        fields: &[string("group_id"), array("topics", &[string("name"), array("partitions", &[fixed("partition_index", 4)])])],
    },
    Message {
        key: ApiKey::DescribeCluster,
        flexible: 0,
        fields: &[
            fixed("include_cluster_authorized_operations", 1),
            fixed("endpoint_type", 1).since(1),
            fixed("include_fenced_brokers", 1).since(2),
        ],
    },
];
