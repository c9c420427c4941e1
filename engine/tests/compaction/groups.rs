//! A round puts one group in place after the other: what space that takes, and what a round leaves that fails on its way.

use crate::history::{ID, Written, agree, is_scratch, read_from, run_out, spec};
use engine::{
    batch::BatchBuilder,
    compaction::{Group, Job},
    disk::{
        BLOCK,
        sim::{Executor, Faults, SimDisk},
    },
    log::{Log, LogConfig, Start},
    partition::PartitionConfig,
};
use std::{collections::BTreeMap, path::Path};

/// The clock of all appends.
const NOW_MS: i64 = 1_000;
/// The clock of all else: what was appended has come to rest in the segments.
const LATER_MS: i64 = 100_000;
/// Eight batches to a segment.
const VALUE_BYTES: usize = 8_000;
const SEGMENT_BYTES: u64 = 64 << 10;
/// Keys that a round remembers: more than there are.
const KEYS_MAX: usize = 10_000;
/// What the file of a new segment is given at first, until its size is known.
const AHEAD_BLOCKS: u64 = (16 << 20) / BLOCK;
/// What is free besides: enough for the indexes of a group and what it becomes.
const SPARE_BLOCKS: u64 = 48;

fn partition() -> PartitionConfig {
    PartitionConfig { compacted: true, segment_bytes: SEGMENT_BYTES, ..PartitionConfig::default() }
}

async fn open(disk: &SimDisk) -> Log<SimDisk> {
    let config = LogConfig {
        data_dir: "/data".into(),
        journal_dir: "/journal".into(),
        journal_bytes: 768 << 10,
        bulk_bytes_min: 32 << 10,
        tail_bytes_max: 1 << 20,
        ..LogConfig::default()
    };
    let start = Start::read(disk, &config, 1).await.expect("reads");
    let core = start.finish(1, vec![spec(partition())], 0).await.expect("starts").pop().expect("one core");
    let log = Log::open(disk.clone(), core).await.expect("opens");
    log.ready(&[ID]).await.expect("is opened");
    log
}

/// A compacted partition, and everything that was appended to it.
struct Table {
    disk: SimDisk,
    executor: Executor,
    log: Log<SimDisk>,
    written: BTreeMap<i64, Written>,
}

/// What a round has done.
struct Round {
    /// Groups that are in place.
    groups: Vec<Group>,
    /// The offset behind what it was to clean.
    end: i64,
    is_whole: bool,
}

impl Table {
    fn new(seed: u64) -> Table {
        let disk = SimDisk::new(seed, &[Path::new("/data"), Path::new("/journal")]);
        Table::start(disk, seed, BTreeMap::new())
    }

    fn start(disk: SimDisk, seed: u64, written: BTreeMap<i64, Written>) -> Table {
        let mut executor = Executor::new(&disk, seed);
        let opened = disk.clone();
        let log = executor.block_on(async move { open(&opened).await });
        let running = log.clone();
        executor.spawn(async move { running.run().await });
        Table { disk, executor, log, written }
    }

    /// The same after its process was killed.
    fn restarted(self, seed: u64) -> Table {
        let Table { disk, executor, log, written } = self;
        drop((log, executor));
        disk.kill();
        Table::start(disk, seed, written)
    }

    /// Appends so many batches of one record: every second one is of one and the same key, each other has its own.
    fn append(&mut self, count: usize) {
        let (log, first) = (self.log.clone(), self.written.len());
        let written = self.executor.block_on(async move {
            let mut written = BTreeMap::new();
            for number in first..first + count {
                let key = if number.is_multiple_of(2) { format!("key {number}").into_bytes() } else { b"hot".to_vec() };
                let value = vec![number as u8; VALUE_BYTES];
                let batch = BatchBuilder::new().record(NOW_MS, Some(&key), Some(&value)).build();
                log.admit(batch.len()).await;
                let appended = log.append(ID, &batch, NOW_MS).expect("appends");
                log.durable_of(ID, &appended).await.expect("is durable");
                written.insert(appended.base_offset, Written { key, value: Some(value), timestamp: NOW_MS });
            }
            written
        });
        self.written.extend(written);
        // One look has all of it moved to the segments, and the next ones find those that are closed then.
        for _ in 0..3 {
            self.keep();
        }
    }

