//! A Kafka's directory that a start takes over: the broker appends to it, cleans it, serves it and crashes. Transactions that were open
//! are aborted: by an import, or by that start (the directory was copied by hand).

use super::{
    Counts,
    kafka::Kafka,
    rules::{Batch, Consumed, DIRECTORY, Record, Written, check_round, check_untouched, on_disk},
};
use crate::history::{ID, drive, is_held, log_config, run_out, start};
use engine::{
    batch::{BatchBuilder, NO_PRODUCER},
    compaction::{CleanError, Cleaned, Job, LastRecord},
    disk::{
        sim::{Executor, SimDisk},
        write_whole,
    },
    log::{Log, LogConfig, mark_clean},
    partition::{
        PartitionConfig,
        directory::{MARK_FILE, import_mark},
    },
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    path::Path,
    rc::Rc,
};

/// What the end reads at once, in bytes.
const READ_BYTES: usize = 10_000;
/// The first producer of the broker's own: that Kafka has given none so high.
const OWN_PRODUCERS: i64 = 1_000;

/// What the clients know.
struct Outside {
    written: RefCell<Written>,
    /// Everything below was acked.
    acked: Cell<i64>,
    now_ms: Cell<i64>,
    counts: RefCell<Counts>,
    failures: RefCell<Vec<String>>,
    cleaning: Cell<bool>,
    /// Up to where rounds have worked.
    clean_end: Cell<i64>,
    /// The last that is known of that Kafka's producers.
    producers: BTreeMap<i64, LastRecord>,
}

struct Broker {
    random: SmallRng,
    disk: SimDisk,
    outside: Rc<Outside>,
    config: LogConfig,
    partition: PartitionConfig,
    keys: usize,
    keys_max: usize,
    own_producer: i64,
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
        min_cleanable_dirty_ratio: [0.0, 0.3][pick(&[0, 1]) as usize],
        min_compaction_lag_ms: pick(&[0, 0, 200]) as i64,
        delete_retention_ms: pick(&[0, 300]) as i64,
        ..PartitionConfig::default()
    };
    let (keys, keys_max) = (pick(&[4, 60]) as usize, pick(&[2, 10, 1_000]) as usize);
    let disk = SimDisk::new(random.random(), &[Path::new("/data"), Path::new(DIRECTORY), Path::new("/journal")]);
    let kafka = kafka(&mut random, &disk)?;
    let outside = Rc::new(Outside {
        acked: Cell::new(kafka.log_end()),
        now_ms: Cell::new(kafka.now_ms),
        counts: RefCell::new(kafka.counts.clone()),
        failures: RefCell::default(),
        cleaning: Cell::new(false),
        clean_end: Cell::new(0),
        producers: kafka.last_records(),
        written: RefCell::new(kafka.written),
    });
    let mut broker = Broker { random, disk, outside, config, partition, keys, keys_max, own_producer: OWN_PRODUCERS };
    for life in 0..3 {
        broker.live().map_err(|error| format!("life {life}: {error}"))?;
    }
    broker.end().map_err(|error| format!("the last life: {error}"))?;
    Ok(broker.outside.counts.take())
}

/// A Kafka's directory is on the disk, imported or copied by hand.
fn kafka(random: &mut SmallRng, disk: &SimDisk) -> Result<Kafka, String> {
    let mut kafka = Kafka::new(random.random());
    kafka.run(random.random_range(20..150));
    let is_imported: bool = random.random();
    if is_imported {
        kafka.abort_open();
    } else {
        kafka.counts.open_at_takeover += u64::from(kafka.has_open());
    }
    let mut files = kafka.files(0, random.random_ratio(3, 4));
    if is_imported {
        files.push((MARK_FILE.to_owned(), import_mark().into_bytes()));
    } else {
        // The first start will.
        kafka.give_up_open();
    }
    let to = disk.clone();
    let written = Executor::new(disk, random.random()).block_on(async move {
        for (name, bytes) in files {
            write_whole(&to, &Path::new(DIRECTORY).join(name), &bytes).await?;
        }
        Ok::<_, io::Error>(())
    });
    written.map_err(|error| error.to_string())?;
    Ok(kafka)
}

