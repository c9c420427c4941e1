//! A produce of one small batch, straight from the connection's buffer: what producers with little to send send most. Nothing
//! of the request is copied but its batch, and nothing is decoded twice.
//!
//! It is the usual way ([`super::produce`]) without its generality: what has to be waited for or has any other shape is left to that.

#![deny(clippy::disallowed_types)]

use super::{
    Asked, Reply, TopicKey, encoding,
    produce::{self, Failure},
};
use crate::{
    controller::now_ms,
    core::Core,
    one_batch::{FLEXIBLE, OneBatch},
};
use bytes::{BufMut, BytesMut};
use engine::{
    disk::UringDisk,
    log::{Durable, Incoming},
};
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, TopicName, produce_response::TopicProduceResponse},
    protocol::StrBytes,
};
use std::{
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use uuid::Uuid;

/// The first version whose answer has a log start offset (KIP-107).
const LOG_START_SINCE: i16 = 5;
/// The first version whose answer has errors of single records (KIP-467).
const RECORD_ERRORS_SINCE: i16 = 8;

/// An append that is answered when it is durable.
pub struct OneAppend {
    core: Rc<Core>,
    answer: Answer,
    durable: Durable<UringDisk>,
    is_durable: bool,
}

/// What its answer says, if nothing goes wrong.
struct Answer {
    asked: Asked,
    topic: Topic,
    partition: i32,
    base_offset: i64,
    log_append_time_ms: i64,
    log_start: i64,
}

/// The topic, as the request has named it.
enum Topic {
    Name(Rc<str>),
    Id(Uuid),
}

/// Appends the batch of a request that has one and nothing else. `None`: the request goes the usual way, nothing was appended.
/// `last_topic` is the name in the connection's last request: the next one shares it.
pub fn append(core: &Rc<Core>, request: &[u8], peer: SocketAddr, last_topic: &mut Rc<str>) -> Option<Reply> {
    let found = OneBatch::find(request)?;
    let batch = found.batch(request)?;
    let client = std::str::from_utf8(found.client_id.unwrap_or_default()).ok()?;
    if found.is_transactional || !matches!(found.acks, -1 | 1) || !core.log.admits(batch.len()) {
        return None;
    }
    let appended = produce::append(core, (found.version, client), found.topic, found.partition, Incoming::Borrowed(batch), now_ms());
    if let Err(Failure { error: ResponseError::KafkaStorageError, .. }) = appended {
        // Perhaps it is not open yet, and nothing has changed.
        return None;
    }
    tracing::trace!(%peer, client, api = ?ApiKey::Produce, version = found.version, "request");
    let topic = match found.topic {
        TopicKey::Id(id) => Topic::Id(id),
        TopicKey::Name(name) => {
            if **last_topic != *name {
                *last_topic = Rc::from(name);
            }
            Topic::Name(Rc::clone(last_topic))
        }
    };
    let asked = Asked { api: ApiKey::Produce, version: found.version, correlation_id: found.correlation_id };
    let (id, appended) = match appended {
        Ok(appended) => appended,
        Err(failure) => return Some(failed(core, asked, &topic, found.partition, failure)),
    };
    let answer = Answer {
        asked,
        topic,
        partition: found.partition,
        base_offset: appended.base_offset,
        log_append_time_ms: appended.log_append_time.unwrap_or(-1),
        log_start: appended.log_start,
    };
    let durable = core.log.durable_of(id, &appended);
    Some(Reply::One(OneAppend { core: Rc::clone(core), answer, durable, is_durable: false }))
}

/// The answer of a batch that was not appended, or never becomes durable.
fn failed(core: &Rc<Core>, asked: Asked, topic: &Topic, partition: i32, failure: Failure) -> Reply {
    let topic = match topic {
        Topic::Name(name) => TopicProduceResponse::default().with_name(TopicName(StrBytes::from_string(name.to_string()))),
        Topic::Id(id) => TopicProduceResponse::default().with_topic_id(*id),
    };
    let (core, outcomes) = (Rc::clone(core), vec![(topic, vec![(partition, Err(failure))])]);
    Reply::Later(Box::pin(async move { produce::answer(&core, asked, outcomes).await }))
}

impl OneAppend {
    /// Ready when it is durable; with the answer to be given instead if it never will be.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Reply>> {
        if self.is_durable {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.durable).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                self.is_durable = true;
                Poll::Ready(None)
            }
            Poll::Ready(Err(error)) => {
                let Answer { asked, topic, partition, .. } = &self.answer;
                Poll::Ready(Some(failed(&self.core, *asked, topic, *partition, error.into())))
            }
        }
    }

    /// Writes the answer, its length first, once it is durable.
    pub fn encode(&self, out: &mut BytesMut) {
        self.answer.encode(out);
    }
}

