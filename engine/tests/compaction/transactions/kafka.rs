//! A log as a Kafka writes it: plain, idempotent and transactional batches, markers, and beside each segment the files that it has there.

use super::{
    Counts,
    rules::{Batch, Fate, Record, Written},
};
use engine::{
    batch::{BatchBuilder, Codec, NO_PRODUCER, Scanner, control_batch, scan},
    compaction::LastRecord,
    segment::{
        AbortedTxn, FileKind, Indexes, LEADER_EPOCH_CHECKPOINT, NO_TRANSACTION, PARTITION_METADATA, ProducerState, SequencedBatch,
        TxnIndex, encode_metadata, encode_snapshot, file_name,
    },
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
/// Producers with transactions.
const TRANSACTIONAL: [i64; 3] = [1, 2, 3];
/// Idempotent producers.
const IDEMPOTENT: [i64; 2] = [11, 12];
/// Producers that end a transaction here without a record of it in this partition: its coordinator doesn't know that.
const EMPTY: [i64; 3] = [1, 2, 21];

/// A segment.
struct Segment {
    base: i64,
    bytes: Vec<u8>,
    /// Transactions whose abort marker it has.
    aborted: Vec<AbortedTxn>,
    /// The producers where it begins.
    producers: Vec<ProducerState>,
}

/// A transaction under way.
struct Open {
    number: usize,
    first: i64,
    /// The segments that have records of it.
    segments: BTreeSet<i64>,
}

/// A Kafka's partition.
pub struct Kafka {
    random: SmallRng,
    keys: usize,
    segment_bytes: usize,
    /// The end of a transaction raises its producer's epoch (KIP-890).
    raises_epochs: bool,
    segments: Vec<Segment>,
    producers: BTreeMap<i64, ProducerState>,
    open: BTreeMap<i64, Open>,
    next_offset: i64,
    /// Its clock.
    pub now_ms: i64,
    /// Everything that was written.
    pub written: Written,
    /// What it has met.
    pub counts: Counts,
}

impl Kafka {
    /// An empty one.
    pub fn new(seed: u64) -> Kafka {
        let mut random = SmallRng::seed_from_u64(seed);
        let keys = [4, 20, 60][random.random_range(0..3)];
        let segment_bytes = [1_500, 4_000, 12_000][random.random_range(0..3)];
        let raises_epochs = random.random();
        Kafka {
            random,
            keys,
            segment_bytes,
            raises_epochs,
            segments: vec![Segment { base: 0, bytes: Vec::new(), aborted: Vec::new(), producers: Vec::new() }],
            producers: BTreeMap::new(),
            open: BTreeMap::new(),
            next_offset: 0,
            now_ms: 1_000,
            written: Written::default(),
            counts: Counts::default(),
        }
    }

    /// So many batches and markers more.
    pub fn run(&mut self, events: usize) {
        for _ in 0..events {
            self.now_ms += self.random.random_range(0..20);
            match self.random.random_range(0..12) {
                0..3 => self.produce(NO_PRODUCER, false),
                3..5 => {
                    let producer = IDEMPOTENT[self.random.random_range(0..IDEMPOTENT.len())];
                    self.produce(producer, false);
                }
                5..9 => {
                    let producer = TRANSACTIONAL[self.random.random_range(0..TRANSACTIONAL.len())];
                    self.produce(producer, true);
                }
                9..11 => {
                    let open: Vec<i64> = self.open.keys().copied().collect();
                    if !open.is_empty() {
                        let (producer, commit) = (open[self.random.random_range(0..open.len())], self.random.random());
                        self.end(producer, commit);
                    }
                }
                _ => {
                    let (producer, commit) = (EMPTY[self.random.random_range(0..EMPTY.len())], self.random.random());
                    if !self.open.contains_key(&producer) {
                        self.end(producer, commit);
                    }
                }
            }
        }
    }

    /// Appends a batch of records.
    pub fn produce(&mut self, producer: i64, is_transactional: bool) {
        let (epoch, sequence) = match self.producers.get(&producer) {
            Some(state) => (state.epoch, state.batches.last().map_or(0, |last| last.last_sequence + 1)),
            None if producer == NO_PRODUCER => (-1, -1),
            None => (0, 0),
        };
        let codec = CODECS[self.random.random_range(0..CODECS.len())];
        let mut builder = BatchBuilder::new().at(self.next_offset, 0).producer(producer, epoch, sequence).codec(codec);
        if is_transactional {
            builder = builder.transactional();
        }
        let mut records = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let key = format!("key {}", self.random.random_range(0..self.keys)).into_bytes();
            let length = self.random.random_range(0..200);
            let has_value = !self.random.random_ratio(1, 5);
            let value = has_value.then(|| (0..length).map(|_| self.random.random()).collect::<Vec<u8>>());
            let timestamp = self.now_ms - self.random.random_range(0..10);
            builder.push(timestamp, Some(&key), value.as_deref(), &[]);
            records.push(Record { key, value, timestamp });
        }
        let transaction = is_transactional.then(|| self.begun(producer));
        self.append(&builder.build(), Batch { producer: (producer, epoch, sequence), marker: None, transaction, records });
    }

    /// The number of the producer's transaction, which begins now if it has none.
    fn begun(&mut self, producer: i64) -> usize {
        let (first, number) = (self.next_offset, self.written.fates.len());
        let open = self.open.entry(producer).or_insert_with(|| Open { number, first, segments: BTreeSet::new() });
        if open.number == number {
            self.written.fates.push(Fate::Open);
        }
        open.number
    }

    /// Appends the marker that ends a producer's transaction, or one of which there is no record here.
    pub fn end(&mut self, producer: i64, commit: bool) {
        let raised = i16::from(self.raises_epochs);
        self.mark(producer, commit, raised, self.now_ms);
    }

    /// Ends all transactions as an import does: with markers of their own epochs.
    pub fn abort_open(&mut self) {
        let open: Vec<i64> = self.open.keys().copied().collect();
        open.into_iter().for_each(|producer| self.mark(producer, false, 0, self.now_ms));
    }

    /// Ends all transactions as a start does that takes the directory over: with markers of their own epochs, of the time of their last
    /// batches.
    pub fn give_up_open(&mut self) {
        let open: Vec<i64> = self.open.keys().copied().collect();
        for producer in open {
            let time_ms = self.producers[&producer].batches.last().map_or(-1, |last| last.timestamp);
            self.mark(producer, false, 0, time_ms);
        }
    }

    fn mark(&mut self, producer: i64, commit: bool, raised: i16, time_ms: i64) {
        let offset = self.next_offset;
        let epoch = self.producers.get(&producer).map_or(0, |state| state.epoch + raised);
        let bytes = control_batch(offset, 0, (producer, epoch), commit, time_ms);
        let open = self.open.remove(&producer);
        let number = open.as_ref().map_or(self.written.fates.len(), |open| open.number);
        if open.is_none() {
            self.written.fates.push(Fate::Open);
            self.counts.empty_transactions += 1;
        }
        self.written.fates[number] = if commit { Fate::Committed } else { Fate::Aborted };
        let control = Record { key: vec![0, 0, 0, u8::from(commit)], value: Some(vec![0; 6]), timestamp: time_ms };
        let batch = Batch { producer: (producer, epoch, -1), marker: Some(commit), transaction: Some(number), records: vec![control] };
        self.append(&bytes, batch);
        let Some(open) = open else { return };
        let last_stable_offset = self.last_stable();
        let segment = self.segments.last_mut().expect("there is always one");
        self.counts.late_markers += u64::from(!open.segments.contains(&segment.base));
        if !commit {
            self.counts.aborted_across_segments += u64::from(open.segments.len() > 1);
            segment.aborted.push(AbortedTxn { producer_id: producer, first_offset: open.first, last_offset: offset, last_stable_offset });
        }
    }

    fn append(&mut self, bytes: &[u8], batch: Batch) {
        let active = self.segments.last().expect("there is always one");
        if !active.bytes.is_empty() && active.bytes.len() + bytes.len() > self.segment_bytes {
            self.roll();
        }
        let active = self.segments.last_mut().expect("there is always one");
        active.bytes.extend_from_slice(bytes);
        if let Some(open) = self.open.get_mut(&batch.producer.0).filter(|open| Some(open.number) == batch.transaction) {
            open.segments.insert(active.base);
        }
        self.follow(&batch);
        let base = self.next_offset;
        self.next_offset += batch.records.len() as i64;
        self.written.batches.insert(base, batch);
    }

    /// What the batch that comes next does to its producer's state.
    fn follow(&mut self, batch: &Batch) {
        let (producer_id, epoch, sequence) = batch.producer;
        if producer_id == NO_PRODUCER {
            return;
        }
        let timestamp = batch.records.iter().map(|record| record.timestamp).max().unwrap_or(-1);
        let state = self.producers.entry(producer_id).or_insert_with(|| ProducerState {
            producer_id,
            epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            transaction_first_offset: NO_TRANSACTION,
            batches: Vec::new(),
        });
        if state.epoch != epoch {
            state.epoch = epoch;
            state.batches.clear();
        }
        state.last_timestamp = timestamp;
        if batch.marker.is_some() {
            (state.coordinator_epoch, state.transaction_first_offset) = (0, NO_TRANSACTION);
            return;
        }
        if batch.transaction.is_some() && state.transaction_first_offset == NO_TRANSACTION {
            state.transaction_first_offset = self.next_offset;
        }
        let offset_delta = batch.records.len() as i32 - 1;
        let last_offset = self.next_offset + i64::from(offset_delta);
        state.batches = vec![SequencedBatch { last_sequence: sequence + offset_delta, last_offset, offset_delta, timestamp }];
    }

    /// Begins a new segment, unless nothing is in the last one.
    pub fn roll(&mut self) {
        if self.active_base() == self.next_offset {
            return;
        }
        let producers = self.producers.values().cloned().collect();
        self.segments.push(Segment { base: self.next_offset, bytes: Vec::new(), aborted: Vec::new(), producers });
    }

    /// True if a transaction is under way.
    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Where the first open transaction begins, or the log's end.
    pub fn last_stable(&self) -> i64 {
        self.open.values().map(|open| open.first).min().unwrap_or(self.next_offset)
    }

    /// The next offset.
    pub fn log_end(&self) -> i64 {
        self.next_offset
    }

    /// The first offset of the segment that is written to.
    pub fn active_base(&self) -> i64 {
        self.segments.last().map_or(0, |segment| segment.base)
    }

    /// The last that is known of each producer.
    pub fn last_records(&self) -> BTreeMap<i64, LastRecord> {
        let last =
            |state: &ProducerState| LastRecord { epoch: state.epoch, data_offset: state.batches.last().map(|last| last.last_offset) };
        self.producers.iter().map(|(id, state)| (*id, last(state))).collect()
    }

    /// The files of its directory after a clean stop, of the segments from the one at `from` on; offset and time indexes only if they
    /// were there before.
    pub fn files(&self, from: i64, with_indexes: bool) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for segment in self.segments.iter().filter(|segment| segment.base >= from) {
            let mut indexes = Indexes::new(segment.base);
            scan(&segment.bytes, Scanner::new(0, segment.base, i32::MIN), |position, header, _| indexes.push(position, header));
            indexes.seal();
            if with_indexes {
                files.push((file_name(segment.base, FileKind::Index), indexes.offsets.encode()));
                files.push((file_name(segment.base, FileKind::TimeIndex), indexes.times.encode()));
            }
            if !segment.aborted.is_empty() {
                let mut transactions = TxnIndex::default();
                segment.aborted.iter().for_each(|aborted| transactions.push(*aborted));
                files.push((file_name(segment.base, FileKind::TxnIndex), transactions.encode()));
            }
            if segment.base > 0 {
                files.push((file_name(segment.base, FileKind::Snapshot), encode_snapshot(&segment.producers)));
            }
            files.push((file_name(segment.base, FileKind::Log), segment.bytes.clone()));
        }
        let producers: Vec<ProducerState> = self.producers.values().cloned().collect();
        files.push((file_name(self.next_offset, FileKind::Snapshot), encode_snapshot(&producers)));
        files.push((LEADER_EPOCH_CHECKPOINT.to_owned(), b"0\n1\n0 0\n".to_vec()));
        files.push((PARTITION_METADATA.to_owned(), encode_metadata(Uuid::from_u128(9)).into_bytes()));
        files
    }
}
