//! One history: a compacted partition, written, cleaned, read and crashed, held against everything that was appended.

use engine::{
    batch::{BatchBuilder, Codec, Header, Records, payload},
    compaction::{CleanError, Job, KEPT_BYTES_MAX},
    disk::sim::{Executor, Faults, Joined, SimDisk},
    log::{Log, LogConfig, Start, mark_clean},
    partition::{PartitionConfig, PartitionId, PartitionSpec},
    retention::Retention,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

/// The partition.
pub const ID: PartitionId = PartitionId(7);
/// More steps than this without an end are a loop.
const STEPS_MAX: u64 = 3_000_000;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// What histories have met.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Records that compaction has removed.
    pub removed: u64,
    /// Rounds that have come to their end.
    pub rounds: u64,
    /// Rounds for which the memory was too small.
    pub partial: u64,
    /// Dirty bytes that were read once only.
    pub read_once: u64,
    /// Dirty bytes of segments that were looked at, of which some were read once only.
    pub read_once_of: u64,
    /// Rounds that failed behind a group that was swapped in.
    pub failed_on_the_way: u64,
    /// Groups of several segments that were swapped in.
    pub merged: u64,
    /// Crashes in rounds of which a group was swapped in.
    pub crashes_on_the_way: u64,
    /// Crashes while files took the place of others.
    pub crashes_in_swaps: u64,
}

impl Counts {
    /// Adds those of another history.
    pub fn add(&mut self, other: &Counts) {
        self.removed += other.removed;
        self.rounds += other.rounds;
        self.partial += other.partial;
        self.read_once += other.read_once;
        self.read_once_of += other.read_once_of;
        self.failed_on_the_way += other.failed_on_the_way;
        self.merged += other.merged;
        self.crashes_on_the_way += other.crashes_on_the_way;
        self.crashes_in_swaps += other.crashes_in_swaps;
    }
}

/// A record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; `None` of a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its timestamp in ms.
    pub timestamp: i64,
}

/// What the clients know.
#[derive(Default)]
struct Outside {
    written: RefCell<BTreeMap<i64, Written>>,
    /// Everything below was acked.
    acked: Cell<i64>,
    now_ms: Cell<i64>,
    counts: RefCell<Counts>,
    failures: RefCell<Vec<String>>,
    cleaning: Cell<bool>,
    /// Groups of the round under way that were swapped in.
    in_place: Cell<u64>,
    /// What rounds write may fail.
    faulty: Cell<bool>,
}

struct History {
    random: SmallRng,
    disk: SimDisk,
    outside: Rc<Outside>,
    config: LogConfig,
    partition: PartitionConfig,
    keys: usize,
    keys_max: usize,
    kept_bytes_max: u64,
    sequence: i32,
}

/// The settings of a log with small files, some of them chosen.
pub fn log_config(pick: &mut impl FnMut(&[u64]) -> u64) -> LogConfig {
    LogConfig {
        data_dir: PathBuf::from("/data"),
        journal_dir: PathBuf::from("/journal"),
        journal_bytes: 768 << 10,
        bulk_bytes_min: pick(&[8, 32]) << 10,
        tail_bytes_max: 1 << 20,
        open_segments_max: pick(&[1, 16]) as usize,
        ..LogConfig::default()
    }
}

/// Starts a log with the one partition, and runs it.
pub fn start(
    disk: &SimDisk,
    config: &LogConfig,
    partition: &PartitionConfig,
    random: &mut SmallRng,
) -> Result<(Executor, Log<SimDisk>), String> {
    let mut executor = Executor::new(disk, random.random());
    let (disk, config, spec, salt) = (disk.clone(), config.clone(), spec(partition.clone()), random.random());
    let opened = executor.spawn(async move {
        let start = Start::read(&disk, &config, salt).await.map_err(|error| error.to_string())?;
        let mut cores = start.finish(1, vec![spec], 0).await.map_err(|error| error.to_string())?;
        let log = Log::open(disk, cores.pop().expect("one core")).await.map_err(|error| error.to_string())?;
        log.ready(&[ID]).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(log)
    });
    let log = drive(&mut executor, &opened)??;
    let running = log.clone();
    executor.spawn(async move { running.run().await });
    Ok((executor, log))
}

