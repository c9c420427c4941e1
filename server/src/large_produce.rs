//! A large produce with one batch, known by its first bytes: the batch can be received straight into memory that its
//! partition's tail adopts, and the rest of the request is as small as any other.

#![deny(clippy::disallowed_types)]

use crate::{api::TopicKey, one_batch::OneBatch};

/// Batches from this size on, in bytes, are received apart from their request: those that skip the journal.
pub const BATCH_BYTES_MIN: usize = 256 << 10;
/// Larger ones go into chunks of the tail's own size, which it gives back one by one.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes behind the batch at most: tagged fields, which nobody sends so far.
const REST_BYTES_MAX: usize = 1 << 10;

/// Where the batch lies in its request.
#[derive(Debug, PartialEq, Eq)]
pub struct LargeProduce<'a> {
    /// The topic.
    pub topic: TopicKey<'a>,
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
    let found = OneBatch::find(start)?;
    let rest_bytes = request_bytes.checked_sub(found.batch_at)?.checked_sub(found.batch_bytes)?;
    if !(BATCH_BYTES_MIN..=BATCH_BYTES_MAX).contains(&found.batch_bytes) || rest_bytes > REST_BYTES_MAX {
        return None;
    }
    let mut head = Vec::with_capacity(found.length_at + 4 + rest_bytes);
    head.extend_from_slice(&start[..found.length_at]);
    head.extend_from_slice(if found.is_flexible() { &[1] } else { &[0; 4] });
    let OneBatch { topic, partition, batch_at, batch_bytes, .. } = found;
    Some(LargeProduce { topic, partition, head, batch_at, batch_bytes, rest_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::one_batch::{VERSIONS, tests::request};
    use uuid::Uuid;

    const BATCH: &[u8] = &[7; BATCH_BYTES_MIN];

    #[test]
    fn the_batch_is_found_and_what_is_left_is_the_same_request_without_it() {
        for version in VERSIONS {
            let whole = request(version, &[(3, BATCH)]);
            let found = find(&whole[..400], whole.len()).unwrap();
            assert_eq!(found.partition, 3);
            assert_eq!(found.topic, if version >= 13 { TopicKey::Id(Uuid::from_u128(77)) } else { TopicKey::Name("orders") });
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
