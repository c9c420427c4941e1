//! Histories of logs that a Kafka wrote, with transactions, cleaned here: as a broker does that has taken the directory over (`broker`),
//! and as `compact` does it to the directory of a Kafka that goes on afterwards (`offline`), where transactions may still be open.
//!
//! - `TRANSACTION_SEEDS=5000 cargo test --release -p engine --test compaction transaction` runs more of them.
//! - `TRANSACTION_SEED=17 …` repeats one.
//!
//! `kafka` writes the log, `rules` holds what is left against it: what a consumer of committed records is given, and, after each round
//! that came to its end, every batch against what Kafka's own rules leave of what was there before the round.

mod broker;
mod kafka;
mod offline;
mod rules;

use crate::number;
use offline::Offline;

/// Seeds of the test command.
const SEEDS: u64 = 150;
/// One history in so many is one of `compact`.
const OFFLINE_PART: u64 = 3;

/// What histories have met.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Rounds that have come to their end.
    pub rounds: u64,
    /// Rounds for which the memory was too small.
    pub partial: u64,
    /// Rounds that have come to their end in logs in which something was clean already.
    pub later_rounds: u64,
    /// Groups of several segments that were swapped in.
    pub merged: u64,
    /// Crashes while files took the place of others.
    pub crashes_in_swaps: u64,
    /// Crashes while a round was under way.
    pub crashes_in_rounds: u64,
    /// Records of aborted transactions that compaction has removed.
    pub aborted: u64,
    /// Tombstones that compaction has removed.
    pub tombstones: u64,
    /// Markers that compaction has removed.
    pub markers: u64,
    /// Aborted transactions with records in several segments.
    pub aborted_across_segments: u64,
    /// Markers in a segment without records of their transaction.
    pub late_markers: u64,
    /// Markers of transactions without records.
    pub empty_transactions: u64,
    /// Logs that a Kafka left with an open transaction, and that were taken over so.
    pub open_at_takeover: u64,
    /// Rounds that an open transaction has held.
    pub held_by_open: u64,
}

impl Counts {
    /// Adds those of another history.
    pub fn add(&mut self, other: &Counts) {
        self.rounds += other.rounds;
        self.partial += other.partial;
        self.later_rounds += other.later_rounds;
        self.merged += other.merged;
        self.crashes_in_swaps += other.crashes_in_swaps;
        self.crashes_in_rounds += other.crashes_in_rounds;
        self.aborted += other.aborted;
        self.tombstones += other.tombstones;
        self.markers += other.markers;
        self.aborted_across_segments += other.aborted_across_segments;
        self.late_markers += other.late_markers;
        self.empty_transactions += other.empty_transactions;
        self.open_at_takeover += other.open_at_takeover;
        self.held_by_open += other.held_by_open;
    }

    /// Takes in a round that has come to its end.
    fn round(&mut self, first_dirty: i64, cleaned: &engine::compaction::Cleaned) {
        self.rounds += 1;
        self.partial += u64::from(cleaned.is_partial);
        self.later_rounds += u64::from(first_dirty > 0);
        self.aborted += cleaned.gone.aborted;
        self.tombstones += cleaned.gone.tombstones;
        self.markers += cleaned.gone.markers;
    }
}

/// Runs the history of a seed.
fn run(seed: u64) -> Result<Counts, String> {
    if seed % OFFLINE_PART == OFFLINE_PART - 1 { offline::run(seed) } else { broker::run(seed) }
}

#[test]
fn a_log_with_transactions_is_compacted_as_a_kafka_would_and_tells_readers_of_committed_records_the_same() {
    if let Some(seed) = number("TRANSACTION_SEED") {
        let counts = run(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        println!("{counts:?}");
        return;
    }
    let mut total = Counts::default();
    for seed in 0..number("TRANSACTION_SEEDS").unwrap_or(SEEDS) {
        total.add(&run(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}")));
    }
    println!("{total:?}");
    let gone = [total.aborted, total.markers, total.tombstones];
    assert!(gone.iter().all(|count| *count > 0), "too little was removed: {total:?}");
    let transactions = [total.aborted_across_segments, total.late_markers, total.empty_transactions];
    assert!(transactions.iter().all(|count| *count > 0), "the transactions were too simple: {total:?}");
    assert!(total.open_at_takeover > 0 && total.held_by_open > 0, "no transaction was open: {total:?}");
    assert!(total.crashes_in_swaps > 0 && total.crashes_in_rounds > 0, "no crash fell into a swap: {total:?}");
    assert!(total.partial > 0 && total.later_rounds > 0 && total.merged > 0, "too little was compacted: {total:?}");
}

/// Histories that have found something.
const REGRESSIONS: [u64; 3] = [
    // A transaction that was given up hid others that had begun before it from readers.
    37, 58, // A kill between a rename out of the scratch directory and its flush, and then a power cut.
    243,
];

#[test]
fn histories_that_have_failed_before() {
    for seed in REGRESSIONS {
        run(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

#[test]
fn what_is_committed_behind_an_aborted_transaction_of_the_same_producer_stays() {
    let mut log = Offline::new(1);
    log.kafka.produce(1, true);
    log.kafka.end(1, false);
    log.kafka.roll();
    log.kafka.produce(1, true);
    log.kafka.end(1, true);
    // The aborted one is cleaned, and its marker stays for now.
    log.compact_to_the_end().expect("the first round");
    log.kafka.roll();
    log.kafka.produce(1, true);
    log.kafka.end(1, true);
    // What is dirty begins behind that marker.
    log.compact_to_the_end().expect("the second round");
    assert!(log.counts().aborted > 0 && log.counts().later_rounds > 0, "{:?}", log.counts());
}