/// Runs the history of a seed.
pub fn run(seed: u64) -> Result<Counts, String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut pick = |choices: &[u64]| choices[random.random_range(0..choices.len())];
    let config = log_config(&mut pick);
    let partition = PartitionConfig {
        compacted: true,
        segment_bytes: pick(&[3, 12, 40]) << 10,
        segment_ms: pick(&[500, 100_000]) as i64,
        min_cleanable_dirty_ratio: [0.0, 0.3, 0.5][pick(&[0, 1, 2]) as usize],
        min_compaction_lag_ms: pick(&[0, 0, 200]) as i64,
        max_compaction_lag_ms: [i64::MAX, 1_000][pick(&[0, 1]) as usize],
        delete_retention_ms: pick(&[0, 300]) as i64,
        retention: (pick(&[0, 0, 0, 1]) == 1).then_some(Retention { ms: Some(2_000), bytes: None }),
        ..PartitionConfig::default()
    };
    // Read twice, once where little stays, once.
    let kept_bytes_max = [0, 4 << 10, KEPT_BYTES_MAX][(seed % 3) as usize];
    let (keys, keys_max) = (pick(&[3, 20, 200]) as usize, pick(&[1, 10, 1_000]) as usize);
    let disk = SimDisk::new(random.random(), &[Path::new("/data"), Path::new("/journal")]);
    let outside = Rc::new(Outside::default());
    outside.now_ms.set(1_000);
    let mut history = History { random, disk, outside, config, partition, keys, keys_max, kept_bytes_max, sequence: 0 };
    for life in 0..4 {
        history.live().map_err(|error| format!("life {life}: {error}"))?;
    }
    history.end()?;
    Ok(history.outside.counts.take())
}

/// The partition that is compacted.
pub fn spec(config: PartitionConfig) -> PartitionSpec {
    PartitionSpec {
        id: ID,
        topic_id: uuid::Uuid::from_u128(9),
        directory: "table-0".into(),
        core: 0,
        leader_epoch: 0,
        internal: false,
        config,
    }
}

impl History {
    fn start(&mut self) -> Result<(Executor, Log<SimDisk>), String> {
        start(&self.disk, &self.config, &self.partition, &mut self.random)
    }

    fn live(&mut self) -> Result<(), String> {
        let (mut executor, log) = self.start()?;
        let end = log.offsets(ID).expect("is owned").log_end;
        if end < self.outside.acked.get() {
            return Err(format!("the log ends at {end}, {} was acked", self.outside.acked.get()));
        }
        // What was not acked may be gone.
        self.outside.written.borrow_mut().split_off(&end);
        self.outside.cleaning.set(false);
        self.outside.in_place.set(0);
        self.check(&mut executor, &log)?;
        self.outside.faulty.set(self.random.random_ratio(1, 4));
        if self.outside.faulty.get() {
            let faults = Faults { write_failed: 0.02, flush_failed: 0.02, only: Some(is_scratch), ..Faults::default() };
            self.disk.set_faults(faults);
        }
        let steps_max = [20, 200, 2_000][self.random.random_range(0..3)];
        for _ in 0..self.random.random_range(20..120) {
            self.outside.now_ms.set(self.outside.now_ms.get() + self.random.random_range(0..60));
            match self.random.random_range(0..10) {
                0..6 => self.produce(&executor, &log),
                6 => self.keep(&executor, &log),
                7 => self.clean(&executor, &log),
                _ => self.read(&executor, &log),
            }
            for _ in 0..self.random.random_range(0..=steps_max) {
                if !executor.step() {
                    break;
                }
            }
            if let Some(failure) = self.outside.failures.borrow_mut().pop() {
                return Err(failure);
            }
        }
        if self.random.random_ratio(1, 4) {
            let (disk, config, log) = (self.disk.clone(), self.config.clone(), log.clone());
            let closed = executor.spawn(async move {
                log.close().await?;
                mark_clean(&disk, &config).await
            });
            drive(&mut executor, &closed)?.map_err(|error| format!("a clean stop: {error}"))?;
        }
        let is_swapping = self.disk.names(Path::new("/data/table-0")).iter().any(|name| name.ends_with(".swap"));
        self.outside.counts.borrow_mut().crashes_in_swaps += u64::from(is_swapping);
        self.outside.counts.borrow_mut().crashes_on_the_way += u64::from(self.outside.in_place.get() > 0);
        drop(executor);
        match self.random.random() {
            true => drop(self.disk.crash()),
            false => self.disk.kill(),
        }
        Ok(())
    }

