//! Builds batches: for the catalog and the groups, which write records of their own, and for tests and tools.

use super::{
    codec::{Codec, compress},
    header::{CRC_FROM, HEADER_BYTES, Header, LENGTH_END, MAGIC, NO_PRODUCER, NO_TIMESTAMP},
    varint::{put_nullable, put_varint, put_varlong},
};

/// Builds one batch. Records get the offset deltas 0, 1, 2 and so on, unless one is skipped.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    base_offset: i64,
    leader_epoch: i32,
    producer: (i64, i16, i32),
    codec: Codec,
    transactional: bool,
    control: bool,
    log_append_time: Option<i64>,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    next_delta: i32,
    count: i32,
    records: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// A batch at base offset 0, leader epoch -1 (as clients send it), uncompressed, without a producer.
    #[must_use]
    pub fn new() -> BatchBuilder {
        BatchBuilder {
            base_offset: 0,
            leader_epoch: -1,
            producer: (NO_PRODUCER, -1, -1),
            codec: Codec::None,
            transactional: false,
            control: false,
            log_append_time: None,
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            next_delta: 0,
            count: 0,
            records: Vec::new(),
        }
    }

    /// Sets base offset and leader epoch, as an append does.
    #[must_use]
    pub fn at(mut self, base_offset: i64, leader_epoch: i32) -> Self {
        self.base_offset = base_offset;
        self.leader_epoch = leader_epoch;
        self
    }

    /// Makes it an idempotent producer's.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Compresses the records.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Makes it part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    /// Makes it a control batch.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.control = true;
        self
    }

    /// Stamps it with the broker's time, in ms.
    #[must_use]
    pub fn log_append_time(mut self, now_ms: i64) -> Self {
        self.log_append_time = Some(now_ms);
        self
    }

    /// Adds a record without headers.
    #[must_use]
    pub fn record(self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.record_with_headers(timestamp_ms, key, value, &[])
    }

    /// Adds a record.
    #[must_use]
    pub fn record_with_headers(
        mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Self {
        self.push(timestamp_ms, key, value, headers);
        self
    }

    /// Adds a record.
    pub fn push(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) {
        let base = *self.base_timestamp.get_or_insert(timestamp_ms);
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        let mut body = vec![0];
        put_varlong(&mut body, timestamp_ms.wrapping_sub(base));
        put_varint(&mut body, self.next_delta);
        put_nullable(&mut body, key);
        put_nullable(&mut body, value);
        put_varint(&mut body, i32::try_from(headers.len()).expect("headers are few"));
        for (name, value) in headers {
            put_nullable(&mut body, Some(name.as_bytes()));
            put_nullable(&mut body, *value);
        }
        put_varint(&mut self.records, i32::try_from(body.len()).expect("a record is below 2 GiB"));
        self.records.extend_from_slice(&body);
        self.next_delta += 1;
        self.count += 1;
    }

    /// Leaves out one offset, as compaction does.
    #[must_use]
    pub fn skip(mut self) -> Self {
        self.next_delta += 1;
        self
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True without a record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The records so far in bytes, uncompressed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// The whole batch.
    #[must_use]
    pub fn build(self) -> Vec<u8> {
        // Compressors fail only if the sink does, and the sink is memory.
        let packed = compress(self.codec, &self.records).expect("memory takes every byte");
        let length = i32::try_from(HEADER_BYTES - LENGTH_END + packed.len()).expect("a batch is below 2 GiB");
        let mut header = Header {
            base_offset: self.base_offset.into(),
            length: length.into(),
            leader_epoch: self.leader_epoch.into(),
            magic: MAGIC,
            crc: 0.into(),
            attributes: Header::flags(self.codec, self.transactional, self.control).into(),
            last_offset_delta: (self.next_delta - 1).max(0).into(),
            base_timestamp: self.base_timestamp.unwrap_or(NO_TIMESTAMP).into(),
            max_timestamp: self.log_append_time.unwrap_or(self.max_timestamp).into(),
            producer_id: self.producer.0.into(),
            producer_epoch: self.producer.1.into(),
            base_sequence: self.producer.2.into(),
            record_count: self.count.into(),
        };
        header.set_timestamp_type(self.log_append_time.is_some());
        let crc = crc32c::crc32c(&header.to_bytes()[CRC_FROM..]);
        header.crc = crc32c::crc32c_append(crc, &packed).into();
        let mut batch = header.to_bytes().to_vec();
        batch.extend_from_slice(&packed);
        batch
    }
}

/// A control batch that ends a producer's transaction, at `offset`.
#[must_use]
pub fn control_batch(offset: i64, leader_epoch: i32, producer: (i64, i16), commit: bool, now_ms: i64) -> Vec<u8> {
    BatchBuilder::new()
        .at(offset, leader_epoch)
        .producer(producer.0, producer.1, -1)
        .transactional()
        .control()
        .record(now_ms, Some(&[0, 0, 0, u8::from(commit)]), Some(&[0, 0, 0, 0, 0, 0]))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{ControlRecord, Records, payload};
    use proptest::prelude::*;

    type Parts = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

    fn records() -> impl Strategy<Value = Vec<Parts>> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..50));
        prop::collection::vec((0i64..1 << 40, bytes(), bytes(), prop::collection::vec(("[a-z]{0,9}", bytes()), 0..3)), 1..20)
    }

    proptest! {
        #[test]
        fn records_survive_every_codec(records in records(), codec in 0i16..5) {
            let codec = Codec::of_id(codec).expect("known");
            let mut builder = BatchBuilder::new().codec(codec);
            for (timestamp, key, value, headers) in &records {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
                builder.push(*timestamp, key.as_deref(), value.as_deref(), &headers);
            }
            let batch = builder.build();
            let header = Header::read(&batch).expect("whole");
            prop_assert_eq!(header.size(), batch.len());
            prop_assert_eq!(header.crc(), crate::batch::crc(&batch));
            let payload = payload(&header, &batch, 1 << 20).expect("decompresses");
            let read: Vec<Parts> = Records::new(&header, &payload)
                .map(|record| record.expect("well-formed"))
                .map(|record| {
                    let headers = record.headers.iter()
                        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.map(<[u8]>::to_vec)));
                    (record.timestamp(&header), record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers.collect())
                })
                .collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn walking_any_bytes_never_panics(bytes: Vec<u8>, count: i32) {
            let mut header = Header::read(&BatchBuilder::new().build()).expect("whole");
            header.record_count = count.into();
            let walked = Records::new(&header, &bytes).take(1_000).filter(Result::is_ok).count();
            prop_assert!(walked <= bytes.len());
        }
    }

    #[test]
    fn a_control_batch_says_how_the_transaction_ended() {
        for commit in [true, false] {
            let batch = control_batch(9, 3, (77, 1), commit, 5);
            let header = Header::read(&batch).expect("whole");
            let expected =
                if commit { ControlRecord::Commit { coordinator_epoch: 0 } } else { ControlRecord::Abort { coordinator_epoch: 0 } };
            assert_eq!(ControlRecord::of_batch(&header, &batch), Some(expected));
            assert_eq!((header.base_offset(), header.last_offset(), header.producer_id()), (9, 9, 77));
        }
    }
}
