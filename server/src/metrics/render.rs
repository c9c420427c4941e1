//! From a scrape to text.

use super::{
    families::{self as f, Family},
    process::{self, About},
    scrape::Scrape,
    snapshot::{CoreSnapshot, PartitionRow},
    text::Text,
};
use crate::{
    api::{self, APIS},
    keeping::Tally,
};
use engine::{
    log::Use,
    measure::{LaneStats, TrafficStats},
};
use kafka_protocol::{ResponseError, messages::ApiKey};
use std::collections::BTreeMap;

/// Topics that are shown at most, the first by name.
pub const TOPICS_SHOWN_MAX: usize = 1_000;
/// Partitions that are shown at most, unless all are asked for (`/metrics?partitions=1`).
pub const PARTITIONS_SHOWN_MAX: usize = 1_000;

/// A scrape as text. `all_partitions`: however many they are.
#[must_use]
pub fn render(scrape: &Scrape, about: &About, all_partitions: bool) -> String {
    let mut text = Text::default();
    broker(&mut text, about);
    for (core, snapshot) in scrape.cores.iter().enumerate() {
        let name = core.to_string();
        text.put(&f::CORE_UP, &[("core", &name)], u8::from(snapshot.is_some()));
        if let Some(snapshot) = snapshot {
            of_core(&mut text, &name, snapshot);
        }
    }
    producers(&mut text, scrape);
    let cores: Vec<&CoreSnapshot> = scrape.cores.iter().flatten().collect();
    requests(&mut text, &cores);
    lanes(&mut text, &cores);
    topics(&mut text, scrape, if all_partitions { usize::MAX } else { PARTITIONS_SHOWN_MAX });
    groups(&mut text, scrape);
    text.put(&f::SCRAPE_SECONDS, &[], scrape.took.as_secs_f64());
    text.put(&f::KAFKA_UNDER_REPLICATED, &[], 0);
    text.put(&f::KAFKA_OFFLINE, &[], cores.iter().map(|core| core.log.offline).sum::<u64>());
    text.put(&f::KAFKA_CONTROLLER, &[], u8::from(scrape.cores.first().is_some_and(Option::is_some)));
    text.finish(f::ALL)
}