    /// In the end everything that is to be cleaned is, and holds each key once.
    fn end(&mut self) -> Result<(), String> {
        self.partition.min_cleanable_dirty_ratio = 0.0;
        (self.partition.min_compaction_lag_ms, self.partition.segment_ms) = (0, 1);
        self.keys_max = 10_000;
        let (mut executor, log) = self.start()?;
        let end = log.offsets(ID).expect("is owned").log_end;
        self.outside.written.borrow_mut().split_off(&end);
        self.outside.cleaning.set(false);
        self.outside.faulty.set(false);
        for _ in 0..6 {
            self.outside.now_ms.set(self.outside.now_ms.get() + 20_000);
            self.keep(&executor, &log);
            run_out(&mut executor)?;
            for _ in 0..2 {
                self.clean(&executor, &log);
                run_out(&mut executor)?;
                self.keep(&executor, &log);
                run_out(&mut executor)?;
            }
        }
        if let Some(failure) = self.outside.failures.borrow_mut().pop() {
            return Err(failure);
        }
        let there = self.check(&mut executor, &log)?;
        let mut counts = BTreeMap::<&[u8], usize>::new();
        there.values().for_each(|record| *counts.entry(&record.key).or_default() += 1);
        match counts.iter().find(|(_, count)| **count > 1) {
            Some((key, count)) => Err(format!("in the end key {key:?} is there {count} times")),
            None => Ok(()),
        }
    }

    fn produce(&mut self, executor: &Executor, log: &Log<SimDisk>) {
        let mut builder = BatchBuilder::new().codec(CODECS[self.random.random_range(0..5)]);
        let count = self.random.random_range(1..8);
        if self.random.random() {
            builder = builder.producer(self.random.random_range(1..4) * 1_000_000 + i64::from(self.sequence), 0, 0);
            self.sequence += 1;
        }
        let mut records = Vec::new();
        for _ in 0..count {
            let key = format!("key {}", self.random.random_range(0..self.keys)).into_bytes();
            let length = self.random.random_range(0..800);
            let value = (!self.random.random_ratio(1, 5)).then(|| (0..length).map(|_| self.random.random()).collect::<Vec<u8>>());
            let timestamp = self.outside.now_ms.get() - self.random.random_range(0..50);
            builder.push(timestamp, Some(&key), value.as_deref(), &[]);
            records.push(Written { key, value, timestamp });
        }
        let batch = builder.build();
        let (log, outside) = (log.clone(), Rc::clone(&self.outside));
        executor.spawn(async move {
            log.admit(batch.len()).await;
            let Ok(appended) = log.append(ID, &batch, outside.now_ms.get()) else { return };
            for (offset, record) in (appended.base_offset..).zip(records) {
                outside.written.borrow_mut().insert(offset, record);
            }
            if log.durable_of(ID, &appended).await.is_ok() {
                outside.acked.set(outside.acked.get().max(appended.last_offset + 1));
            }
        });
    }

    fn keep(&self, executor: &Executor, log: &Log<SimDisk>) {
        let (log, now_ms) = (log.clone(), self.outside.now_ms.get());
        executor.spawn(async move { log.keep(now_ms).await });
    }