impl Answer {
    fn encode(&self, out: &mut BytesMut) {
        let Asked { version, correlation_id, .. } = self.asked;
        let flexible = version >= FLEXIBLE;
        let length_at = out.len();
        out.put_i32(0);
        out.put_i32(correlation_id);
        if flexible {
            out.put_u8(0);
        }
        encoding::count(out, flexible, 1);
        match &self.topic {
            Topic::Id(id) => out.put_slice(id.as_bytes()),
            Topic::Name(name) => encoding::string(out, flexible, name),
        }
        encoding::count(out, flexible, 1);
        out.put_i32(self.partition);
        out.put_i16(0);
        out.put_i64(self.base_offset);
        out.put_i64(self.log_append_time_ms);
        if version >= LOG_START_SINCE {
            out.put_i64(self.log_start);
        }
        if version >= RECORD_ERRORS_SINCE {
            encoding::count(out, flexible, 0);
            // No message.
            if flexible {
                out.put_u8(0);
            } else {
                out.put_i16(-1);
            }
        }
        if flexible {
            // Tagged fields: of the partition, of the topic.
            out.put_slice(&[0; 2]);
        }
        // The throttle time.
        out.put_i32(0);
        if flexible {
            out.put_u8(0);
        }
        let length = (out.len() - length_at - 4) as i32;
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{Header, decode, encode_to, header},
        one_batch::{VERSIONS, tests::request},
        signal::Signal,
    };
    use kafka_protocol::messages::{ProduceRequest, ProduceResponse, produce_response::PartitionProduceResponse};
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    #[test]
    fn an_answer_is_the_one_that_is_encoded_the_usual_way() {
        for version in VERSIONS {
            // Its length takes one byte, or two.
            for name in ["o".to_owned(), "orders".repeat(40)] {
                let partition = PartitionProduceResponse::default()
                    .with_index(7)
                    .with_base_offset(1 << 40)
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(if version >= LOG_START_SINCE { 12 } else { -1 });
                let id = Uuid::from_u128(77);
                let topic = TopicProduceResponse::default().with_partition_responses(vec![partition]);
                let (usual, topic) = if version >= crate::one_batch::TOPIC_IDS {
                    (topic.with_topic_id(id), Topic::Id(id))
                } else {
                    (topic.with_name(TopicName(StrBytes::from_string(name.clone()))), Topic::Name(Rc::from(&*name)))
                };
                let asked = Asked { api: ApiKey::Produce, version, correlation_id: 5 };
                let Ok(Reply::Whole(usual)) = encode_to(asked, &ProduceResponse::default().with_responses(vec![usual])) else {
                    panic!("version {version} can't be encoded");
                };
                let answer = Answer { asked, topic, partition: 7, base_offset: 1 << 40, log_append_time_ms: -1, log_start: 12 };
                let mut one = BytesMut::from(&b"before"[..]);
                answer.encode(&mut one);
                assert_eq!(one[6..], usual, "version {version}");
            }
        }
    }

    #[test]
    fn a_request_that_is_found_means_the_same_when_it_is_decoded() {
        let mut random = SmallRng::seed_from_u64(5);
        let (mut found, mut other) = (0, 0);
        for round in 0..200_000_usize {
            let version = VERSIONS.clone().nth(round % VERSIONS.clone().count()).unwrap();
            let mut bytes = request(version, &[(3, b"the batch")]).to_vec();
            for _ in 0..random.random_range(0..3) {
                let at = random.random_range(4..bytes.len());
                bytes[at] = if random.random() { random.random() } else { bytes[at] ^ 1 };
            }
            let one = OneBatch::find(&bytes).and_then(|one| Some((one.batch(&bytes)?.to_vec(), one)));
            let Some((batch, one)) = one.filter(|(_, one)| std::str::from_utf8(one.client_id.unwrap_or_default()).is_ok()) else {
                other += 1;
                continue;
            };
            found += 1;
            let peer = "127.0.0.1:1".parse().unwrap();
            let Ok(Header::Served { context, body, .. }) = header(bytes.clone().into(), peer, &Signal::default()) else {
                panic!("refused: {bytes:?}");
            };
            let usual: ProduceRequest = decode(&context, body).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
            assert_eq!((context.version, context.correlation_id), (one.version, one.correlation_id));
            assert_eq!(context.client_id.as_ref().map(|id| id.as_bytes()), one.client_id);
            assert_eq!((usual.acks, usual.transactional_id.is_some()), (one.acks, one.is_transactional));
            let [topic] = &usual.topic_data[..] else { panic!("more than one topic: {bytes:?}") };
            let key = if version >= crate::one_batch::TOPIC_IDS { TopicKey::Id(topic.topic_id) } else { TopicKey::Name(&topic.name) };
            assert_eq!(key, one.topic);
            let [partition] = &topic.partition_data[..] else { panic!("more than one partition: {bytes:?}") };
            assert_eq!((partition.index, partition.records.as_deref()), (one.partition, Some(&batch[..])));
        }
        assert!(found > 50_000 && other > 10_000, "{found} were found, {other} were not");
    }
}
