//! Produce: appends batches. The appends happen in the order of the requests of a connection; the wait for durability does
//! not hold up the next request.
//!
//! `acks=1` is answered when the data is durable too, like `acks=all`: on one machine nothing lies between the two but
//! the flush.

use super::{
    Asked, Refused, Reply, RequestContext, decode, encode_to,
    locate::{Leader, Location, TopicKey},
};
use crate::{controller::now_ms, core::Core, errors};
use bytes::Bytes;
use engine::{
    disk::Slice,
    log::{AppendError, Appended, Incoming},
    partition::PartitionId,
};
use kafka_protocol::{
    ResponseError,
    messages::{
        BrokerId, ProduceRequest, ProduceResponse,
        produce_response::{LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse},
    },
    protocol::StrBytes,
};
use std::rc::Rc;

/// Where a batch's compression is (the low three bits of its attributes).
const ATTRIBUTES_AT: usize = 21;
const COMPRESSION_MASK: u8 = 7;
const ZSTD: u8 = 4;
/// The first version whose clients may send zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;
/// Where a batch's length is, and what the length does not count.
const LENGTH_AT: usize = 8;
const LENGTH_BEHIND: usize = 12;
/// Where the message format is.
const MAGIC_AT: usize = 16;

/// The client id that may append to internal topics, as in Kafka (`AdminUtils.ADMIN_CLIENT_ID`).
const INTERNAL_CLIENT: &str = "__admin_client";

/// What became of one partition's batch.
type Outcome = Result<(PartitionId, Appended), Failure>;

/// Why a batch was not appended.
pub(super) struct Failure {
    pub(super) error: ResponseError,
    message: Option<String>,
    leader: Option<Leader>,
}

impl From<ResponseError> for Failure {
    fn from(error: ResponseError) -> Failure {
        Failure { error, message: None, leader: None }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Failure {
        Failure { error: errors::of_append(&error), message: Some(error.to_string()), leader: None }
    }
}

/// The topics of a request, each partition with what became of it.
pub(super) type Outcomes = Vec<(TopicProduceResponse, Vec<(i32, Outcome)>)>;

/// Appends, and answers later.
pub async fn handle(core: Rc<Core>, mut context: RequestContext, body: Bytes) -> Result<Reply, Refused> {
    let request: ProduceRequest = decode(&context, body)?;
    let acks = request.acks;
    let asked = context.asked();
    let received = context.batch.take();
    let outcomes = append_all(&core, &context, request, received).await;
    if acks == 0 {
        let failed = outcomes.iter().flat_map(|(_, partitions)| partitions).find_map(|(_, outcome)| outcome.as_ref().err());
        return match failed {
            Some(failure) => {
                core.counters.failed(context.api, failure.error.code());
                Err(Refused::UnackedFailed(failure.error))
            }
            None => Ok(Reply::Silent),
        };
    }
    Ok(Reply::Later(Box::pin(async move { answer(&core, asked, outcomes).await })))
}

/// Appends every batch; `received` is the only one, if it was received apart.
async fn append_all(core: &Rc<Core>, context: &RequestContext, request: ProduceRequest, mut received: Option<Slice>) -> Outcomes {
    let mut ids = Vec::new();
    let mut bytes = received.as_ref().map_or(0, |batch| batch.len());
    for topic in &request.topic_data {
        let key = if context.version >= 13 { TopicKey::Id(topic.topic_id) } else { TopicKey::Name(&topic.name) };
        for partition in &topic.partition_data {
            if let Location::Here(id) = core.locate(key, partition.index) {
                ids.push(id);
                bytes += partition.records.as_ref().map_or(0, Bytes::len);
            }
        }
    }
    // What a partition has against being opened, its append will say again.
    let _ = core.log.ready(&ids).await;
    core.log.admit(bytes).await;
    let now_ms = now_ms();
    let mut outcomes = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let key = if context.version >= 13 { TopicKey::Id(topic.topic_id) } else { TopicKey::Name(&topic.name) };
        let partitions = topic.partition_data.iter().map(|partition| {
            let outcome = match request.acks {
                -1..=1 => {
                    let batch = match received.take() {
                        Some(batch) => Incoming::Received(batch),
                        None => Incoming::Borrowed(partition.records.as_deref().unwrap_or(&[])),
                    };
                    append(core, (context.version, context.client()), key, partition.index, batch, now_ms)
                }
                _ => Err(ResponseError::InvalidRequiredAcks.into()),
            };
            (partition.index, outcome)
        });
        let partitions = partitions.collect();
        let answer = TopicProduceResponse::default();
        let answer = if context.version >= 13 { answer.with_topic_id(topic.topic_id) } else { answer.with_name(topic.name) };
        outcomes.push((answer, partitions));
    }
    outcomes
}