    fn clean(&mut self, executor: &Executor, log: &Log<SimDisk>) {
        if self.outside.cleaning.replace(true) {
            return;
        }
        let (log, disk, outside) = (log.clone(), self.disk.clone(), Rc::clone(&self.outside));
        let (keys_max, kept_bytes_max) = (self.keys_max, self.kept_bytes_max);
        let secret = (self.random.random(), self.random.random());
        executor.spawn(async move {
            if let Some(job) = log.next_cleaning(outside.now_ms.get(), keys_max, secret).await {
                let job = Job { kept_bytes_max, ..job };
                let round = job.run(&disk, async |group| {
                    let installed = log.install_cleaned(&job, &group).await;
                    if matches!(installed, Ok(true)) {
                        outside.in_place.set(outside.in_place.get() + 1);
                        outside.counts.borrow_mut().merged += u64::from(group.bases.len() > 1);
                    }
                    installed
                });
                let result = round.await;
                match &result {
                    Ok(Some(cleaned)) => {
                        let mut counts = outside.counts.borrow_mut();
                        counts.removed += cleaned.records.0 - cleaned.records.1;
                        counts.rounds += 1;
                        counts.partial += u64::from(cleaned.is_partial);
                        counts.read_once += cleaned.read_once;
                        counts.read_once_of += if cleaned.read_once > 0 { cleaned.bytes.0 } else { 0 };
                    }
                    Ok(None) => {}
                    Err(error) => {
                        // Retention may have taken what it was about to read.
                        let is_gone = log.offsets(ID).is_some_and(|offsets| offsets.log_start > job.segments[0].base_offset);
                        let is_meant = outside.faulty.get() && matches!(error, CleanError::Disk { path, .. } if is_scratch(path));
                        outside.counts.borrow_mut().failed_on_the_way += u64::from(is_meant && outside.in_place.get() > 0);
                        if !is_gone && !is_meant && !is_held(error) {
                            outside.failures.borrow_mut().push(format!("a round failed: {error}"));
                        }
                    }
                }
                log.finish_cleaning(&job, result, outside.now_ms.get()).await;
                outside.in_place.set(0);
                // A failed round is tried again within the same life.
                log.keep_soon(ID);
            }
            outside.cleaning.set(false);
        });
    }

    /// A reader that begins anywhere.
    fn read(&mut self, executor: &Executor, log: &Log<SimDisk>) {
        let (log, disk, outside) = (log.clone(), self.disk.clone(), Rc::clone(&self.outside));
        let (part, bytes) = (self.random.random_range(0.0..1.0), self.random.random_range(1..20_000));
        executor.spawn(async move {
            let Some(offsets) = log.offsets(ID) else { return };
            let from = offsets.log_start + ((offsets.high_watermark - offsets.log_start) as f64 * part) as i64;
            match read_from(&log, &disk, from, bytes).await {
                Ok((there, up_to)) => {
                    let written = outside.written.borrow();
                    if let Err(error) = agree(&there, &written, from, up_to, false) {
                        outside.failures.borrow_mut().push(format!("a reader from {from} on: {error}"));
                    }
                }
                Err(_) if log.offsets(ID).is_some_and(|offsets| offsets.log_start > from) => {}
                Err(error) => outside.failures.borrow_mut().push(format!("a reader from {from} on: {error}")),
            }
        });
    }

    /// Holds the whole log against what was written.
    fn check(&self, executor: &mut Executor, log: &Log<SimDisk>) -> Result<BTreeMap<i64, Written>, String> {
        let (log, disk) = (log.clone(), self.disk.clone());
        let read = executor.spawn(async move {
            let start = log.offsets(ID).expect("is owned").log_start;
            read_from(&log, &disk, start, 10_000).await.map(|(there, up_to)| (start, there, up_to))
        });
        let (start, there, up_to) = drive(executor, &read)??;
        agree(&there, &self.outside.written.borrow(), start, up_to, true)?;
        Ok(there)
    }
}

