//! The state of a partition's idempotent producers: which sequence may come next, and which batch is a retry of one that
//! is there (Kafka: `ProducerStateManager`, `ProducerAppendInfo`). Pure: offsets and time come in, decisions go out.
//!
//! Every producer has two views. *As of append* judges what comes: five requests may be in flight, none of them durable.
//! *As of the durable end* is what a checkpoint may hold and what remains when a failed write takes the tail away: had a
//! checkpoint held the other one, a retry would pass for a duplicate of a batch that a crash has lost.

use crate::{
    batch::{ControlRecord, Header},
    segment::{AbortedTxn, NO_TRANSACTION, OpenTransactions, PRODUCER_BATCHES_MAX, ProducerState, SequencedBatch},
};
use std::collections::{BTreeMap, VecDeque};

/// For how long after its last append a checkpoint goes on carrying all the batches of a producer, of which a
/// `.snapshot` holds only the newest, in ms: by then no client retries any more (`delivery.timeout.ms` is 2 minutes).
pub const CARRY_MS: i64 = 10 * 60_000;
/// The epoch of a producer that has none.
const NO_EPOCH: i16 = -1;
/// At the bound, one in so many producers is evicted at once, so that a flood of new ids costs no scan for each.
const EVICT_PART: usize = 16;

/// What a sequence check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is next.
    Append,
    /// It is there already: answer with this. The answer waits until its original is durable.
    Duplicate {
        /// The offset of the original's first record.
        base_offset: i64,
        /// The offset of its last record.
        last_offset: i64,
        /// Its newest timestamp in ms: the append time with LogAppendTime.
        timestamp: i64,
    },
}

/// A producer's batch that may not be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("sequence {got} of producer {producer} is not the expected {expected}")]
    OutOfOrder {
        /// The producer's id.
        producer: i64,
        /// What came.
        got: i32,
        /// What is next.
        expected: i32,
    },
    /// INVALID_PRODUCER_EPOCH.
    #[error("epoch {got} of producer {producer} is below {current}")]
    Epoch {
        /// The producer's id.
        producer: i64,
        /// What came.
        got: i16,
        /// What is current.
        current: i16,
    },
}

/// What an appended batch does to its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    producer_id: i64,
    epoch: i16,
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
    timestamp: i64,
    now_ms: i64,
    transactional: bool,
    control: Option<ControlRecord>,
}

impl Change {
    fn of(header: &Header, control: Option<ControlRecord>, now_ms: i64) -> Change {
        Change {
            producer_id: header.producer_id(),
            epoch: header.producer_epoch(),
            first_sequence: header.base_sequence(),
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset(),
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp(),
            now_ms,
            transactional: header.is_transactional(),
            control,
        }
    }
}

/// One view of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp: i64,
    transaction_first_offset: i64,
    /// The last offset of what changed it last.
    changed_at: i64,
    batches: [SequencedBatch; PRODUCER_BATCHES_MAX],
    count: usize,
}

const NO_BATCH: SequencedBatch = SequencedBatch { last_sequence: -1, last_offset: -1, offset_delta: 0, timestamp: -1 };

impl View {
    const NEW: View = View {
        epoch: NO_EPOCH,
        coordinator_epoch: -1,
        last_timestamp: -1,
        transaction_first_offset: NO_TRANSACTION,
        changed_at: -1,
        batches: [NO_BATCH; PRODUCER_BATCHES_MAX],
        count: 0,
    };

    fn of(state: &ProducerState, changed_at: i64) -> View {
        let mut view = View {
            epoch: state.epoch,
            coordinator_epoch: state.coordinator_epoch,
            last_timestamp: state.last_timestamp,
            transaction_first_offset: state.transaction_first_offset,
            changed_at,
            ..View::NEW
        };
        state.batches.iter().for_each(|batch| view.push(*batch));
        view
    }

    fn state(&self, producer_id: i64) -> ProducerState {
        ProducerState {
            producer_id,
            epoch: self.epoch,
            coordinator_epoch: self.coordinator_epoch,
            last_timestamp: self.last_timestamp,
            transaction_first_offset: self.transaction_first_offset,
            batches: self.batches().to_vec(),
        }
    }

    fn batches(&self) -> &[SequencedBatch] {
        &self.batches[..self.count]
    }

