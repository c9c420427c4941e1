//! Which batches belong to an aborted transaction, and which markers nobody needs any more (Kafka:
//! `CleanedTransactionMetadata`). It follows a log from its first batch on.

use crate::{
    batch::{ControlRecord, Header},
    segment::AbortedTxn,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The transactions at some point of a walk through the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Transactions {
    /// Aborted ones that have not begun yet, by their first offset.
    to_come: VecDeque<AbortedTxn>,
    /// Aborted ones that are open here, and whether a batch of them was met.
    aborted: BTreeMap<i64, (AbortedTxn, bool)>,
    /// Producers of whose open, committed transaction a batch was met.
    committed: BTreeSet<i64>,
}

/// What a control batch means for compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// Nothing of its transaction is left: it may go once its horizon has passed.
    pub is_idle: bool,
    /// The aborted transaction that it ends, while it is still needed.
    pub aborted: Option<AbortedTxn>,
}

impl Transactions {
    /// A walk through a log of which these transactions were aborted.
    pub fn new(mut aborted: Vec<AbortedTxn>) -> Transactions {
        aborted.sort_by_key(|txn| (txn.first_offset, txn.last_offset));
        aborted.dedup();
        Transactions { to_come: aborted.into(), ..Transactions::default() }
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(txn) = self.to_come.front().copied().filter(|txn| txn.first_offset <= offset) {
            self.to_come.pop_front();
            self.aborted.entry(txn.producer_id).or_insert((txn, false));
        }
    }

    /// Takes in a batch of records. True if its transaction was aborted.
    pub fn is_aborted(&mut self, header: &Header) -> bool {
        self.begin_up_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id()) {
            Some((_, was_met)) => {
                *was_met = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id());
                false
            }
        }
    }

    /// Takes in a control batch, with its record if it still has one.
    pub fn marker(&mut self, header: &Header, control: Option<ControlRecord>) -> Marker {
        self.begin_up_to(header.last_offset());
        let producer = header.producer_id();
        match control {
            Some(ControlRecord::Abort { .. }) => match self.aborted.remove(&producer) {
                Some((txn, true)) => Marker { is_idle: false, aborted: Some(txn) },
                _ => Marker { is_idle: true, aborted: None },
            },
            Some(ControlRecord::Commit { .. }) => Marker { is_idle: !self.committed.remove(&producer), aborted: None },
            Some(ControlRecord::Other(_)) => Marker { is_idle: false, aborted: None },
            // An emptied control batch: its record had its time.
            None => Marker { is_idle: true, aborted: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, control_batch};

    fn data(offset: i64, producer: i64) -> Header {
        let batch = BatchBuilder::new().at(offset, 0).producer(producer, 0, 0).transactional().record(1, Some(b"k"), None).build();
        Header::read(&batch).expect("whole")
    }

    fn marker(transactions: &mut Transactions, offset: i64, producer: i64, commit: bool) -> Marker {
        let batch = control_batch(offset, 0, (producer, 0), commit, 1);
        let header = Header::read(&batch).expect("whole");
        transactions.marker(&header, ControlRecord::of_batch(&header, &batch))
    }

    #[test]
    fn a_marker_stays_as_long_as_something_of_its_transaction_does() {
        let aborted = AbortedTxn { producer_id: 1, first_offset: 10, last_offset: 30, last_stable_offset: 31 };
        let mut transactions = Transactions::new(vec![aborted]);
        assert!(!transactions.is_aborted(&data(5, 1)));
        assert_eq!(marker(&mut transactions, 6, 1, true), Marker { is_idle: false, aborted: None });
        assert!(transactions.is_aborted(&data(10, 1)));
        assert!(!transactions.is_aborted(&data(11, 2)));
        assert_eq!(marker(&mut transactions, 30, 1, false), Marker { is_idle: false, aborted: Some(aborted) });
        assert_eq!(marker(&mut transactions, 31, 2, true), Marker { is_idle: false, aborted: None });
        // Markers whose data is gone.
        assert!(marker(&mut transactions, 32, 2, true).is_idle && marker(&mut transactions, 33, 1, false).is_idle);
    }
}