    fn keep(&mut self) {
        let log = self.log.clone();
        self.executor.spawn(async move { log.keep(LATER_MS).await });
        run_out(&mut self.executor).expect("comes to rest");
    }

    /// From now on nothing is dirty enough for a round: only one that has begun is gone on with.
    fn begin_no_round(&mut self) {
        self.log.configure(ID, PartitionConfig { min_cleanable_dirty_ratio: 1.0, ..partition() });
        self.log.keep_soon(ID);
        self.keep();
    }

    /// A round in which nothing can be written any more once so many groups are in place.
    fn round(&mut self, groups_max: usize) -> Round {
        self.round_of_keys(groups_max, KEYS_MAX)
    }

    /// The same with memory for so many keys. What is to stop behind a group is read twice: else the others are written before.
    fn round_of_keys(&mut self, groups_max: usize, keys_max: usize) -> Round {
        let (log, disk) = (self.log.clone(), self.disk.clone());
        let round = self.executor.block_on(async move {
            let job = log.next_cleaning(LATER_MS, keys_max, (1, 2)).await.expect("a round is due");
            let job = if groups_max == usize::MAX { job } else { Job { kept_bytes_max: 0, ..job } };
            let mut groups = Vec::new();
            let work = job.run(&disk, async |group| {
                let installed = log.install_cleaned(&job, &group).await;
                groups.push(group);
                if groups.len() == groups_max {
                    disk.set_faults(Faults { write_failed: 1.0, only: Some(is_scratch), ..Faults::default() });
                }
                installed
            });
            let result = work.await;
            disk.set_faults(Faults::default());
            let is_whole = matches!(result, Ok(Some(_)));
            log.finish_cleaning(&job, result, LATER_MS).await;
            Round { groups, end: job.end, is_whole }
        });
        self.keep();
        round
    }

    /// Whether there is a round to begin.
    fn is_due(&mut self) -> bool {
        let log = self.log.clone();
        self.executor.block_on(async move { log.next_cleaning(LATER_MS, KEYS_MAX, (1, 2)).await }).is_some()
    }

    /// When the round that is due is overdue. It is not run.
    fn overdue_ms(&mut self) -> Option<i64> {
        let log = self.log.clone();
        let overdue_ms = self.executor.block_on(async move {
            let job = log.next_cleaning(LATER_MS, KEYS_MAX, (1, 2)).await.expect("a round is due");
            log.finish_cleaning(&job, Ok(None), LATER_MS).await;
            job.overdue_ms
        });
        self.keep();
        overdue_ms
    }

    /// What there is says of each key what was written.
    fn check(&mut self) -> BTreeMap<i64, Written> {
        let (log, disk) = (self.log.clone(), self.disk.clone());
        let (there, up_to) = self.executor.block_on(async move { read_from(&log, &disk, 0, 100_000).await }).expect("is read");
        assert_eq!(up_to, self.written.len() as i64, "it was read to its end");
        agree(&there, &self.written, 0, up_to, true).expect("the last record of each key");
        there
    }

    /// The closed segments, and their bytes.
    fn segments(&self) -> Vec<(String, u64)> {
        let directory = Path::new("/data/table-0");
        let bytes = |name: &String| self.disk.peek(&directory.join(name)).map_or(0, |bytes| bytes.len() as u64);
        let logs = self.disk.names(directory).into_iter().filter(|name| name.ends_with(".log"));
        let mut segments: Vec<_> = logs.map(|name| (name.clone(), bytes(&name))).collect();
        segments.pop();
        segments
    }
}

/// True if no key is there twice below `end`.
fn is_clean(there: &BTreeMap<i64, Written>, end: i64) -> bool {
    let mut keys: Vec<_> = there.range(..end).map(|(_, record)| &record.key).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    keys.len() == count
}

