//! From the batches of a partition of `__consumer_offsets` to its groups: the last record of a key counts.

use super::{
    classic::Snapshot,
    offsets::Offsets,
    records::{Key, Unreadable, decode_group, decode_offset},
};
use engine::batch::{ControlRecord, DECOMPRESSED_BYTES_MAX, HEADER_BYTES, Header, RecordError, Records, payload};
use std::collections::BTreeMap;

/// Key and value; no value is a tombstone.
type Record = (Vec<u8>, Option<Vec<u8>>);

/// What was read so far.
#[derive(Debug, Default)]
pub struct Replay {
    groups: BTreeMap<String, Snapshot>,
    offsets: BTreeMap<String, Offsets>,
    /// Records of transactions that have not ended, by producer.
    undecided: BTreeMap<i64, Vec<Record>>,
}

/// A batch that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// Its records are not what it says.
    #[error("the batch at offset {offset}: {source}")]
    Records {
        /// The batch's.
        offset: i64,
        /// What is wrong.
        source: RecordError,
    },
    /// Bytes are no whole batch.
    #[error("no whole batch at offset {0}")]
    Cut(i64),
}

impl Replay {
    /// Applies whole batches, as a read at offset `from` gave them. Returns the offset behind the last one.
    ///
    /// # Errors
    /// [`Damage`].
    pub fn apply(&mut self, mut bytes: &[u8], from: i64) -> Result<i64, Damage> {
        let mut at = from;
        while !bytes.is_empty() {
            let header = Header::read(bytes).ok_or(Damage::Cut(at))?;
            if header.size() < HEADER_BYTES || header.size() > bytes.len() {
                return Err(Damage::Cut(at));
            }
            let (batch, rest) = bytes.split_at(header.size());
            self.batch(&header, batch).map_err(|source| Damage::Records { offset: header.base_offset(), source })?;
            at = header.last_offset() + 1;
            bytes = rest;
        }
        Ok(at)
    }