/// True of what rounds write before it is swapped in.
pub fn is_scratch(path: &Path) -> bool {
    path.starts_with("/data/cleaning")
}

/// A reader may be writing indexes that a crash has taken: what is to be swapped then has to wait.
pub fn is_held(error: &CleanError) -> bool {
    matches!(error, CleanError::Disk { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
}

/// Everything from `from` up to the high watermark of the end of the reading, and that offset.
pub async fn read_from(log: &Log<SimDisk>, disk: &SimDisk, from: i64, bytes_max: usize) -> Result<(BTreeMap<i64, Written>, i64), String> {
    let (mut there, mut next) = (BTreeMap::new(), from);
    loop {
        let plan = log.read(ID, next, bytes_max, true, false).await.map_err(|error| error.to_string())?;
        let bytes = plan.collect(disk).await.map_err(|error| error.to_string())?;
        let mut rest = &bytes[..];
        let before = next;
        while let Some(header) = Header::read(rest) {
            let (batch, behind) = rest.split_at(header.size());
            rest = behind;
            if header.last_offset() < next {
                return Err(format!("a batch up to {} where {next} was asked for", header.last_offset()));
            }
            let records = payload(&header, batch, 1 << 20).map_err(|error| error.to_string())?;
            for record in Records::new(&header, &records) {
                let record = record.map_err(|error| error.to_string())?;
                let written = Written {
                    key: record.key.unwrap_or_default().to_vec(),
                    value: record.value.map(<[u8]>::to_vec),
                    timestamp: record.timestamp(&header),
                };
                if record.offset(&header) >= from && there.insert(record.offset(&header), written).is_some() {
                    return Err(format!("offset {} came twice", record.offset(&header)));
                }
            }
            next = header.next_offset();
        }
        if next == before {
            return Ok((there, next.max(log.offsets(ID).map_or(0, |offsets| offsets.high_watermark.min(plan.next_offset)))));
        }
    }
}

/// What was read of the offsets `from..up_to` says the same of each key as what was written there. Unless it was read `at_once`
/// a tombstone may have had its time meanwhile, when what it ends was read already.
pub fn agree(there: &BTreeMap<i64, Written>, written: &BTreeMap<i64, Written>, from: i64, up_to: i64, at_once: bool) -> Result<(), String> {
    for (offset, record) in there {
        if written.get(offset) != Some(record) {
            return Err(format!("at {offset} there is {record:?}, written was {:?}", written.get(offset)));
        }
    }
    let last = |records: &BTreeMap<i64, Written>| {
        let below = records.range(from..up_to.max(from));
        below.map(|(offset, record)| (record.key.clone(), (*offset, record.value.is_some()))).collect::<BTreeMap<_, _>>()
    };
    let (mut is, must) = (last(there), last(written));
    for (key, (offset, has_value)) in must {
        match is.remove(&key) {
            Some((at, _)) if at == offset => {}
            // Its last record was a tombstone, and had its time.
            None if !has_value => {}
            Some(_) if !has_value && !at_once => {}
            other => return Err(format!("the last of key {key:?} is at {offset} (a value: {has_value}), what is there is {other:?}")),
        }
    }
    if is.is_empty() { Ok(()) } else { Err(format!("keys that nobody wrote: {is:?}")) }
}

/// Steps until nothing is left to be done.
pub fn run_out(executor: &mut Executor) -> Result<(), String> {
    let limit = executor.steps() + STEPS_MAX;
    while executor.step() {
        if executor.steps() > limit {
            return Err("the log does not come to rest".into());
        }
    }
    Ok(())
}

/// Steps until a task has ended.
pub fn drive<T>(executor: &mut Executor, task: &Joined<T>) -> Result<T, String> {
    let limit = executor.steps() + STEPS_MAX;
    loop {
        if let Some(value) = task.take() {
            return Ok(value);
        }
        if executor.steps() > limit || !executor.step() {
            return Err("a task without an end".into());
        }
    }
}