    fn push(&mut self, batch: SequencedBatch) {
        if self.count == PRODUCER_BATCHES_MAX {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        self.batches[self.count] = batch;
        self.count += 1;
    }

    fn apply(&mut self, change: &Change) {
        if change.epoch != self.epoch {
            self.count = 0;
            self.epoch = change.epoch;
        }
        self.last_timestamp = change.now_ms;
        self.changed_at = change.last_offset;
        match change.control {
            Some(ControlRecord::Abort { coordinator_epoch } | ControlRecord::Commit { coordinator_epoch }) => {
                self.coordinator_epoch = coordinator_epoch;
                self.transaction_first_offset = NO_TRANSACTION;
            }
            Some(ControlRecord::Other(_)) => {}
            None => {
                if change.transactional && self.transaction_first_offset == NO_TRANSACTION {
                    self.transaction_first_offset = change.base_offset;
                }
                // A compacted batch spans its removed records too; its last sequence is what counts.
                let offset_delta = i32::try_from(change.last_offset - change.base_offset).unwrap_or(i32::MAX);
                self.push(SequencedBatch {
                    last_sequence: change.last_sequence,
                    last_offset: change.last_offset,
                    offset_delta,
                    timestamp: change.timestamp,
                });
            }
        }
    }

    fn check(&self, header: &Header) -> Result<Verdict, SequenceError> {
        let (producer, epoch, first) = (header.producer_id(), header.producer_epoch(), header.base_sequence());
        if epoch == self.epoch
            && let Some(original) = self.batches().iter().find(|batch| is_retry(header, batch))
        {
            return Ok(Verdict::Duplicate {
                base_offset: original.last_offset - i64::from(original.offset_delta),
                last_offset: original.last_offset,
                timestamp: original.timestamp,
            });
        }
        if epoch < self.epoch {
            return Err(SequenceError::Epoch { producer, got: epoch, current: self.epoch });
        }
        let expected = match self.batches().last() {
            _ if self.epoch == NO_EPOCH => return Ok(Verdict::Append),
            Some(last) if epoch == self.epoch => crate::batch::sequence_after(last.last_sequence, 1),
            _ => 0,
        };
        if first == expected { Ok(Verdict::Append) } else { Err(SequenceError::OutOfOrder { producer, got: first, expected }) }
    }
}

/// True if the batch has exactly the sequences of one that is there.
fn is_retry(header: &Header, there: &SequencedBatch) -> bool {
    let first = (i64::from(there.last_sequence) - i64::from(there.offset_delta)).rem_euclid(1 << 31) as i32;
    there.last_sequence == header.last_sequence() && first == header.base_sequence()
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    appended: View,
    /// As of the durable end, if that is another one: `None` within if it does not know the producer.
    durable: Option<Option<View>>,
}

/// The producers of one partition.
#[derive(Clone, Debug)]
pub struct Producers {
    producers_max: usize,
    entries: BTreeMap<i64, Entry>,
    /// Appended but not durable, in order.
    pending: VecDeque<Change>,
    /// Producers of which nothing is left since their appends were discarded, with the epoch and sequence that they must
    /// begin with: what they have in flight behind the discarded batches may not pass for a beginning.
    discarded: BTreeMap<i64, (i16, i32)>,
    open: OpenTransactions,
}

impl Producers {
    /// None known; at most `producers_max` (one at least) will be.
    #[must_use]
    pub fn new(producers_max: usize) -> Producers {
        Producers {
            producers_max: producers_max.max(1),
            entries: BTreeMap::new(),
            pending: VecDeque::new(),
            discarded: BTreeMap::new(),
            open: OpenTransactions::default(),
        }
    }

    /// May this batch be appended? One without a producer always may. An unknown producer may begin anywhere: its state
    /// may have expired.
    ///
    /// # Errors
    /// [`SequenceError`]: nothing has changed.
    pub fn check(&self, header: &Header) -> Result<Verdict, SequenceError> {
        if !header.has_producer() {
            return Ok(Verdict::Append);
        }
        match (self.entries.get(&header.producer_id()), self.discarded.get(&header.producer_id())) {
            (Some(entry), _) => entry.appended.check(header),
            (None, Some((epoch, expected))) if header.producer_epoch() == *epoch && header.base_sequence() != *expected => {
                let (producer, got) = (header.producer_id(), header.base_sequence());
                Err(SequenceError::OutOfOrder { producer, got, expected: *expected })
            }
            (None, _) => Ok(Verdict::Append),
        }
    }

    /// Takes in a batch that was appended, with the offsets that it got. `now_ms` is the broker's clock, by which producers
    /// expire: their own may be anything.
    pub fn appended(&mut self, header: &Header, now_ms: i64) {
        if header.has_producer() {
            let change = Change::of(header, None, now_ms);
            self.apply(&change, false);
            self.pending.push_back(change);
        }
    }

    /// Takes in a batch that was read from the log at a start: it is durable. `control` is its control record if it is a
    /// control batch. Returns a transaction that it aborted, for the `.txnindex`.
    pub fn replay(&mut self, header: &Header, control: Option<ControlRecord>, now_ms: i64) -> Option<AbortedTxn> {
        if !header.has_producer() {
            return None;
        }
        if !header.is_control() || control.is_some() {
            self.apply(&Change::of(header, control, now_ms), true);
        }
        self.open.push(header, control)
    }

    fn apply(&mut self, change: &Change, durable: bool) {
        self.discarded.remove(&change.producer_id);
        if !self.entries.contains_key(&change.producer_id) && self.entries.len() >= self.producers_max {
            self.evict(self.producers_max.div_ceil(EVICT_PART));
        }
        match self.entries.get_mut(&change.producer_id) {
            Some(entry) => {
                if !durable && entry.durable.is_none() {
                    entry.durable = Some(Some(entry.appended));
                }
                entry.appended.apply(change);
            }
            None => {
                let mut view = View::NEW;
                view.apply(change);
                self.entries.insert(change.producer_id, Entry { appended: view, durable: (!durable).then_some(None) });
            }
        }
    }