#[test]
fn a_round_has_room_where_only_one_of_its_groups_has() {
    for seed in 0..8 {
        let mut table = Table::new(seed);
        table.append(200);
        table.disk.set_free_blocks(Some(AHEAD_BLOCKS + SPARE_BLOCKS));
        let round = table.round(usize::MAX);
        assert!(round.is_whole, "seed {seed}: {} groups are in place", round.groups.len());
        let blocks: u64 = round.groups.iter().map(|group| group.bytes.div_ceil(BLOCK)).sum();
        assert!(blocks > 2 * SPARE_BLOCKS, "seed {seed}: {blocks} blocks would have fitted at once");
        assert!(is_clean(&table.check(), round.end), "seed {seed}");
    }
}

#[test]
fn what_was_written_ahead_gives_way_to_a_group_that_has_no_room_beside_it() {
    for spare in (24..64).step_by(4) {
        let mut table = Table::new(spare);
        table.append(200);
        assert!(table.round(usize::MAX).is_whole, "{spare} blocks");
        table.log.configure(ID, PartitionConfig { min_cleanable_dirty_ratio: 0.0, ..partition() });
        table.append(40);
        // What is clean has become small: two segments become one, when all that is dirty was read and as much was written ahead as fitted.
        table.disk.set_free_blocks(Some(AHEAD_BLOCKS + spare));
        let round = table.round(usize::MAX);
        assert!(round.is_whole, "{spare} blocks: {} groups are in place", round.groups.len());
        let is_merged = |group: &Group| group.bases.len() > 1;
        assert!(round.groups.first().is_some_and(is_merged) && !round.groups.iter().all(is_merged), "{spare} blocks");
        assert!(is_clean(&table.check(), round.end), "{spare} blocks");
    }
}

#[test]
fn a_round_that_fails_in_its_second_group_leaves_the_first_in_place_and_the_next_one_goes_on() {
    for seed in 0..8 {
        let mut table = Table::new(seed);
        table.append(200);
        let before = table.segments();
        let failed = table.round(1);
        assert!(!failed.is_whole && failed.groups.len() == 1, "seed {seed}: {} groups are in place", failed.groups.len());
        let after = table.segments();
        assert_eq!((after.len(), after[0].1), (before.len(), failed.groups[0].bytes), "seed {seed}");
        assert_eq!(after[1..], before[1..], "seed {seed}");
        assert!(after[0].1 < before[0].1, "seed {seed}");
        assert!(table.disk.names(Path::new("/data/cleaning")).is_empty(), "seed {seed}: what was not swapped in is removed");
        table.check();

        // Nothing is dirtier than that: no round would begin now, but this one has begun.
        table.begin_no_round();
        let next = table.round(usize::MAX);
        assert!(next.is_whole && next.end == failed.end, "seed {seed}");
        assert!(is_clean(&table.check(), next.end), "seed {seed}");

        table.append(40);
        assert!(!table.is_due(), "seed {seed}: it has come to its end");
        table.check();
    }
}

#[test]
fn a_round_that_could_not_remember_all_keys_is_gone_on_with_after_a_restart() {
    for seed in 0..8 {
        let mut table = Table::new(seed);
        table.append(200);
        // The key of batch 56 is the last one that has room: the round ends within a segment.
        let partial = table.round_of_keys(usize::MAX, 30);
        assert!(partial.is_whole, "seed {seed}");
        assert!(!is_clean(&table.check(), partial.end), "seed {seed}: it had more to do");

        let mut table = table.restarted(seed + 100);
        table.begin_no_round();
        let next = table.round(usize::MAX);
        assert!(next.is_whole && next.end >= partial.end, "seed {seed}");
        assert!(is_clean(&table.check(), next.end), "seed {seed}");

        let mut table = table.restarted(seed + 200);
        table.begin_no_round();
        assert!(!table.is_due(), "seed {seed}: it has come to its end");
        table.check();
    }
}

#[test]
fn a_round_knows_when_max_compaction_lag_ms_has_passed_for_its_oldest_dirty_record() {
    let mut table = Table::new(1);
    table.append(200);
    assert_eq!(table.overdue_ms(), None);
    for lag_ms in [50_000, LATER_MS] {
        table.log.configure(ID, PartitionConfig { max_compaction_lag_ms: lag_ms, ..partition() });
        table.log.keep_soon(ID);
        table.keep();
        assert_eq!(table.overdue_ms(), Some(NOW_MS + lag_ms + 1));
    }
    assert!(table.round(usize::MAX).is_whole);
    table.check();
}