/// Appends one batch that a client (`version` of the API, and its name for itself) has sent.
pub(super) fn append(
    core: &Core,
    (version, client): (i16, &str),
    topic: TopicKey<'_>,
    partition: i32,
    batch: Incoming<'_>,
    now_ms: i64,
) -> Outcome {
    let location = {
        let catalog = core.catalog.borrow();
        let found = topic.find(&catalog);
        // What stands in it is taken for commits at the next start.
        if found.is_some_and(|found| found.internal) && client != INTERNAL_CLIENT {
            let message = Some("Cannot append to an internal topic: the broker itself writes it.".to_owned());
            return Err(Failure { message, ..ResponseError::InvalidTopicException.into() });
        }
        core.locate_in(topic, found, partition)
    };
    let id = match location {
        Location::Here(id) => id,
        Location::Elsewhere(leader) => {
            return Err(Failure { leader: Some(leader), ..ResponseError::NotLeaderOrFollower.into() });
        }
        Location::Nowhere(error) => return Err(error.into()),
    };
    let bytes = batch.bytes();
    if bytes.get(ATTRIBUTES_AT + 1).is_some_and(|low| low & COMPRESSION_MASK == ZSTD) && version < ZSTD_SINCE {
        return Err(AppendError::UnsupportedCompression(i16::from(ZSTD)).into());
    }
    if holds_another_batch(bytes) {
        return Err(AppendError::InvalidRecord("a produce request holds exactly one batch per partition".into()).into());
    }
    Ok((id, core.log.append(id, batch, now_ms)?))
}

/// Whether a whole batch of format 2 is followed by something that is not a part of it.
fn holds_another_batch(bytes: &[u8]) -> bool {
    let length = bytes.get(LENGTH_AT..).and_then(|rest| rest.first_chunk::<4>()).map(|length| i32::from_be_bytes(*length));
    let end = length.and_then(|length| usize::try_from(length).ok()).map(|length| length + LENGTH_BEHIND);
    bytes.get(MAGIC_AT) == Some(&2) && end.is_some_and(|end| end + MAGIC_AT < bytes.len() && bytes[end + MAGIC_AT] == 2)
}

/// Waits until everything is durable, and says what became of it.
pub(super) async fn answer(core: &Rc<Core>, asked: Asked, outcomes: Outcomes) -> Result<Reply, Refused> {
    let mut leaders = Vec::new();
    let mut topics = Vec::with_capacity(outcomes.len());
    for (topic, partitions) in outcomes {
        let mut answers = Vec::with_capacity(partitions.len());
        for (index, outcome) in partitions {
            let answer = PartitionProduceResponse::default().with_index(index);
            let outcome = durable(core, outcome).await.inspect_err(|failure| core.counters.failed(asked.api, failure.error.code()));
            answers.push(match outcome {
                Ok(appended) => answer
                    .with_base_offset(appended.base_offset)
                    .with_log_append_time_ms(appended.log_append_time.unwrap_or(-1))
                    .with_log_start_offset(appended.log_start),
                Err(failure) => failed(asked.version, answer, failure, &mut leaders),
            });
        }
        topics.push(topic.with_partition_responses(answers));
    }
    let endpoints = leaders.into_iter().filter_map(|node| {
        let reached = core.settings.nodes.get(node)?;
        let host = StrBytes::from_string(reached.host.clone());
        Some(NodeEndpoint::default().with_node_id(BrokerId(node as i32)).with_host(host).with_port(i32::from(reached.port)))
    });
    encode_to(asked, &ProduceResponse::default().with_responses(topics).with_node_endpoints(endpoints.collect()))
}

async fn durable(core: &Rc<Core>, outcome: Outcome) -> Result<Appended, Failure> {
    let (id, appended) = outcome?;
    core.log.durable_of(id, &appended).await?;
    Ok(appended)
}

fn failed(version: i16, answer: PartitionProduceResponse, failure: Failure, leaders: &mut Vec<usize>) -> PartitionProduceResponse {
    let mut answer =
        answer.with_error_code(failure.error.code()).with_base_offset(-1).with_log_append_time_ms(-1).with_log_start_offset(-1);
    if version >= 8 {
        answer = answer.with_error_message(failure.message.map(StrBytes::from_string));
    }
    if let Some(leader) = failure.leader.filter(|_| version >= 10) {
        if !leaders.contains(&leader.node) {
            leaders.push(leader.node);
        }
        let current = LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader.node as i32)).with_leader_epoch(leader.epoch);
        answer = answer.with_current_leader(current);
    }
    answer
}
