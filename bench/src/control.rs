//! What comes before and after the load, on a blocking connection: topics, leaders, offsets.

use crate::{batch, clock::wall_ms};
use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, ApiKey, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
        DeleteTopicsResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
        RequestHeader, ResponseHeader, TopicName,
        alter_configs_request::{AlterConfigsResource, AlterableConfig},
        create_topics_request::CreatableTopic,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Kafka's TOPIC_ALREADY_EXISTS.
const TOPIC_ALREADY_EXISTS: i16 = 36;

/// Kafka's UNKNOWN_TOPIC_OR_PARTITION.
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// Where each partition's leader listens.
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Leader address per partition.
    pub leaders: Vec<String>,
}

impl Topic {
    /// The partitions of each leader, in order.
    #[must_use]
    pub fn by_leader(&self) -> BTreeMap<&str, Vec<i32>> {
        let mut by_leader: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (partition, leader) in self.leaders.iter().enumerate() {
            by_leader.entry(leader).or_default().push(partition as i32);
        }
        by_leader
    }
}

fn call<Q: Encodable, R: Decodable>(address: &str, key: ApiKey, version: i16, request: &Q) -> Result<R> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut out = BytesMut::from(&[0u8; 4][..]);
    RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(1)
        .with_client_id(Some(StrBytes::from_static_str("thalweg-bench")))
        .encode(&mut out, key.request_header_version(version))?;
    request.encode(&mut out, version)?;
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&out)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length))?;
    ensure!(length <= 64 << 20, "a response of {length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let mut body = Bytes::from(body);
    ResponseHeader::decode(&mut body, key.response_header_version(version))?;
    R::decode(&mut body, version)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Whether a topic was there before it was to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    Now,
    /// It was there already.
    Before,
}

/// Creates the topic if it does not exist.
///
/// # Errors
/// The broker's.
pub fn create(broker: &str, name: &str, partitions: i32) -> Result<()> {
    create_new(broker, name, partitions).map(drop)
}

/// Creates the topic, and says whether it was there before.
///
/// # Errors
/// The broker's.
pub fn create_new(broker: &str, name: &str, partitions: i32) -> Result<Created> {
    let topic = CreatableTopic::default().with_name(topic_name(name)).with_num_partitions(partitions).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
    let response: CreateTopicsResponse = call(broker, ApiKey::CreateTopics, 5, &request)?;
    match response.topics.first().map(|topic| topic.error_code) {
        Some(0) => Ok(Created::Now),
        Some(TOPIC_ALREADY_EXISTS) => Ok(Created::Before),
        Some(error) => anyhow::bail!("creating {name}: Kafka error {error}"),
        None => anyhow::bail!("creating {name}: the broker's answer does not name it"),
    }
}

/// Gives a topic these settings, and no others.
///
/// # Errors
/// The broker's.
pub fn alter(broker: &str, name: &str, settings: &[(&str, &str)]) -> Result<()> {
    const TOPIC: i8 = 2;
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let config = |(name, value): &(&str, &str)| AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(name))
        .with_configs(settings.iter().map(config).collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let response: AlterConfigsResponse = call(broker, ApiKey::AlterConfigs, 1, &request)?;
    for resource in response.responses {
        ensure!(resource.error_code == 0, "settings of {name}: Kafka error {}", resource.error_code);
    }
    Ok(())
}

/// Deletes the topic, if it exists, with its data.
///
/// # Errors
/// The broker's.
pub fn delete(broker: &str, name: &str) -> Result<()> {
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(name)]).with_timeout_ms(60_000);
    let response: DeleteTopicsResponse = call(broker, ApiKey::DeleteTopics, 4, &request)?;
    for topic in response.responses {
        ensure!(matches!(topic.error_code, 0 | UNKNOWN_TOPIC_OR_PARTITION), "deleting {name}: Kafka error {}", topic.error_code);
    }
    Ok(())
}

/// True if a broker answers at this address.
#[must_use]
pub fn answers(broker: &str) -> bool {
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    call::<_, MetadataResponse>(broker, ApiKey::Metadata, 5, &request).is_ok_and(|response| !response.brokers.is_empty())
}

