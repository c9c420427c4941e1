//! What is served, by name. `docs/metrics.md` has the same table, and a test holds them together.

/// What a family's values do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only rise, from 0 at the start.
    Counter,
    /// They rise and fall.
    Gauge,
    /// Durations in classes.
    Histogram,
}

impl Kind {
    /// Prometheus' name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Samples of one name.
#[derive(Debug)]
pub struct Family {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What its values do.
    pub kind: Kind,
    /// The names of its labels, in order.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident $name:literal $kind:ident [$($label:literal)*] $help:literal;)*) => {
        $(#[doc = $help] pub static $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// All of them, in the order in which they are served.
        pub static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD_INFO "thalweg_build_info" Gauge ["version"] "1, with the version.";
    CORE_UP "thalweg_core_up" Gauge ["core"] "1 if the core answered this scrape in time, else 0: its other values are missing then.";
    CORE_CPU "thalweg_core_cpu_seconds_total" Counter ["core"] "CPU time of the core's thread.";
    PROCESS_CPU "process_cpu_seconds_total" Counter [] "CPU time of the process, kernel workers included.";
    PROCESS_MEMORY "process_resident_memory_bytes" Gauge [] "Resident memory.";
    PROCESS_FILES "process_open_fds" Gauge [] "Open file descriptors.";
    PROCESS_FILES_MAX "process_max_fds" Gauge [] "Their bound.";
    PROCESS_START "process_start_time_seconds" Gauge [] "When the broker started, in seconds since 1970.";
    DISK_FREE "thalweg_disk_free_bytes" Gauge ["directory"] "Free space of the filesystem of the data or the journals.";
    DISK_SIZE "thalweg_disk_size_bytes" Gauge ["directory"] "Its size.";

    REQUESTS "thalweg_requests_total" Counter ["api"] "Requests that came.";
    REQUEST_ERRORS "thalweg_request_errors_total" Counter ["api" "error"] "Errors that answers named, by Kafka's name of the code.";
    REQUEST_BYTES "thalweg_request_bytes_total" Counter ["api"] "Bytes of requests.";
    RESPONSE_BYTES "thalweg_response_bytes_total" Counter ["api"] "Bytes of answers that were sent.";
    REQUEST_SECONDS "thalweg_request_duration_seconds" Histogram ["api"] "From a request's arrival to the end of its answer; a fetch's wait for data is in it.";
    REQUESTS_REFUSED "thalweg_requests_refused_total" Counter ["core"] "Requests that closed their connection: malformed, of no known API or version, too large, or a failed produce with acks=0.";
    SENDFILE_BYTES "thalweg_sendfile_bytes_total" Counter ["core"] "Bytes of answers that were sent from files; the others came from memory.";

    CONNECTIONS "thalweg_connections" Gauge ["core"] "Open connections.";
    CONNECTIONS_MAX "thalweg_connections_max" Gauge ["core"] "Their bound, max.connections.";
    CONNECTIONS_ACCEPTED "thalweg_connections_accepted_total" Counter ["core"] "Connections that were taken.";
    CONNECTIONS_REFUSED "thalweg_connections_refused_total" Counter ["core"] "Connections that were closed at once because of the bound.";
    PARKED_FETCHES "thalweg_parked_fetches" Gauge ["core"] "Fetches that wait for data: at most one per connection.";
    RECEIVING "thalweg_receiving_bytes" Gauge ["core"] "Memory reserved for large requests under way.";
    RECEIVING_MAX "thalweg_receiving_bytes_max" Gauge ["core"] "Its bound: larger requests wait.";
    PINNED "thalweg_pinned_bytes" Gauge ["core"] "Memory of tails that answers on their way hold.";
    PINNED_MAX "thalweg_pinned_bytes_max" Gauge ["core"] "Its bound: above it fetches are answered in small portions.";

    APPEND_BATCHES "thalweg_append_batches_total" Counter ["core"] "Batches that were appended, the broker's own included.";
    APPEND_RECORDS "thalweg_append_records_total" Counter ["core"] "Their records.";
    APPEND_BYTES "thalweg_append_bytes_total" Counter ["core"] "Their bytes.";
    FETCH_BYTES "thalweg_fetch_bytes_total" Counter ["core"] "Bytes of batches that consumers were given.";
    LANE_WRITES "thalweg_lane_writes_total" Counter ["core" "lane"] "Durable writes of a lane: frames of the journal, runs of the bulk lane.";
    LANE_BYTES "thalweg_lane_bytes_total" Counter ["core" "lane"] "Their bytes, with headers and padding.";
    LANE_WRITE_SECONDS "thalweg_lane_write_seconds" Histogram ["lane"] "How long such a write took, without its flush.";
    LANE_FLUSH_SECONDS "thalweg_lane_flush_seconds" Histogram ["lane"] "How long the fdatasync behind it took.";
    JOURNAL_SWITCHES "thalweg_journal_switches_total" Counter ["core"] "How often the journal changed over to its other file.";
    BULK_IN_FLIGHT "thalweg_bulk_in_flight_bytes" Gauge ["core"] "Segment writes in flight.";
    BULK_IN_FLIGHT_MAX "thalweg_bulk_in_flight_bytes_max" Gauge ["core"] "Their bound; half of it while small appends wait.";
    TAILS "thalweg_tail_bytes" Gauge ["core"] "Memory of tails.";
    TAILS_MAX "thalweg_tail_bytes_max" Gauge ["core"] "Its bound: above it what segments hold is given back.";
    UNMOVED "thalweg_unmoved_bytes" Gauge ["core"] "Bytes that are in no segment yet.";
    UNMOVED_MAX "thalweg_unmoved_bytes_max" Gauge ["core"] "Their bound: senders wait.";
    ADMISSIONS "thalweg_admissions_waiting" Gauge ["core"] "Produce requests that wait for room.";
    SEGMENTS "thalweg_open_segments" Gauge ["core"] "Open sealed segments.";
    SEGMENTS_MAX "thalweg_open_segments_max" Gauge ["core"] "Their bound: the least recently used are closed.";
    PRODUCERS "thalweg_producers" Gauge ["core"] "Idempotent producers that are remembered, of all partitions together.";
    PRODUCERS_MAX "thalweg_partition_producers_max" Gauge ["core"] "The bound of one partition: the oldest are forgotten.";
    PARTITIONS "thalweg_partitions" Gauge ["core"] "Partitions of the core, the broker's own included.";
    OFFLINE "thalweg_offline_partitions" Gauge ["core"] "Partitions that take no appends until the next start: a write of theirs failed, or they can't be opened.";
    CORRUPT_READS "thalweg_corrupt_reads_total" Counter [] "Fetches that found a corrupt batch on disk.";

    KEEP_SEGMENTS "thalweg_retention_segments_total" Counter ["core"] "Segments that retention and DeleteRecords have removed.";
    KEEP_BYTES "thalweg_retention_bytes_total" Counter ["core" "why"] "Bytes of their logs: by retention.ms, by retention.bytes, or below the log start offset.";
    COMPACTION_ROUNDS "thalweg_compaction_rounds_total" Counter ["core"] "Rounds of compaction that have come to their end.";
    COMPACTION_BYTES_IN "thalweg_compaction_replaced_bytes_total" Counter ["core"] "Bytes of logs that compaction has replaced.";
    COMPACTION_BYTES_OUT "thalweg_compaction_written_bytes_total" Counter ["core"] "Bytes of those in their place.";
    COMPACTION_RECORDS "thalweg_compaction_records_removed_total" Counter ["core"] "Records that went.";
    KEEP_FAILURES "thalweg_keeping_failures_total" Counter ["core"] "What retention and compaction could not do. It is tried again; the log says of which partition, and why.";

    GROUPS "thalweg_groups" Gauge ["core"] "Groups that the core coordinates.";
    GROUPS_MAX "thalweg_groups_max" Gauge ["core"] "Their bound.";
    COMMITTED "thalweg_committed_offsets" Gauge ["core"] "Committed offsets of its groups.";
    COMMITTED_MAX "thalweg_committed_offsets_max" Gauge ["core"] "Their bound.";
    GROUP_METADATA "thalweg_group_metadata_bytes" Gauge ["core"] "Metadata that members of its groups brought.";
    GROUP_METADATA_MAX "thalweg_group_metadata_bytes_max" Gauge ["core"] "Its bound: new members are refused.";
    GROUP_MEMBERS "thalweg_group_members" Gauge ["group"] "Members of a group.";
    GROUP_MEMBERS_MAX "thalweg_group_members_max" Gauge [] "Their bound, group.max.size.";
    GROUP_OFFSET "thalweg_group_committed_offset" Gauge ["group" "topic" "partition"] "What a group has committed: the next offset that it reads.";
    GROUP_LAG "thalweg_group_lag_records" Gauge ["group" "topic" "partition"] "The high watermark less the committed offset.";

    TOPIC_PARTITIONS "thalweg_topic_partitions" Gauge ["topic"] "Partitions of a topic.";
    TOPIC_RECORDS_IN "thalweg_topic_records_in_total" Counter ["topic"] "Records that were appended to it.";
    TOPIC_BYTES_IN "thalweg_topic_bytes_in_total" Counter ["topic"] "Bytes of batches that were appended to it.";
    TOPIC_BYTES_OUT "thalweg_topic_bytes_out_total" Counter ["topic"] "Bytes of its batches that consumers were given.";
    LOG_START "thalweg_partition_log_start_offset" Gauge ["topic" "partition"] "The first offset that can be read.";
    HIGH_WATERMARK "thalweg_partition_high_watermark" Gauge ["topic" "partition"] "The durable end; of a partition that was not used since the start it is known from below only.";
    LOG_END "thalweg_partition_log_end_offset" Gauge ["topic" "partition"] "The next offset to be given.";
    PARTITION_BYTES "thalweg_partition_size_bytes" Gauge ["topic" "partition"] "Bytes of its segments and tail.";
    PARTITION_SEGMENTS "thalweg_partition_segments" Gauge ["topic" "partition"] "Its segments.";

    SCRAPE_SECONDS "thalweg_scrape_duration_seconds" Gauge [] "How long it took to ask the cores this time.";
    LEFT_OUT "thalweg_scrape_left_out" Gauge ["what"] "Topics, partitions, groups or offsets that this scrape left out because of its bounds.";

    KAFKA_UNDER_REPLICATED "kafka_server_replicamanager_underreplicatedpartitions" Gauge [] "Always 0, for alerts that were made for Kafka: there is one replica.";
    KAFKA_OFFLINE "kafka_controller_kafkacontroller_offlinepartitionscount" Gauge [] "Offline partitions, by Kafka's name.";
    KAFKA_CONTROLLER "kafka_controller_kafkacontroller_activecontrollercount" Gauge [] "1 if core 0, the controller, answers, by Kafka's name.";
    KAFKA_GROUP_LAG "kafka_consumergroup_lag" Gauge ["consumergroup" "topic" "partition"] "The lag by kafka_exporter's name.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_documents_is_what_is_served() {
        let document = include_str!("../../../docs/metrics.md");
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>();
        let documented: Vec<Vec<String>> =
            document.lines().filter(|line| line.starts_with("| `")).map(|line| cells(line)[1..5].to_vec()).collect();
        let served = |family: &&Family| {
            vec![family.name.to_owned(), family.kind.name().to_owned(), family.labels.join(", "), family.help.to_owned()]
        };
        assert_eq!(documented, ALL.iter().map(served).collect::<Vec<_>>());
    }

    #[test]
    fn names_say_what_the_format_expects() {
        for family in ALL {
            assert_eq!(family.kind == Kind::Counter, family.name.ends_with("_total"), "{}", family.name);
            assert!(family.kind != Kind::Histogram || family.name.ends_with("_seconds"), "{}", family.name);
            assert!(!family.help.contains(['\n', '\\', '|']), "{}", family.name);
        }
    }
}