    fn batch(&mut self, header: &Header, batch: &[u8]) -> Result<(), RecordError> {
        if header.is_control() {
            let decided = self.undecided.remove(&header.producer_id()).unwrap_or_default();
            if matches!(ControlRecord::of_batch(header, batch), Some(ControlRecord::Commit { .. })) {
                decided.into_iter().for_each(|(key, value)| self.record(&key, value.as_deref()));
            }
            return Ok(());
        }
        let payload = payload(header, batch, DECOMPRESSED_BYTES_MAX)?;
        for record in Records::new(header, &payload) {
            let record = record?;
            let Some(key) = record.key else { continue };
            if header.is_transactional() {
                let waiting = self.undecided.entry(header.producer_id()).or_default();
                waiting.push((key.to_vec(), record.value.map(<[u8]>::to_vec)));
            } else {
                self.record(key, record.value);
            }
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Err(error) = self.try_record(key, value) {
            // Kafka writes other protocols' groups here too; a record that nobody can read would not get better.
            match error {
                Unreadable::Version(_) => tracing::debug!("a group record was skipped: {error}"),
                Unreadable::Malformed => tracing::warn!("a group record was skipped: {error}"),
            }
        }
    }

    fn try_record(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Unreadable> {
        match (Key::decode(key)?, value) {
            (Key::Offset { group, topic, partition }, Some(value)) => {
                let committed = decode_offset(value)?;
                self.offsets.entry(group).or_default().set(&topic, partition, committed);
            }
            (Key::Offset { group, topic, partition }, None) => {
                if let Some(offsets) = self.offsets.get_mut(&group) {
                    offsets.remove(&topic, partition);
                    if offsets.is_empty() {
                        self.offsets.remove(&group);
                    }
                }
            }
            (Key::Group(group), Some(value)) => {
                let snapshot = decode_group(value)?;
                self.groups.insert(group, snapshot);
            }
            (Key::Group(group), None) => {
                self.groups.remove(&group);
            }
        }
        Ok(())
    }

    /// What the records say, once all were applied.
    #[must_use]
    pub fn finish(self) -> (BTreeMap<String, Snapshot>, BTreeMap<String, Offsets>) {
        (self.groups, self.offsets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::records::{Committed, encode_group, encode_offset};
    use engine::batch::{BatchBuilder, Codec, control_batch};
    use uuid::Uuid;

    fn key(partition: i32) -> Vec<u8> {
        Key::Offset { group: "g".into(), topic: "t".into(), partition }.encode()
    }

    fn value(offset: i64) -> Vec<u8> {
        encode_offset(&Committed { offset, leader_epoch: 0, metadata: String::new(), commit_ms: 0, expire_ms: None, topic_id: Uuid::nil() })
    }

    fn snapshot() -> Snapshot {
        Snapshot { protocol_type: "consumer".into(), generation: 3, protocol: None, leader: None, state_since_ms: 0, members: Vec::new() }
    }

    fn offset(replay: Replay, partition: i32) -> Option<i64> {
        replay.finish().1.get("g")?.get("t", partition).map(|committed| committed.offset)
    }

    #[test]
    fn the_last_record_of_a_key_counts() {
        let mut replay = Replay::default();
        let first = BatchBuilder::new().record(1, Some(&key(0)), Some(&value(5))).record(1, Some(&key(1)), Some(&value(6))).build();
        let group = Key::Group("g".into()).encode();
        let second = BatchBuilder::new().at(2, 0).record(2, Some(&key(0)), Some(&value(9))).record(2, Some(&key(1)), None);
        let second = second.record(2, Some(&group), Some(&encode_group(&snapshot()))).build();
        assert_eq!(replay.apply(&[first, second].concat(), 0).unwrap(), 5);
        let (groups, offsets) = replay.finish();
        assert_eq!(groups["g"], snapshot());
        assert_eq!(offsets["g"].iter().map(|(_, partition, committed)| (partition, committed.offset)).collect::<Vec<_>>(), [(0, 9)]);
    }

    #[test]
    fn a_tombstone_ends_a_group() {
        let group = Key::Group("g".into()).encode();
        let mut replay = Replay::default();
        let batch = BatchBuilder::new().record(1, Some(&group), Some(&encode_group(&snapshot()))).record(1, Some(&group), None);
        replay.apply(&batch.build(), 0).unwrap();
        assert!(replay.finish().0.is_empty());
    }

    #[test]
    fn compressed_batches_are_read() {
        let mut replay = Replay::default();
        replay.apply(&BatchBuilder::new().codec(Codec::Lz4).record(1, Some(&key(0)), Some(&value(5))).build(), 0).unwrap();
        assert_eq!(offset(replay, 0), Some(5));
    }

    #[test]
    fn offsets_of_a_transaction_count_when_it_commits() {
        for commit in [true, false] {
            let mut replay = Replay::default();
            let batch = BatchBuilder::new().producer(7, 0, 0).transactional().record(1, Some(&key(0)), Some(&value(5))).build();
            replay.apply(&[batch, control_batch(1, 0, (7, 0), commit, 1)].concat(), 0).unwrap();
            assert_eq!(offset(replay, 0), commit.then_some(5));
        }
    }

    #[test]
    fn unreadable_records_are_skipped_and_broken_batches_are_not() {
        let mut replay = Replay::default();
        let batch = BatchBuilder::new().record(1, Some(b"\0\x09what"), Some(b"?")).record(1, Some(&key(0)), Some(b"\0\x04\0"));
        let batch = batch.record(1, None, None).record(1, Some(&key(1)), Some(&value(5))).build();
        replay.apply(&batch, 0).unwrap();
        assert!(replay.apply(&batch[..batch.len() - 1], 0).is_err());
        assert_eq!(offset(replay, 1), Some(5));
    }
}
