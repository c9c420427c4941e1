//! A Kafka's directory that is compacted whenever that Kafka is stopped, as `compact` does it: jobs without a log, and swaps that a Kafka
//! knows how to finish. Between two runs it goes on: what was open ends, what was active is closed.

use super::{
    Counts,
    kafka::Kafka,
    rules::{Consumed, DIRECTORY, Written, check_round, check_untouched, on_disk, segment_bases, segment_file},
};
use crate::history::ID;
use engine::{
    batch::{Scanner, scan},
    compaction::{CleanError, Job, KEPT_BYTES_MAX, LastRecord, Progress, Source, discard, plan},
    disk::{
        sim::{Executor, SimDisk},
        write_whole,
    },
    partition::state::SealedSegment,
    segment::{FileKind, TxnIndex, kafka_swap},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Where a round writes.
const SCRATCH: &str = "/data/table-0/thalweg.cleaning";
/// Steps of a run that isn't cut off, at most: more are a loop.
const STEPS_MAX: u64 = 3_000_000;

/// One run of `compact`.
struct Run {
    written: Written,
    active_base: i64,
    last_stable: i64,
    producers: BTreeMap<i64, LastRecord>,
    segment_bytes: u64,
    delete_retention_ms: i64,
    now_ms: i64,
    keys_max: usize,
    secret: (u64, u64),
    /// What was not cleaned yet.
    first_dirty: Cell<i64>,
    /// Up to where rounds have worked.
    clean_end: Cell<i64>,
    is_in_round: Cell<bool>,
    counts: RefCell<Counts>,
}

/// The directory, and whoever works on it.
pub struct Offline {
    random: SmallRng,
    disk: SimDisk,
    /// Who writes to it.
    pub kafka: Kafka,
    /// Its active segment when it was stopped last.
    stopped_at: i64,
    first_dirty: i64,
    clean_end: i64,
    segment_bytes: u64,
    delete_retention_ms: i64,
    keys_max: usize,
    counts: Counts,
}

/// Runs the history of a seed.
pub fn run(seed: u64) -> Result<Counts, String> {
    let mut offline = Offline::new(seed);
    for number in 0..offline.random.random_range(3..7) {
        offline.live().map_err(|error| format!("run {number}: {error}"))?;
    }
    offline.end()?;
    offline.counts.add(&offline.kafka.counts);
    Ok(offline.counts)
}

impl Offline {
    /// An empty one.
    pub fn new(seed: u64) -> Offline {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut pick = |choices: &[u64]| choices[random.random_range(0..choices.len())];
        let segment_bytes = pick(&[3, 12, 40]) << 10;
        let (delete_retention_ms, keys_max) = (pick(&[0, 300]) as i64, pick(&[2, 10, 1_000]) as usize);
        let disk = SimDisk::new(random.random(), &[Path::new("/data"), Path::new(DIRECTORY)]);
        let kafka = Kafka::new(random.random());
        Offline {
            random,
            disk,
            kafka,
            stopped_at: 0,
            first_dirty: 0,
            clean_end: 0,
            segment_bytes,
            delete_retention_ms,
            keys_max,
            counts: Counts::default(),
        }
    }

    /// What it has met.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The Kafka works for a while and stops; then the log is compacted, which may be cut off.
    fn live(&mut self) -> Result<(), String> {
        let events = self.random.random_range(5..50);
        self.kafka.run(events);
        self.kafka.now_ms += self.random.random_range(0..400);
        if self.random.random_ratio(1, 10) {
            // Its checkpoint may be lost: then all is dirty again.
            self.first_dirty = 0;
        }
        let steps_max = match self.random.random_range(0..2) {
            0 => STEPS_MAX,
            _ => self.random.random_range(0..1_500),
        };
        self.compact(steps_max)
    }

    /// Everything ends and is closed, and horizons pass.
    fn end(&mut self) -> Result<(), String> {
        self.kafka.abort_open();
        for _ in 0..3 {
            self.kafka.now_ms += 10_000;
            self.kafka.roll();
            self.kafka.run(3);
            self.compact_to_the_end()?;
        }
        Ok(())
    }

    /// The Kafka stops, and the log is compacted as far as it can be.
    pub fn compact_to_the_end(&mut self) -> Result<(), String> {
        self.compact(STEPS_MAX)
    }

    /// The Kafka stops, and the log is compacted until there is nothing more to do, or a crash comes after so many steps.
    fn compact(&mut self, steps_max: u64) -> Result<(), String> {
        self.write()?;
        let run = Rc::new(Run {
            written: self.kafka.written.clone(),
            active_base: self.kafka.active_base(),
            last_stable: self.kafka.last_stable(),
            producers: self.kafka.last_records(),
            segment_bytes: self.segment_bytes,
            delete_retention_ms: self.delete_retention_ms,
            now_ms: self.kafka.now_ms,
            keys_max: self.keys_max,
            secret: (self.random.random(), self.random.random()),
            first_dirty: Cell::new(self.first_dirty),
            clean_end: Cell::new(self.clean_end),
            is_in_round: Cell::new(false),
            counts: RefCell::default(),
        });
        let mut executor = Executor::new(&self.disk, self.random.random());
        let work = executor.spawn({
            let (disk, run) = (self.disk.clone(), Rc::clone(&run));
            async move { run.compact(&disk).await }
        });
        let mut done = None;
        while done.is_none() && executor.steps() < steps_max {
            let is_moving = executor.step();
            done = work.take();
            if done.is_none() && (!is_moving || executor.steps() == STEPS_MAX) {
                return Err("compaction without an end".into());
            }
        }
        let was_cut_off = done.is_none();
        done.transpose()?;
        let is_swapping = self.disk.names(Path::new(DIRECTORY)).iter().any(|name| name.ends_with(".swap") || name.ends_with(".cleaned"));
        (self.first_dirty, self.clean_end) = (run.first_dirty.get(), run.clean_end.get());
        self.counts.add(&run.counts.borrow());
        self.counts.crashes_in_swaps += u64::from(was_cut_off && is_swapping);
        self.counts.crashes_in_rounds += u64::from(was_cut_off && run.is_in_round.get());
        drop((work, executor));
        match self.random.random() {
            true => drop(self.disk.crash()),
            false => self.disk.kill(),
        }
        self.tidy()?;
        self.check()
    }

    /// What the Kafka has written since it was stopped last is on the disk, durably.
    fn write(&mut self) -> Result<(), String> {
        let files = self.kafka.files(self.stopped_at, true);
        self.stopped_at = self.kafka.active_base();
        let disk = self.disk.clone();
        let mut executor = Executor::new(&self.disk, self.random.random());
        let written = executor.block_on(async move {
            for (name, bytes) in files {
                write_whole(&disk, &Path::new(DIRECTORY).join(name), &bytes).await?;
            }
            Ok::<_, std::io::Error>(())
        });
        written.map_err(|error| error.to_string())
    }

    /// What the next run, or that Kafka's start, does first.
    fn tidy(&mut self) -> Result<(), String> {
        let disk = self.disk.clone();
        let mut executor = Executor::new(&self.disk, self.random.random());
        let tidied = executor.block_on(async move {
            discard(&disk, Path::new(SCRATCH)).await?;
            kafka_swap::recover(&disk, Path::new(DIRECTORY)).await
        });
        tidied.map_err(|error| format!("what was cut off can't be finished: {error}"))
    }

    /// Holds the log against what was written.
    fn check(&self) -> Result<(), String> {
        let written = &self.kafka.written;
        let all = on_disk(&self.disk, 0..i64::MAX, written)?;
        check_untouched(&all, written, self.clean_end, self.kafka.log_end())?;
        let last_stable = self.kafka.last_stable();
        self.consume(last_stable)?.check(written, 0, last_stable, true)
    }

    /// A consumer of committed records, which fetches a segment at a time, up to the last stable offset.
    fn consume(&self, last_stable: i64) -> Result<Consumed, String> {
        let bases = segment_bases(&self.disk);
        let index = |base: &i64| TxnIndex::decode(&segment_file(&self.disk, *base, FileKind::TxnIndex).unwrap_or_default());
        let indexes: Vec<TxnIndex> = bases.iter().map(index).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let mut consumed = Consumed::default();
        for (at, base) in bases.iter().enumerate() {
            let mut bytes = segment_file(&self.disk, *base, FileKind::Log).unwrap_or_default();
            let (mut end, mut to) = (0, *base);
            scan(&bytes, Scanner::new(0, *base, i32::MIN), |position, header, _| {
                if header.last_offset() < last_stable {
                    (end, to) = (position as usize + header.size(), header.next_offset());
                }
            });
            bytes.truncate(end);
            let mut aborted = Vec::new();
            for index in &indexes[at..] {
                if index.collect(*base, to, &mut aborted) {
                    break;
                }
            }
            let aborted = aborted.into_iter().map(|aborted| (aborted.first_offset, aborted.producer_id)).collect();
            consumed.fetch(&bytes, aborted, *base, &self.kafka.written)?;
        }
        Ok(consumed)
    }
}

impl Run {
    /// Rounds, as long as something is dirty.
    async fn compact(&self, disk: &SimDisk) -> Result<(), String> {
        while let Some(job) = self.job(disk) {
            self.is_in_round.set(true);
            self.clean_end.set(self.clean_end.get().max(job.end));
            let before = on_disk(disk, job.segments[0].base_offset..job.end, &self.written)?;
            let round = job.run(disk, async |group| {
                let replaced = kafka_swap::replace(disk, &job.scratch, &job.directory, &group.bases).await;
                self.counts.borrow_mut().merged += u64::from(group.bases.len() > 1);
                replaced.map(|()| true).map_err(|source| CleanError::Disk { path: job.directory.clone(), source })
            });
            let cleaned = round.await.map_err(|error| format!("a round failed: {error}"))?.ok_or("a group was refused")?;
            discard(disk, &job.scratch).await.map_err(|error| error.to_string())?;
            check_round(disk, &job, &cleaned, &before, &self.written)?;
            self.first_dirty.set(cleaned.clean_to);
            self.is_in_round.set(false);
            self.counts.borrow_mut().round(job.first_dirty, &cleaned);
        }
        Ok(())
    }

    /// The next round; `None` if nothing is dirty that may be cleaned.
    fn job(&self, disk: &SimDisk) -> Option<Job> {
        let size = |base: i64, kind: FileKind| segment_file(disk, base, kind).map_or(0, |bytes| bytes.len() as u64);
        let sealed = segment_bases(disk).into_iter().filter(|base| *base < self.active_base).map(|base_offset| SealedSegment {
            base_offset,
            bytes: size(base_offset, FileKind::Log),
            has_transactions: size(base_offset, FileKind::TxnIndex) > 0,
            written_ms: None,
        });
        let sealed: Vec<SealedSegment> = sealed.collect();
        let first_base = sealed.first()?.base_offset;
        let first_dirty = plan::first_dirty(Some(self.first_dirty.get()), 0, first_base, self.active_base);
        let range = plan::range(&sealed, self.active_base, first_dirty, self.last_stable.min(self.active_base));
        self.counts.borrow_mut().held_by_open += u64::from(range.end < self.active_base);
        if range.dirty_bytes == 0 {
            return None;
        }
        let (segments, later) = sealed.split_at(range.segments);
        let active = segment_file(disk, self.active_base, FileKind::TxnIndex).unwrap_or_default();
        Some(Job {
            partition: ID,
            directory: PathBuf::from(DIRECTORY),
            scratch: PathBuf::from(SCRATCH),
            segments: segments.iter().map(Source::from).collect(),
            end: range.end,
            first_dirty,
            later: later.iter().filter(|segment| segment.has_transactions).map(|segment| segment.base_offset).collect(),
            aborted: TxnIndex::decode(&active).expect("a Kafka wrote it").entries().to_vec(),
            producers: self.producers.clone(),
            segment_bytes: self.segment_bytes,
            delete_retention_ms: self.delete_retention_ms,
            overdue_ms: None,
            now_ms: self.now_ms,
            keys_max: self.keys_max,
            kept_bytes_max: KEPT_BYTES_MAX,
            secret: self.secret,
            progress: Progress::default(),
        })
    }
}