    /// The high watermark has moved: what is below it becomes part of the durable view.
    pub fn durable_to(&mut self, high_watermark: i64) {
        while self.pending.front().is_some_and(|change| change.last_offset < high_watermark) {
            let Some(change) = self.pending.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&change.producer_id) else { continue };
            let mut view = entry.durable.flatten().unwrap_or(View::NEW);
            view.apply(&change);
            // The last pending change of a producer brings both views together.
            entry.durable = (view.changed_at != entry.appended.changed_at).then_some(Some(view));
        }
    }

    /// A write failed: what is not durable never was.
    pub fn discard(&mut self) {
        for change in self.pending.drain(..) {
            let Some(entry) = self.entries.get_mut(&change.producer_id) else { continue };
            match entry.durable.take() {
                Some(Some(view)) => entry.appended = view,
                Some(None) => {
                    self.entries.remove(&change.producer_id);
                    if self.discarded.len() >= self.producers_max {
                        self.discarded.pop_first();
                    }
                    self.discarded.insert(change.producer_id, (change.epoch, change.first_sequence));
                }
                // An earlier change of the same producer was discarded, and this one with it.
                None => {}
            }
        }
    }

    /// Forgets those that have not appended for `expiration_ms`. Returns how many.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.entries.len();
        self.entries.retain(|_, entry| !entry.is_idle() || now_ms.saturating_sub(entry.appended.last_timestamp) < expiration_ms);
        before - self.entries.len()
    }

    /// Forgets up to `count` producers, those first that have not appended for the longest. Those with a batch that is not
    /// durable or an open transaction stay. Returns how many.
    pub fn evict(&mut self, count: usize) -> usize {
        let idle = self.entries.iter().filter(|(_, entry)| entry.is_idle());
        let mut by_age: Vec<(i64, i64)> = idle.map(|(id, entry)| (entry.appended.last_timestamp, *id)).collect();
        let count = count.min(by_age.len());
        if count > 0 {
            by_age.select_nth_unstable(count - 1);
            by_age[..count].iter().for_each(|(_, id)| {
                self.entries.remove(id);
            });
        }
        count
    }

    /// Takes over a producer's durable state from a snapshot or a checkpoint. `changed_at` is an offset at which it
    /// changed: that of the `.snapshot` less 1 for what comes from there, at least that of the `.snapshot` for what is newer.
    pub fn import(&mut self, state: &ProducerState, changed_at: i64) {
        let newest = state.batches.last().map_or(-1, |batch| batch.last_offset);
        let view = View::of(state, changed_at.max(newest));
        self.entries.insert(state.producer_id, Entry { appended: view, durable: None });
        self.open.set(state.producer_id, (state.transaction_first_offset >= 0).then_some(state.transaction_first_offset));
    }

    /// All producers as of append, for the `.snapshot` at the log's end.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ProducerState> {
        self.entries.iter().map(|(id, entry)| entry.appended.state(*id)).collect()
    }

    /// What a checkpoint must carry besides the `.snapshot` at `snapshot_offset`, as of the durable end or of
    /// `flushed_offset` (an offset above all batches that lie wholly in the flushed part of the segment), whichever is
    /// later: those that have changed since, and those with batches that the snapshot has no room for.
    #[must_use]
    pub fn for_checkpoint(&self, snapshot_offset: i64, flushed_offset: i64, now_ms: i64) -> Vec<ProducerState> {
        let mut ahead: BTreeMap<i64, View> = BTreeMap::new();
        for change in self.pending.iter().take_while(|change| change.last_offset < flushed_offset) {
            let durable = || self.entries.get(&change.producer_id).and_then(|entry| entry.durable.flatten());
            ahead.entry(change.producer_id).or_insert_with(|| durable().unwrap_or(View::NEW)).apply(change);
        }
        let wanted =
            |view: &View| view.changed_at >= snapshot_offset || (view.count > 1 && now_ms.saturating_sub(view.last_timestamp) < CARRY_MS);
        self.entries
            .iter()
            .filter_map(|(id, entry)| {
                let view = ahead.get(id).copied().or(entry.durable.unwrap_or(Some(entry.appended)))?;
                wanted(&view).then(|| view.state(*id))
            })
            .collect()
    }

    /// The first offset that an open transaction could still abort.
    #[must_use]
    pub fn first_unstable(&self) -> Option<i64> {
        self.open.first_unstable()
    }

    /// The highest producer id.
    #[must_use]
    pub fn highest_id(&self) -> Option<i64> {
        self.entries.last_key_value().map(|(id, _)| *id)
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.durable.is_none() && self.appended.transaction_first_offset == NO_TRANSACTION
    }
}

#[cfg(test)]
#[path = "producers_tests.rs"]
mod tests;