fn broker(text: &mut Text, about: &About) {
    text.put(&f::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.put(&f::PROCESS_CPU, &[], process::cpu_seconds());
    text.put(&f::PROCESS_START, &[], about.started.as_secs_f64());
    let (open, max) = process::files();
    for (family, value) in [(&f::PROCESS_MEMORY, process::resident_bytes()), (&f::PROCESS_FILES, open), (&f::PROCESS_FILES_MAX, max)] {
        if let Some(value) = value {
            text.put(family, &[], value);
        }
    }
    for (name, directory) in [("data", &about.data_dir), ("journal", &about.journal_dir)] {
        if let Some((free, size)) = process::disk_bytes(directory) {
            text.put(&f::DISK_FREE, &[("directory", name)], free);
            text.put(&f::DISK_SIZE, &[("directory", name)], size);
        }
    }
}

fn of_core(text: &mut Text, name: &str, core: &CoreSnapshot) {
    let (log, counters) = (&core.log, &core.counters);
    let mut put = |family: &'static Family, value: u64| text.put(family, &[("core", name)], value);
    let bounds: [(&'static Family, &'static Family, Use); 10] = [
        (&f::CONNECTIONS, &f::CONNECTIONS_MAX, core.connections),
        (&f::RECEIVING, &f::RECEIVING_MAX, core.receiving),
        (&f::PINNED, &f::PINNED_MAX, core.pinned),
        (&f::BULK_IN_FLIGHT, &f::BULK_IN_FLIGHT_MAX, log.bulk_in_flight),
        (&f::TAILS, &f::TAILS_MAX, log.tails),
        (&f::UNMOVED, &f::UNMOVED_MAX, log.unmoved),
        (&f::SEGMENTS, &f::SEGMENTS_MAX, log.segments),
        (&f::GROUPS, &f::GROUPS_MAX, core.groups),
        (&f::COMMITTED, &f::COMMITTED_MAX, core.committed),
        (&f::GROUP_METADATA, &f::GROUP_METADATA_MAX, core.group_metadata),
    ];
    for (used, max, bound) in bounds {
        put(used, bound.used);
        put(max, bound.max);
    }
    put(&f::REQUESTS_REFUSED, counters.refused_requests);
    put(&f::SENDFILE_BYTES, counters.sendfile_bytes);
    put(&f::CONNECTIONS_ACCEPTED, core.accepted);
    put(&f::CONNECTIONS_REFUSED, counters.refused_connections);
    put(&f::PARKED_FETCHES, counters.parked_fetches);
    put(&f::APPEND_BATCHES, log.traffic.batches);
    put(&f::APPEND_RECORDS, log.traffic.records);
    put(&f::APPEND_BYTES, log.traffic.bytes_in);
    put(&f::FETCH_BYTES, log.traffic.bytes_out);
    put(&f::JOURNAL_SWITCHES, log.journal.switches);
    put(&f::ADMISSIONS, log.admissions_waiting);
    put(&f::PRODUCERS_MAX, log.producers_max);
    put(&f::PARTITIONS, log.partitions);
    put(&f::OFFLINE, log.offline);
    for (lane, stats) in [("journal", &log.journal), ("bulk", &log.bulk)] {
        text.put(&f::LANE_WRITES, &[("core", name), ("lane", lane)], stats.writes);
        text.put(&f::LANE_BYTES, &[("core", name), ("lane", lane)], stats.bytes);
    }
    text.put(&f::CORE_CPU, &[("core", name)], core.cpu_seconds);
    kept(text, name, &core.kept);
}

fn kept(text: &mut Text, name: &str, kept: &Tally) {
    let counts: [(&'static Family, i64); 6] = [
        (&f::KEEP_SEGMENTS, kept.segments),
        (&f::COMPACTION_ROUNDS, kept.rounds),
        (&f::COMPACTION_BYTES_IN, kept.compacted.0),
        (&f::COMPACTION_BYTES_OUT, kept.compacted.1),
        (&f::COMPACTION_RECORDS, kept.records),
        (&f::KEEP_FAILURES, kept.failures),
    ];
    for (family, count) in counts {
        text.put(family, &[("core", name)], count);
    }
    for (why, bytes) in ["retention.ms", "retention.bytes", "log start offset"].into_iter().zip(kept.by) {
        text.put(&f::KEEP_BYTES, &[("core", name), ("why", why)], bytes);
    }
}

fn producers(text: &mut Text, scrape: &Scrape) {
    let mut by_core: BTreeMap<usize, u64> = BTreeMap::new();
    for row in scrape.topics.values().flat_map(BTreeMap::values) {
        *by_core.entry(row.core).or_default() += row.stats.producers;
    }
    for (core, producers) in by_core {
        text.put(&f::PRODUCERS, &[("core", &core.to_string())], producers);
    }
}

fn requests(text: &mut Text, cores: &[&CoreSnapshot]) {
    for (at, api) in APIS.iter().enumerate() {
        let of_api: Vec<_> = cores.iter().filter_map(|core| core.counters.apis[at].as_ref()).collect();
        if of_api.is_empty() {
            continue;
        }
        let name = format!("{:?}", api.key);
        let label = [("api", name.as_str())];
        text.put(&f::REQUESTS, &label, of_api.iter().map(|api| api.requests).sum::<u64>());
        text.put(&f::REQUEST_BYTES, &label, of_api.iter().map(|api| api.request_bytes).sum::<u64>());
        text.put(&f::RESPONSE_BYTES, &label, of_api.iter().map(|api| api.response_bytes).sum::<u64>());
        text.put_times(&f::REQUEST_SECONDS, &label, of_api.iter().map(|api| &api.latency));
    }
    let mut errors: BTreeMap<(i16, i16), u64> = BTreeMap::new();
    for (of, count) in cores.iter().flat_map(|core| &core.counters.errors) {
        *errors.entry(*of).or_default() += count;
    }
    for ((key, code), count) in &errors {
        let api = api::find(*key).map_or(key.to_string(), |api| format!("{:?}", api.key));
        text.put(&f::REQUEST_ERRORS, &[("api", &api), ("error", &error_name(*code))], count);
    }
    let corrupt = (ApiKey::Fetch as i16, ResponseError::CorruptMessage.code());
    text.put(&f::CORRUPT_READS, &[], errors.get(&corrupt).copied().unwrap_or(0));
}

/// Kafka's name of a code.
fn error_name(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else { return code.to_string() };
    let mut name = String::new();
    for letter in format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric) {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    // Its code is -1, and any that Kafka doesn't have.
    if name == "UNKNOWN" { "UNKNOWN_SERVER_ERROR".to_owned() } else { name }
}

fn lanes(text: &mut Text, cores: &[&CoreSnapshot]) {
    for name in ["journal", "bulk"] {
        let stats = cores.iter().map(|core| if name == "bulk" { &core.log.bulk } else { &core.log.journal });
        text.put_times(&f::LANE_WRITE_SECONDS, &[("lane", name)], stats.clone().map(|lane: &LaneStats| &lane.write));
        text.put_times(&f::LANE_FLUSH_SECONDS, &[("lane", name)], stats.map(|lane| &lane.flush));
    }
}

fn topics(text: &mut Text, scrape: &Scrape, partitions_max: usize) {
    for (name, partitions) in scrape.topics.iter().take(TOPICS_SHOWN_MAX) {
        let mut traffic = TrafficStats::default();
        partitions.values().for_each(|row| traffic += row.stats.traffic);
        let label = [("topic", name.as_str())];
        text.put(&f::TOPIC_PARTITIONS, &label, partitions.len());
        text.put(&f::TOPIC_RECORDS_IN, &label, traffic.records);
        text.put(&f::TOPIC_BYTES_IN, &label, traffic.bytes_in);
        text.put(&f::TOPIC_BYTES_OUT, &label, traffic.bytes_out);
    }
    let all = scrape.topics.iter().flat_map(|(topic, rows)| rows.iter().map(move |(index, row)| (topic, index, row)));
    for (topic, index, row) in all.take(partitions_max) {
        partition(text, topic, *index, row);
    }
    let count: usize = scrape.topics.values().map(BTreeMap::len).sum();
    let unasked = usize::from(scrape.is_partial);
    text.put(&f::LEFT_OUT, &[("what", "topics")], scrape.topics.len().saturating_sub(TOPICS_SHOWN_MAX));
    text.put(&f::LEFT_OUT, &[("what", "partitions")], count.saturating_sub(partitions_max) + unasked);
}

fn partition(text: &mut Text, topic: &str, index: i32, row: &PartitionRow) {
    let index = index.to_string();
    let labels = [("topic", topic), ("partition", index.as_str())];
    text.put(&f::LOG_START, &labels, row.stats.offsets.log_start);
    text.put(&f::HIGH_WATERMARK, &labels, row.stats.offsets.high_watermark);
    text.put(&f::LOG_END, &labels, row.stats.offsets.log_end);
    text.put(&f::PARTITION_BYTES, &labels, row.stats.bytes);
    text.put(&f::PARTITION_SEGMENTS, &labels, row.stats.segments);
}

fn groups(text: &mut Text, scrape: &Scrape) {
    if let Some(core) = scrape.cores.iter().flatten().next() {
        text.put(&f::GROUP_MEMBERS_MAX, &[], core.group_members_max);
    }
    let mut unknown = 0;
    for group in &scrape.groups {
        text.put(&f::GROUP_MEMBERS, &[("group", &group.name)], group.members);
        for (topic, partition, committed) in &group.offsets {
            let index = partition.to_string();
            let labels = [("group", group.name.as_str()), ("topic", topic), ("partition", &index)];
            text.put(&f::GROUP_OFFSET, &labels, committed);
            let row = scrape.topics.get(topic).and_then(|partitions| partitions.get(partition));
            let Some(row) = row.filter(|row| row.stats.is_open) else {
                unknown += 1;
                continue;
            };
            let lag = (row.stats.offsets.high_watermark - committed).max(0);
            text.put(&f::GROUP_LAG, &labels, lag);
            text.put(&f::KAFKA_GROUP_LAG, &[("consumergroup", &group.name), ("topic", topic), ("partition", &index)], lag);
        }
    }
    text.put(&f::LEFT_OUT, &[("what", "groups")], scrape.groups_left_out);
    text.put(&f::LEFT_OUT, &[("what", "lags")], unknown);
}

#[cfg(test)]
mod tests {
    use super::error_name;

    #[test]
    fn errors_have_kafkas_names() {
        assert_eq!(error_name(2), "CORRUPT_MESSAGE");
        assert_eq!(error_name(56), "KAFKA_STORAGE_ERROR");
        assert_eq!(error_name(-1), "UNKNOWN_SERVER_ERROR");
        assert_eq!(error_name(32_000), "UNKNOWN_SERVER_ERROR");
    }
}