impl Broker {
    fn start(&mut self) -> Result<(Executor, Log<SimDisk>), String> {
        let (executor, log) = start(&self.disk, &self.config, &self.partition, &mut self.random)?;
        let end = log.offsets(ID).expect("is owned").log_end;
        if end < self.outside.acked.get() {
            return Err(format!("the log ends at {end}, {} was acked", self.outside.acked.get()));
        }
        // What was not acked may be gone.
        self.outside.written.borrow_mut().batches.split_off(&end);
        self.outside.cleaning.set(false);
        Ok((executor, log))
    }

    fn live(&mut self) -> Result<(), String> {
        let (mut executor, log) = self.start()?;
        self.check(&mut executor, &log)?;
        let steps_max = [20, 200, 2_000][self.random.random_range(0..3)];
        for _ in 0..self.random.random_range(20..100) {
            self.outside.now_ms.set(self.outside.now_ms.get() + self.random.random_range(0..60));
            match self.random.random_range(0..10) {
                0..4 => self.produce(&executor, &log),
                4..6 => self.keep(&executor, &log),
                6..8 => self.clean(&executor, &log),
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
        let is_swapping = self.disk.names(Path::new(DIRECTORY)).iter().any(|name| name.ends_with(".swap"));
        self.outside.counts.borrow_mut().crashes_in_swaps += u64::from(is_swapping);
        self.outside.counts.borrow_mut().crashes_in_rounds += u64::from(self.outside.cleaning.get());
        drop((executor, log));
        match self.random.random() {
            true => drop(self.disk.crash()),
            false => self.disk.kill(),
        }
        Ok(())
    }

    /// In the end everything that is to be cleaned is, horizons pass, and each key is there once.
    fn end(&mut self) -> Result<(), String> {
        self.partition.min_cleanable_dirty_ratio = 0.0;
        (self.partition.min_compaction_lag_ms, self.partition.segment_ms) = (0, 1);
        self.keys_max = 10_000;
        let (mut executor, log) = self.start()?;
        for round in 0..7 {
            if round < 4 {
                // Only what has something dirty is cleaned again.
                self.produce(&executor, &log);
                run_out(&mut executor)?;
            }
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
        self.check(&mut executor, &log)?.check_once(&self.outside.written.borrow())
    }

    fn produce(&mut self, executor: &Executor, log: &Log<SimDisk>) {
        let mut producer = (NO_PRODUCER, -1, -1);
        if self.random.random_ratio(1, 4) {
            producer = (self.own_producer, 0, 0);
            self.own_producer += 1;
        }
        let mut builder = BatchBuilder::new();
        if producer.0 != NO_PRODUCER {
            builder = builder.producer(producer.0, producer.1, producer.2);
        }
        let mut records = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let key = format!("key {}", self.random.random_range(0..self.keys)).into_bytes();
            let length = self.random.random_range(0..300);
            let value = (!self.random.random_ratio(1, 5)).then(|| (0..length).map(|_| self.random.random()).collect::<Vec<u8>>());
            let timestamp = self.outside.now_ms.get() - self.random.random_range(0..50);
            builder.push(timestamp, Some(&key), value.as_deref(), &[]);
            records.push(Record { key, value, timestamp });
        }
        let batch = builder.build();
        let (log, outside) = (log.clone(), Rc::clone(&self.outside));
        executor.spawn(async move {
            log.admit(batch.len()).await;
            let Ok(appended) = log.append(ID, &batch, outside.now_ms.get()) else { return };
            let written = Batch { producer, marker: None, transaction: None, records };
            outside.written.borrow_mut().batches.insert(appended.base_offset, written);
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
        let (log, disk, outside, keys_max) = (log.clone(), self.disk.clone(), Rc::clone(&self.outside), self.keys_max);
        let secret = (self.random.random(), self.random.random());
        executor.spawn(async move {
            if let Some(job) = log.next_cleaning(outside.now_ms.get(), keys_max, secret).await {
                let result = outside.round(&log, &disk, &job).await;
                log.finish_cleaning(&job, result, outside.now_ms.get()).await;
                // A failed round is tried again within the same life.
                log.keep_soon(ID);
            }
            outside.cleaning.set(false);
        });
    }

    /// A consumer that begins anywhere.
    fn read(&mut self, executor: &Executor, log: &Log<SimDisk>) {
        let (log, disk, outside) = (log.clone(), self.disk.clone(), Rc::clone(&self.outside));
        let (part, bytes_max) = (self.random.random_range(0.0..1.0), self.random.random_range(1..20_000));
        executor.spawn(async move {
            let Some(offsets) = log.offsets(ID) else { return };
            let from = offsets.log_start + ((offsets.high_watermark - offsets.log_start) as f64 * part) as i64;
            let consumed = outside.consume(&log, &disk, (from, bytes_max), true).await;
            let checked = consumed.and_then(|(consumed, up_to)| consumed.check(&outside.written.borrow(), from, up_to, false));
            if let Err(error) = checked {
                outside.failures.borrow_mut().push(format!("a consumer from {from} on: {error}"));
            }
        });
    }

    /// Holds the whole log against what was written. Returns what a consumer of committed records has.
    fn check(&self, executor: &mut Executor, log: &Log<SimDisk>) -> Result<Consumed, String> {
        let (log, disk, outside) = (log.clone(), self.disk.clone(), Rc::clone(&self.outside));
        let read = executor.spawn(async move {
            let from = log.offsets(ID).expect("is owned").log_start;
            let (all, up_to) = outside.consume(&log, &disk, (from, READ_BYTES), false).await?;
            check_untouched(&all.batches, &outside.written.borrow(), outside.clean_end.get(), up_to)?;
            let (committed, up_to) = outside.consume(&log, &disk, (from, READ_BYTES), true).await?;
            committed.check(&outside.written.borrow(), from, up_to, true)?;
            Ok::<_, String>(committed)
        });
        drive(executor, &read)?
    }
}

impl Outside {
    /// One round, and whether it was what Kafka's rules make of the log.
    async fn round(&self, log: &Log<SimDisk>, disk: &SimDisk, job: &Job) -> Result<Option<Cleaned>, CleanError> {
        self.clean_end.set(self.clean_end.get().max(job.end));
        let before = on_disk(disk, job.segments[0].base_offset..job.end, &self.written.borrow());
        let round = job.run(disk, async |group| {
            let installed = log.install_cleaned(job, &group).await;
            if matches!(installed, Ok(true)) {
                self.counts.borrow_mut().merged += u64::from(group.bases.len() > 1);
            }
            installed
        });
        let result = round.await;
        let checked = match &result {
            Ok(Some(cleaned)) => {
                self.counts.borrow_mut().round(job.first_dirty, cleaned);
                let producers = self.check_producers(job);
                let written = self.written.borrow();
                before.and_then(|before| check_round(disk, job, cleaned, &before, &written)).and(producers)
            }
            Ok(None) => Ok(()),
            Err(error) if is_held(error) => Ok(()),
            Err(error) => Err(format!("a round failed: {error}")),
        };
        self.failures.borrow_mut().extend(checked.err());
        result
    }

    /// The partition knows of that Kafka's producers what that Kafka knew.
    fn check_producers(&self, job: &Job) -> Result<(), String> {
        match self.producers.iter().find(|(id, last)| job.producers.get(*id) != Some(*last)) {
            Some((id, last)) => Err(format!("of producer {id} {:?} is known, that Kafka knew {last:?}", job.producers.get(id))),
            None => Ok(()),
        }
    }

    /// Everything from an offset up to the high watermark of the end of the reading, so many bytes at once, and that offset.
    async fn consume(
        &self,
        log: &Log<SimDisk>,
        disk: &SimDisk,
        (from, bytes_max): (i64, usize),
        is_committed: bool,
    ) -> Result<(Consumed, i64), String> {
        let (mut consumed, mut next) = (Consumed::default(), from);
        loop {
            let plan = log.read(ID, next, bytes_max, true, is_committed).await.map_err(|error| error.to_string())?;
            let bytes = plan.collect(disk).await.map_err(|error| error.to_string())?;
            let aborted = plan.aborted.iter().map(|aborted| (aborted.first_offset, aborted.producer_id)).collect();
            let before = next;
            next = consumed.fetch(&bytes, aborted, next, &self.written.borrow())?;
            if next == before {
                let high_watermark = log.offsets(ID).map_or(0, |offsets| offsets.high_watermark);
                return Ok((consumed, next.max(high_watermark.min(plan.next_offset))));
            }
        }
    }
}