/// Finds the topic's leaders, waiting until every partition has one.
///
/// # Errors
/// The broker's, or no leader within 30 s.
pub fn topic(broker: &str, name: &str) -> Result<Topic> {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
    for _ in 0..300 {
        let response: MetadataResponse = call(broker, ApiKey::Metadata, 5, &request)?;
        let brokers: BTreeMap<i32, String> =
            response.brokers.iter().map(|broker| (broker.node_id.0, format!("{}:{}", broker.host, broker.port))).collect();
        let found = response.topics.first().filter(|topic| topic.error_code == 0 && !topic.partitions.is_empty());
        let mut leaders: Vec<(i32, Option<String>)> = found.map_or_else(Vec::new, |topic| {
            topic.partitions.iter().map(|partition| (partition.partition_index, brokers.get(&partition.leader_id.0).cloned())).collect()
        });
        leaders.sort();
        let leaders: Option<Vec<String>> = leaders.into_iter().map(|(_, leader)| leader).collect();
        if let Some(leaders) = leaders.filter(|leaders| !leaders.is_empty()) {
            return Ok(Topic { name: name.to_owned(), leaders });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("topic {name} has no leaders")
}

/// Produces one record into partition 0 of a topic that exists, with acks=all, and waits for the ack.
///
/// # Errors
/// The broker's, or it does not run yet.
pub fn produce_one(broker: &str, name: &str) -> Result<()> {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
    let response: MetadataResponse = call(broker, ApiKey::Metadata, 5, &request)?;
    let found = response.topics.first().and_then(|topic| topic.partitions.iter().find(|partition| partition.partition_index == 0));
    let leader = found.context("partition 0 is not known yet")?.leader_id;
    let leader = response.brokers.iter().find(|broker| broker.node_id == leader).context("partition 0 has no leader yet")?;
    let batch = batch::encode(&[None], 100, batch::Compression::None, wall_ms())?;
    produce(&format!("{}:{}", leader.host, leader.port), name, batch)
}

/// Produces one batch into partition 0 of a topic, which `leader` leads, with acks=all, and waits for the ack.
///
/// # Errors
/// The broker's.
pub fn produce(leader: &str, name: &str, batch: Vec<u8>) -> Result<()> {
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(batch.into()));
    let topic = TopicProduceData::default().with_name(topic_name(name)).with_partition_data(vec![partition]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(60_000).with_topic_data(vec![topic]);
    let response: ProduceResponse = call(leader, ApiKey::Produce, 7, &request)?;
    for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
        ensure!(partition.error_code == 0, "producing: Kafka error {}", partition.error_code);
    }
    Ok(())
}

/// ListOffsets for the first offset.
pub const EARLIEST: i64 = -2;
/// ListOffsets for the end.
pub const LATEST: i64 = -1;

/// Kafka's UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE and NOT_LEADER_OR_FOLLOWER: a new topic's leaders may not be ready.
const NOT_READY: [i16; 3] = [UNKNOWN_TOPIC_OR_PARTITION, 5, 6];

/// The offset of each partition at `timestamp` ([`EARLIEST`] or [`LATEST`]); waits until every leader is ready.
///
/// # Errors
/// The broker's, or a leader that is not ready within 30 s.
pub fn offsets(topic: &Topic, timestamp: i64) -> Result<Vec<i64>> {
    let mut found = vec![-1; topic.leaders.len()];
    for (leader, partitions) in topic.by_leader() {
        let wanted = partitions
            .into_iter()
            .map(|partition| ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp))
            .collect();
        let wanted = ListOffsetsTopic::default().with_name(topic_name(&topic.name)).with_partitions(wanted);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![wanted]);
        for attempt in 0.. {
            let response: ListOffsetsResponse = call(leader, ApiKey::ListOffsets, 5, &request)?;
            let partitions = || response.topics.iter().flat_map(|topic| &topic.partitions);
            match partitions().map(|partition| partition.error_code).find(|error| *error != 0) {
                Some(error) if NOT_READY.contains(&error) && attempt < 300 => std::thread::sleep(Duration::from_millis(100)),
                Some(error) => anyhow::bail!("ListOffsets: Kafka error {error}"),
                None => {
                    for partition in partitions() {
                        found[partition.partition_index as usize] = partition.offset;
                    }
                    break;
                }
            }
        }
    }
    Ok(found)
}
