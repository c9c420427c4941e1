//! What compaction makes of a batch: fewer records, or none, under the same offsets, sequences and leader epoch.

use super::{
    codec::{Codec, compress},
    header::{CRC_FROM, HEADER_BYTES, Header, LENGTH_END, NO_TIMESTAMP},
    records::Record,
    varint::{Cursor, put_varint, put_varlong},
};
use std::io;

/// A record that stays, and its bytes within the uncompressed records of its batch.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The record.
    pub record: Record<'a>,
    /// Its bytes, the length field included.
    pub bytes: &'a [u8],
}

/// The batch of `header` with these of its records, compressed as it was. With `delete_horizon_ms` its tombstones (or its
/// marker) may go from that time on: it takes the place of the base timestamp (KIP-534). Offsets, sequences and epochs stay;
/// the newest timestamp becomes that of the records that stay, unless it is the broker's.
///
/// # Errors
/// The codec's, or an unknown one.
pub fn with_records(header: &Header, kept: &[Kept<'_>], delete_horizon_ms: Option<i64>) -> io::Result<Vec<u8>> {
    let codec = header.codec().map_err(|id| io::Error::new(io::ErrorKind::InvalidData, format!("compression type {id} is unknown")))?;
    let horizon = delete_horizon_ms.or_else(|| header.delete_horizon());
    let base = horizon.unwrap_or_else(|| header.base_timestamp());
    let shift = header.base_timestamp().wrapping_sub(base);
    let mut records = Vec::with_capacity(kept.iter().map(|kept| kept.bytes.len()).sum());
    for kept in kept {
        if shift == 0 {
            records.extend_from_slice(kept.bytes);
        } else {
            put_shifted(&mut records, kept, shift);
        }
    }
    let newest = kept.iter().map(|kept| kept.record.timestamp(header)).max().unwrap_or(NO_TIMESTAMP);
    let packed = compress(codec, &records)?;
    let mut new = *header;
    new.set_delete_horizon(horizon.is_some());
    new.base_timestamp = base.into();
    new.max_timestamp = newest.into();
    new.record_count = i32::try_from(kept.len()).expect("no more than it had").into();
    Ok(sealed(new, &packed))
}

/// The batch of `header` without any record: it only says that its offsets, and its producer's sequences, were there.
#[must_use]
pub fn without_records(header: &Header) -> Vec<u8> {
    let mut new = *header;
    new.attributes = (Header::flags(Codec::None, header.is_transactional(), header.is_control())).into();
    new.set_timestamp_type(header.is_log_append_time());
    new.base_timestamp = NO_TIMESTAMP.into();
    new.record_count = 0.into();
    sealed(new, &[])
}

fn sealed(mut header: Header, packed: &[u8]) -> Vec<u8> {
    header.length = i32::try_from(HEADER_BYTES - LENGTH_END + packed.len()).expect("a batch is below 2 GiB").into();
    let crc = crc32c::crc32c(&header.to_bytes()[CRC_FROM..]);
    header.crc = crc32c::crc32c_append(crc, packed).into();
    let mut batch = header.to_bytes().to_vec();
    batch.extend_from_slice(packed);
    batch
}

/// The record with a timestamp delta that is `shift` larger; all else byte for byte.
fn put_shifted(out: &mut Vec<u8>, kept: &Kept<'_>, shift: i64) {
    let mut cursor = Cursor(kept.bytes);
    let parts = (|| {
        cursor.varint()?;
        let attributes = cursor.byte()?;
        cursor.varlong()?;
        Some((attributes, cursor.0))
    })();
    let (attributes, rest) = parts.expect("a record that was read");
    let mut body = vec![attributes as u8];
    put_varlong(&mut body, kept.record.timestamp_delta.wrapping_add(shift));
    body.extend_from_slice(rest);
    put_varint(out, i32::try_from(body.len()).expect("a record is below 2 GiB"));
    out.extend_from_slice(&body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Records, crc, payload};

    fn kept<'a>(header: &Header, payload: &'a [u8], wanted: &[usize]) -> Vec<Kept<'a>> {
        let mut at = 0;
        let mut all = Vec::new();
        for record in Records::new(header, payload) {
            let record = record.expect("well-formed");
            all.push(Kept { record, bytes: &payload[at..at + record.size] });
            at += record.size;
        }
        wanted.iter().map(|index| all[*index]).collect()
    }

    #[test]
    fn what_stays_keeps_its_offset_time_key_value_and_headers_in_every_codec() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            for horizon in [None, Some(5_000_000)] {
                let batch = BatchBuilder::new()
                    .at(100, 7)
                    .producer(9, 1, 40)
                    .codec(codec)
                    .record(1_000, Some(b"a"), Some(b"1"))
                    .record_with_headers(3_000, Some(b"b"), None, &[("h", Some(b"x")), ("i", None)])
                    .record(2_000, Some(b"c"), Some(b"3"))
                    .build();
                let header = Header::read(&batch).expect("whole");
                let records = payload(&header, &batch, 1 << 20).expect("decompresses");
                let wanted = kept(&header, &records, &[1, 2]);
                let new = with_records(&header, &wanted, horizon).expect("compresses");
                let after = Header::read(&new).expect("whole");
                assert_eq!(after.crc(), crc(&new));
                assert_eq!((after.base_offset(), after.last_offset(), after.base_sequence(), after.last_sequence()), (100, 102, 40, 42));
                assert_eq!((after.record_count(), after.max_timestamp(), after.delete_horizon()), (2, 3_000, horizon));
                assert_eq!((after.leader_epoch(), after.codec()), (7, Ok(codec)));
                let records = payload(&after, &new, 1 << 20).expect("decompresses");
                let read: Vec<_> = Records::new(&after, &records).map(|record| record.expect("well-formed")).collect();
                for (record, kept) in read.iter().zip(&wanted) {
                    assert_eq!(record.offset(&after), kept.record.offset(&header));
                    assert_eq!(record.timestamp(&after), kept.record.timestamp(&header));
                    assert_eq!((record.key, record.value), (kept.record.key, kept.record.value));
                    assert!(record.headers.iter().eq(kept.record.headers.iter()));
                }
            }
        }
    }

    #[test]
    fn an_emptied_batch_still_says_whose_it_was_and_where_it_ended() {
        let batch = BatchBuilder::new().at(5, 2).producer(3, 4, 9).codec(Codec::Zstd).record(1, Some(b"k"), None).skip().build();
        let empty = without_records(&Header::read(&batch).expect("whole"));
        let header = Header::read(&empty).expect("whole");
        assert_eq!((empty.len(), header.record_count(), header.crc()), (HEADER_BYTES, 0, crc(&empty)));
        assert_eq!((header.base_offset(), header.last_offset(), header.leader_epoch()), (5, 6, 2));
        assert_eq!((header.producer_id(), header.producer_epoch(), header.last_sequence()), (3, 4, 10));
        assert_eq!(header.max_timestamp(), 1);
    }
}
