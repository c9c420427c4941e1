//! A large produce with one batch, known by its first bytes: the batch can be received straight into memory that its
//! partition's tail adopts, and the rest of the request is as small as any other.

#![deny(clippy::disallowed_types)]

use kafka_protocol::messages::ApiKey;
use uuid::Uuid;

/// Batches from this size on, in bytes, are received apart from their request: those that skip the journal.
pub const BATCH_BYTES_MIN: usize = 256 << 10;
/// Bytes behind the batch at most: tagged fields, which nobody sends so far.
const REST_BYTES_MAX: usize = 1 << 10;
/// The versions with this layout.
const VERSIONS: std::ops::RangeInclusive<i16> = 3..=13;
/// The version from which on lengths are varints and structures end in tagged fields.
const FLEXIBLE: i16 = 9;
/// The version from which on topics come by id.
const TOPIC_IDS: i16 = 13;

/// The topic as the request names it.
#[derive(Debug, PartialEq, Eq)]
pub enum Topic<'a> {
    /// By its name.
    Name(&'a str),
    /// By its id.
    Id(Uuid),
}

/// Where the batch lies in its request.
#[derive(Debug, PartialEq, Eq)]
pub struct LargeProduce<'a> {
    /// The topic.
    pub topic: Topic<'a>,
    /// The partition's index.
    pub partition: i32,
    /// The request up to the batch, with a batch of no bytes in its place.
    pub head: Vec<u8>,
    /// Bytes of the request in front of the batch.
    pub batch_at: usize,
    /// Bytes of the batch.
    pub batch_bytes: usize,
    /// Bytes behind it.
    pub rest_bytes: usize,
}

/// Finds it in the first bytes of a request of `request_bytes`. `None` is no error: the request is any other, or broken,
/// and goes the usual way.
#[must_use]
pub fn find(start: &[u8], request_bytes: usize) -> Option<LargeProduce<'_>> {
    let mut rest = Cursor { start, at: 0, flexible: false };
    let (key, version) = (rest.i16()?, rest.i16()?);
    if key != ApiKey::Produce as i16 || !VERSIONS.contains(&version) {
        return None;
    }
    let _correlation_id = rest.i32()?;
    let _client_id = rest.string()?;
    rest.flexible = version >= FLEXIBLE;
    if rest.flexible && rest.varint()? != 0 {
        return None;
    }
    let _transactional_id = rest.string()?;
    let (_acks, _timeout_ms) = (rest.i16()?, rest.i32()?);
    if rest.length()? != 1 {
        return None;
    }
    let topic = match version {
        TOPIC_IDS.. => Topic::Id(Uuid::from_bytes(rest.take(16)?.try_into().ok()?)),
        _ => Topic::Name(std::str::from_utf8(rest.string()??).ok()?),
    };
    if rest.length()? != 1 {
        return None;
    }
    let partition = rest.i32()?;
    let length_at = rest.at;
    let batch_bytes = usize::try_from(rest.length()?).ok()?;
    let batch_at = rest.at;
    let rest_bytes = request_bytes.checked_sub(batch_at)?.checked_sub(batch_bytes)?;
    if batch_bytes < BATCH_BYTES_MIN || rest_bytes > REST_BYTES_MAX {
        return None;
    }
    let mut head = Vec::with_capacity(length_at + 4 + rest_bytes);
    head.extend_from_slice(&start[..length_at]);
    head.extend_from_slice(if rest.flexible { &[1] } else { &[0; 4] });
    Some(LargeProduce { topic, partition, head, batch_at, batch_bytes, rest_bytes })
}

struct Cursor<'a> {
    start: &'a [u8],
    at: usize,
    flexible: bool,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.start.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    /// The length of an array or of bytes; -1 for null.
    fn length(&mut self) -> Option<i64> {
        if self.flexible { Some(i64::from(self.varint()?) - 1) } else { self.i32().map(i64::from) }
    }

    /// A string, which may be null.
    fn string(&mut self) -> Option<Option<&'a [u8]>> {
        let length = if self.flexible { self.length()? } else { i64::from(self.i16()?) };
        match usize::try_from(length) {
            Ok(length) => Some(Some(self.take(length)?)),
            Err(_) => Some(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::{
        messages::{
            ProduceRequest, RequestHeader, TopicName,
            produce_request::{PartitionProduceData, TopicProduceData},
        },
        protocol::{Encodable, HeaderVersion, StrBytes},
    };

    const BATCH: &[u8] = &[7; BATCH_BYTES_MIN];

    fn request(version: i16, partitions: &[(i32, &[u8])]) -> BytesMut {
        let mut out = BytesMut::new();
        let header = RequestHeader::default().with_request_api_key(0).with_request_api_version(version).with_correlation_id(5);
        header.with_client_id(Some(StrBytes::from_static_str("it"))).encode(&mut out, ProduceRequest::header_version(version)).unwrap();
        let partition = |(index, records): &(i32, &[u8])| {
            PartitionProduceData::default().with_index(*index).with_records(Some(Bytes::copy_from_slice(records)))
        };
        let topic = TopicProduceData::default().with_partition_data(partitions.iter().map(partition).collect());
        let topic = match version {
            TOPIC_IDS.. => topic.with_topic_id(Uuid::from_u128(77)),
            _ => topic.with_name(TopicName(StrBytes::from_static_str("orders"))),
        };
        ProduceRequest::default().with_acks(-1).with_timeout_ms(9).with_topic_data(vec![topic]).encode(&mut out, version).unwrap();
        out
    }

    #[test]
    fn the_batch_is_found_and_what_is_left_is_the_same_request_without_it() {
        for version in VERSIONS {
            let whole = request(version, &[(3, BATCH)]);
            let found = find(&whole[..400], whole.len()).unwrap();
            assert_eq!(found.partition, 3);
            assert_eq!(found.topic, if version >= TOPIC_IDS { Topic::Id(Uuid::from_u128(77)) } else { Topic::Name("orders") });
            assert_eq!(&whole[found.batch_at..found.batch_at + found.batch_bytes], BATCH);
            let mut left = found.head.clone();
            left.extend_from_slice(&whole[whole.len() - found.rest_bytes..]);
            assert_eq!(left, request(version, &[(3, b"")]), "version {version}");
        }
    }

    #[test]
    fn other_requests_go_the_usual_way() {
        for version in VERSIONS {
            let small = request(version, &[(3, &BATCH[1..])]);
            assert_eq!(find(&small, small.len()), None);
            let two = request(version, &[(3, BATCH), (4, BATCH)]);
            assert_eq!(find(&two, two.len()), None);
            let whole = request(version, &[(3, BATCH)]);
            assert_eq!(find(&whole, whole.len() - BATCH.len()), None, "the batch is longer than the request");
            for end in 0..60 {
                // However little of it has come, it is found whole or not at all.
                if let Some(found) = find(&whole[..end], whole.len()) {
                    assert!(found.batch_at <= end);
                }
            }
        }
        assert_eq!(find(&[0; 100], 1 << 20), None);
        assert_eq!(find(&[0xff; 100], 1 << 20), None);
    }
}
