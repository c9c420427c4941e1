//! Aborted transactions (`.txnindex`), and following transactions through a log to find them.

use super::{index::IndexError, snapshot::ProducerState};
use crate::batch::{ControlRecord, Header};
use std::collections::BTreeMap;

/// The size of a `.txnindex` entry.
pub const TXN_ENTRY_BYTES: usize = 34;
/// The only version of its entries.
const TXN_VERSION: i16 = 0;

/// An aborted transaction (Kafka: `AbortedTxn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    /// Its producer.
    pub producer_id: i64,
    /// The offset of its first record.
    pub first_offset: i64,
    /// The offset of its abort marker.
    pub last_offset: i64,
    /// The last stable offset once it had ended.
    pub last_stable_offset: i64,
}

/// `.txnindex`: the transactions whose abort marker is in the segment, in the order of the markers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnIndex {
    entries: Vec<AbortedTxn>,
}

impl TxnIndex {
    /// Adds one. Markers come in order.
    pub fn push(&mut self, aborted: AbortedTxn) {
        self.entries.push(aborted);
    }

    /// Adds those that overlap the offsets from `from` up to but not including `to`. True if no later segment can hold
    /// another.
    pub fn collect(&self, from: i64, to: i64, into: &mut Vec<AbortedTxn>) -> bool {
        for entry in &self.entries {
            if entry.last_offset >= from && entry.first_offset < to {
                into.push(*entry);
            }
            if entry.last_stable_offset >= to {
                return true;
            }
        }
        false
    }

    /// Its entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[AbortedTxn] {
        &self.entries
    }

    /// Drops those whose marker is at or above `offset`.
    pub fn truncate(&mut self, offset: i64) {
        self.entries.retain(|entry| entry.last_offset < offset);
    }

    /// The file's content. A segment without entries has no file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * TXN_ENTRY_BYTES);
        for entry in &self.entries {
            bytes.extend_from_slice(&TXN_VERSION.to_be_bytes());
            for field in [entry.producer_id, entry.first_offset, entry.last_offset, entry.last_stable_offset] {
                bytes.extend_from_slice(&field.to_be_bytes());
            }
        }
        bytes
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`IndexError`]: rebuild it.
    pub fn decode(bytes: &[u8]) -> Result<TxnIndex, IndexError> {
        let (whole, rest) = bytes.as_chunks::<TXN_ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(IndexError::Length { bytes: bytes.len(), entry: TXN_ENTRY_BYTES });
        }
        let mut index = TxnIndex::default();
        for (at, bytes) in whole.iter().enumerate() {
            let version = i16::from_be_bytes([bytes[0], bytes[1]]);
            if version != TXN_VERSION {
                return Err(IndexError::Version { entry: at, version });
            }
            let field = |from: usize| i64::from_be_bytes(bytes[from..from + 8].try_into().expect("8 bytes"));
            let entry =
                AbortedTxn { producer_id: field(2), first_offset: field(10), last_offset: field(18), last_stable_offset: field(26) };
            let rises = index.entries.last().is_none_or(|last| last.last_offset < entry.last_offset);
            if !rises || entry.first_offset > entry.last_offset || entry.first_offset < 0 {
                return Err(IndexError::Entry { entry: at });
            }
            index.push(entry);
        }
        Ok(index)
    }
}

/// The transactions that are open at some point of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenTransactions {
    first_offsets: BTreeMap<i64, i64>,
}

impl OpenTransactions {
    /// Those that were open when `producers` was written.
    #[must_use]
    pub fn of(producers: &[ProducerState]) -> OpenTransactions {
        let open = producers.iter().filter(|producer| producer.transaction_first_offset >= 0);
        OpenTransactions { first_offsets: open.map(|producer| (producer.producer_id, producer.transaction_first_offset)).collect() }
    }

    /// Takes in the next batch; `control` is its control record if it is a control batch. Returns a transaction that it
    /// aborted.
    pub fn push(&mut self, header: &Header, control: Option<ControlRecord>) -> Option<AbortedTxn> {
        let producer_id = header.producer_id();
        if header.is_transactional() && !header.is_control() {
            self.first_offsets.entry(producer_id).or_insert(header.base_offset());
        }
        let aborted = match control? {
            ControlRecord::Abort { .. } => true,
            ControlRecord::Commit { .. } => false,
            ControlRecord::Other(_) => return None,
        };
        // A marker without records before it ends nothing here.
        let first_offset = self.first_offsets.remove(&producer_id)?;
        let last_offset = header.last_offset();
        let last_stable_offset = self.first_unstable().unwrap_or(last_offset + 1);
        aborted.then_some(AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset })
    }

    /// Sets where a producer's open transaction began, or that it has none.
    pub fn set(&mut self, producer_id: i64, first_offset: Option<i64>) {
        match first_offset {
            Some(offset) => self.first_offsets.insert(producer_id, offset),
            None => self.first_offsets.remove(&producer_id),
        };
    }

    /// The first offset of the producer's open transaction.
    #[must_use]
    pub fn first_offset(&self, producer_id: i64) -> Option<i64> {
        self.first_offsets.get(&producer_id).copied()
    }

    /// The first offset that an open transaction could still abort.
    #[must_use]
    pub fn first_unstable(&self) -> Option<i64> {
        self.first_offsets.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, control_batch};

    fn header(batch: &[u8]) -> Header {
        Header::read(batch).expect("whole")
    }

    fn data(open: &mut OpenTransactions, producer: i64, offset: i64) {
        let batch = BatchBuilder::new().at(offset, 0).producer(producer, 0, 0).transactional().record(1, None, None).build();
        assert_eq!(open.push(&header(&batch), None), None);
    }

    fn end(open: &mut OpenTransactions, producer: i64, offset: i64, commit: bool) -> Option<AbortedTxn> {
        let batch = control_batch(offset, 0, (producer, 0), commit, 1);
        let header = header(&batch);
        open.push(&header, ControlRecord::of_batch(&header, &batch))
    }

    #[test]
    fn interleaved_transactions_end_as_their_markers_say() {
        let mut open = OpenTransactions::default();
        data(&mut open, 1, 10);
        data(&mut open, 2, 11);
        data(&mut open, 1, 12);
        assert_eq!(open.first_unstable(), Some(10));
        let aborted = AbortedTxn { producer_id: 1, first_offset: 10, last_offset: 13, last_stable_offset: 11 };
        assert_eq!(end(&mut open, 1, 13, false), Some(aborted));
        assert_eq!(end(&mut open, 2, 14, true), None);
        assert_eq!(end(&mut open, 3, 15, false), None);
        assert_eq!(open.first_unstable(), None);
        data(&mut open, 3, 16);
        let alone = AbortedTxn { producer_id: 3, first_offset: 16, last_offset: 17, last_stable_offset: 18 };
        assert_eq!(end(&mut open, 3, 17, false), Some(alone));

        let mut index = TxnIndex::default();
        index.push(aborted);
        index.push(alone);
        assert_eq!(TxnIndex::decode(&index.encode()).as_ref(), Ok(&index));
        let mut found = Vec::new();
        assert!(index.collect(0, 11, &mut found));
        assert_eq!(found, [aborted]);
        found.clear();
        assert!(!index.collect(14, 30, &mut found));
        assert_eq!(found, [alone]);
    }
}
