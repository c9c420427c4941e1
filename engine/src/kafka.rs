//! Kafka's names for what lies in a data directory beside the partitions.

/// Its mark of a clean stop.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Whose directory it is: the cluster and the node.
pub const META_PROPERTIES: &str = "meta.properties";
/// The topic of a KRaft cluster's own metadata.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";
/// The first offset of each partition.
pub const LOG_START_CHECKPOINT: &str = "log-start-offset-checkpoint";
/// Up to where each partition is flushed.
pub const RECOVERY_POINT_CHECKPOINT: &str = "recovery-point-offset-checkpoint";
/// Each partition's high watermark.
pub const REPLICATION_CHECKPOINT: &str = "replication-offset-checkpoint";
/// Up to where each partition is compacted.
pub const CLEANER_CHECKPOINT: &str = "cleaner-offset-checkpoint";
