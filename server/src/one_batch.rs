//! A produce of one batch, to one partition of one topic, as its bytes show it: nothing is decoded, nothing allocated.

#![deny(clippy::disallowed_types)]

use crate::api::TopicKey;
use kafka_protocol::messages::ApiKey;
use uuid::Uuid;

/// The versions with this layout.
pub const VERSIONS: std::ops::RangeInclusive<i16> = 3..=13;
/// The version from which on lengths are varints and structures end in tagged fields.
pub const FLEXIBLE: i16 = 9;
/// The version from which on topics come by id.
pub const TOPIC_IDS: i16 = 13;
/// What ends a request of a flexible version: no tagged fields of the partition, of the topic and of the request.
const NO_TAGGED_FIELDS: &[u8] = &[0; 3];

/// Where everything lies in the request.
#[derive(Debug, PartialEq, Eq)]
pub struct OneBatch<'a> {
    /// Its version.
    pub version: i16,
    /// What the client wants back with the answer.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<&'a [u8]>,
    /// The request names a transactional id.
    pub is_transactional: bool,
    /// `acks`.
    pub acks: i16,
    /// The topic.
    pub topic: TopicKey<'a>,
    /// The partition's index.
    pub partition: i32,
    /// Bytes of the request in front of the batch's length.
    pub length_at: usize,
    /// Bytes of the request in front of the batch.
    pub batch_at: usize,
    /// Bytes of the batch.
    pub batch_bytes: usize,
}

impl<'a> OneBatch<'a> {
    /// Finds it in the first bytes of a request. `None` is no error: the request is any other, or broken, or too little of it
    /// has come.
    #[must_use]
    pub fn find(start: &'a [u8]) -> Option<OneBatch<'a>> {
        let mut rest = Cursor { start, at: 0, flexible: false };
        let (key, version) = (rest.i16()?, rest.i16()?);
        if key != ApiKey::Produce as i16 || !VERSIONS.contains(&version) {
            return None;
        }
        let correlation_id = rest.i32()?;
        let client_id = rest.string()?;
        rest.flexible = version >= FLEXIBLE;
        if rest.flexible && rest.varint()? != 0 {
            return None;
        }
        let is_transactional = rest.string()?.is_some();
        let (acks, _timeout_ms) = (rest.i16()?, rest.i32()?);
        if rest.length()? != 1 {
            return None;
        }
        let topic = match version {
            TOPIC_IDS.. => TopicKey::Id(Uuid::from_bytes(rest.take(16)?.try_into().ok()?)),
            _ => TopicKey::Name(std::str::from_utf8(rest.string()??).ok()?),
        };
        if rest.length()? != 1 {
            return None;
        }
        let partition = rest.i32()?;
        let length_at = rest.at;
        let batch_bytes = usize::try_from(rest.length()?).ok()?;
        let batch_at = rest.at;
        Some(OneBatch { version, correlation_id, client_id, is_transactional, acks, topic, partition, length_at, batch_at, batch_bytes })
    }

    /// Lengths are varints, and structures end in tagged fields.
    #[must_use]
    pub fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE
    }

    /// The batch, if `request` is all of the request and ends as it has to, without tagged fields.
    #[must_use]
    pub fn batch<'r>(&self, request: &'r [u8]) -> Option<&'r [u8]> {
        let (batch, behind) = request.get(self.batch_at..)?.split_at_checked(self.batch_bytes)?;
        let end = if self.is_flexible() { NO_TAGGED_FIELDS } else { &[] };
        (behind == end).then_some(batch)
    }
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
            Err(_) => (length == -1).then_some(None),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::{
        messages::{
            ProduceRequest, RequestHeader, TopicName,
            produce_request::{PartitionProduceData, TopicProduceData},
        },
        protocol::{Encodable, HeaderVersion, StrBytes},
    };

    /// A request with these partitions of `orders`, each with its batch.
    pub fn request(version: i16, partitions: &[(i32, &[u8])]) -> BytesMut {
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
    fn the_fields_are_those_that_were_encoded() {
        for version in VERSIONS {
            let whole = request(version, &[(3, b"batch")]);
            let found = OneBatch::find(&whole).unwrap();
            assert_eq!((found.version, found.correlation_id, found.acks, found.partition), (version, 5, -1, 3));
            assert_eq!((found.client_id, found.is_transactional), (Some(&b"it"[..]), false));
            assert_eq!(found.batch(&whole), Some(&b"batch"[..]));
            assert_eq!(found.batch(&whole[..whole.len() - 1]), None, "cut off");
            let mut longer = whole.clone();
            longer.extend_from_slice(&[0]);
            assert_eq!(found.batch(&longer), None, "something is behind it");
            let two = request(version, &[(3, b"batch"), (4, b"batch")]);
            assert_eq!(OneBatch::find(&two), None);
        }
    }
}
