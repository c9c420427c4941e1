//! One history: lives of the broker one after another on one disk, with everything between them that a seed can think of.

use crate::{
    counters::{Counters, Hit},
    kinds::Kind,
    life::{Broker, Outside, Sizes},
    model::{Existence, Partition},
    rot::Rot,
    start::drive,
};
use engine::{
    disk::sim::{Executor, Faults, Joined, SimDisk},
    log::{LogConfig, LogError, mark_clean},
    partition::{PartitionConfig, PartitionId},
    retention::Retention,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Operations of each history.
pub const OPERATIONS: u64 = 220;
/// Topics, each of one partition.
const TOPICS: u32 = 9;
/// Where retention is at work, clients are idle before every so many-th operation.
const IDLE_EVERY: u64 = 70;
/// For so long, in ms: enough for a core to come to rest.
const IDLE_MS: i64 = 10_500;
/// More steps than this without an end are a loop.
pub const STEPS_MAX: u64 = 2_000_000;

/// Steps that clients have at most to send again what has no ack, before anything else.
const SENDING_AGAIN_STEPS_MAX: u64 = 40;

pub const DATA: &str = "/data";
const JOURNAL: &str = "/journal";

/// A claim that did not hold, or the value.
pub type Outcome<T = ()> = Result<T, String>;
/// What [`engine::log::Log::run`] of each core returned, if it did.
pub type Running = Vec<Joined<Result<(), LogError>>>;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Power is lost.
    Crash,
    /// The process dies, the machine goes on.
    Kill,
    /// A clean stop; the power may be lost afterwards.
    Stop,
}

/// The disk, who uses it, and what is decided by the seed.
pub struct History {
    pub random: SmallRng,
    pub disk: SimDisk,
    pub outside: Rc<Outside>,
    pub config: LogConfig,
    pub sizes: Sizes,
    pub cores: usize,
    pub owners: BTreeMap<PartitionId, usize>,
    pub lives: u64,
    /// The leader epoch of the last start: what was created behind a deletion since then has one above.
    pub started_epoch: i32,
    /// A clean stop came last: nothing at all may be missing.
    pub clean: bool,
    pub full: bool,
    /// Retention is at work.
    pub keeping: bool,
    pub kind: Kind,
    pub rot: Rot,
}

fn is_journal(path: &Path) -> bool {
    path.starts_with(JOURNAL)
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

fn is_core_file(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("core-"))
}

/// Runs the history of a seed.
pub fn run(seed: u64, trace: bool, keeping: bool) -> Result<Counters, String> {
    let mut history = History::new(seed, trace);
    if keeping {
        history.keep();
    }
    let result = history.run();
    let counters = history.outside.counters.borrow().clone();
    result.map(|()| counters).map_err(|error| format!("seed {seed}, life {}: {error}", history.lives))
}

impl History {
    fn new(seed: u64, trace: bool) -> History {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut pick = |choices: &[u64]| choices[random.random_range(0..choices.len())];
        let mut config = LogConfig {
            data_dir: PathBuf::from(DATA),
            journal_dir: PathBuf::from(JOURNAL),
            journal_bytes: pick(&[768, 1024]) << 10,
            bulk_bytes_min: pick(&[8, 16, 32]) << 10,
            bulk_bytes_in_flight_max: pick(&[64, 256]) << 10,
            bulk_bytes_in_flight_busy_max: pick(&[32, 128]) << 10,
            bulk_flushes_max: pick(&[1, 4]) as usize,
            tail_bytes_max: pick(&[256, 4096]) << 10,
            producers_max: 1_000,
            producer_expiration_ms: 24 * 3_600_000,
            open_segments_max: pick(&[2, 16]) as usize,
            accept_loss: false,
            ..LogConfig::default()
        };
        let mut sizes = Sizes {
            small_max: pick(&[200, 2_000, 6_000, 12_000]) as usize,
            large_max: pick(&[20_000, 60_000]) as usize,
            large_every: pick(&[3, 6, 20]) as u32,
            are_alike: false,
            partition: PartitionConfig { segment_bytes: pick(&[64, 128, 256]) << 10, ..PartitionConfig::default() },
        };
        let kind = Kind::of(seed);
        kind.shape(&mut config, &mut sizes);
        let disk = SimDisk::new(random.random(), &[Path::new(DATA), Path::new(JOURNAL)]);
        if let Some(times) = kind.segments_slower {
            disk.set_slow(is_segment, times);
        }
        let outside = Rc::new(Outside { trace, ..Outside::default() });
        let watcher = Rc::clone(&outside);
        disk.watch(move |path, position, _| {
            if watcher.running.get() && position == 0 && is_core_file(path) {
                watcher.counters.borrow_mut().hit(Hit::Switch);
            }
        });
        outside.model.borrow_mut().partitions.insert(PartitionId::CATALOG, Partition::new(u32::MAX, Existence::Alive));
        History {
            random,
            disk,
            outside,
            config,
            sizes,
            cores: kind.cores,
            owners: BTreeMap::new(),
            lives: 0,
            started_epoch: 0,
            clean: false,
            full: false,
            keeping: false,
            kind,
            rot: Rot::new(seed),
        }
    }

    /// Puts retention to work, with bounds that a history reaches.
    fn keep(&mut self) {
        let mut pick = |choices: &[i64]| choices[self.random.random_range(0..choices.len())];
        let ms = Some(pick(&[100, 400, 2_000])).filter(|_| pick(&[0, 1, 1]) > 0);
        let bytes = Some(pick(&[1, 100_000, 400_000]) as u64).filter(|_| pick(&[0, 1]) > 0);
        let segment_ms = pick(&[50, 500, 10_000]);
        let partition = self.sizes.partition.clone();
        self.sizes.partition = PartitionConfig { retention: Some(Retention { ms, bytes }), segment_ms, ..partition };
        self.keeping = true;
    }

    pub fn hit(&self, hit: Hit) {
        self.outside.counters.borrow_mut().hit(hit);
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        self.outside.say(text);
    }

    fn check(&self) -> Outcome {
        match self.outside.model.borrow().failures.first() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    fn run(&mut self) -> Outcome {
        let lives = self.random.random_range(self.kind.lives.clone());
        for life in 0..lives {
            self.lives = life;
            let (mut executor, broker, running) = self.start()?;
            let clean = self.live(&mut executor, &broker, &running, OPERATIONS.div_ceil(lives))?;
            self.end(executor, &broker, running, clean)?;
            self.decay();
        }
        self.lives = lives;
        self.disk.set_free_blocks(None);
        self.full = false;
        if self.is_damaged() {
            let (executor, broker, running) = self.start()?;
            drop((running, executor, broker));
            self.fall(true);
            self.put_all_back();
        }
        let (executor, _, _) = self.start()?;
        drop(executor);
        let refused = self.disk.refused();
        for (count, hit) in [(refused.writes, Hit::FailedWrite), (refused.flushes, Hit::FailedFlush), (refused.space, Hit::DiskFull)] {
            if count > 0 {
                self.hit(hit);
            }
        }
        Ok(())
    }

    /// Power is lost, or the process dies.
    pub fn fall(&mut self, power: bool) {
        self.outside.counters.borrow_mut().crashes += 1;
        self.clean = false;
        self.lose(power);
    }

    fn lose(&mut self, power: bool) {
        self.outside.running.set(false);
        self.say(|| format!("-- {}", if power { "crash" } else { "kill" }));
        if !power {
            self.disk.kill();
            self.hit(Hit::Killed);
        } else {
            let crash = self.disk.crash();
            if crash.torn.iter().any(|(path, _)| is_core_file(path)) {
                self.hit(Hit::TornFrame);
            }
            if crash.torn.iter().chain(&crash.in_flight).any(|(path, position)| is_core_file(path) && *position == 0) {
                self.hit(Hit::CrashInHead);
            }
        }
        // Whatever a crash gives back, a full disk stays full.
        self.disk.set_free_blocks(self.full.then_some(0));
    }

    /// Clients at work. False if the broker has died of it.
    fn live(&mut self, executor: &mut Executor, broker: &Broker, running: &Running, operations: u64) -> Outcome<bool> {
        let faults_at = self.random.random_ratio(1, 4).then(|| self.random.random_range(0..operations));
        let full_at = self.random.random_ratio(1, 4).then(|| self.random.random_range(0..operations));
        // Now and then all clients want the same partition, and the others are idle long enough to be parked.
        let focus = self.random.random_ratio(1, 3) || self.kind.falls_again;
        let steps_max = [3, 30, 200][self.random.random_range(0..3)];
        let steps_max = self.kind.steps_max.unwrap_or(steps_max);
        let operations = if self.kind.falls_again { self.send_again(executor, broker, operations)? } else { operations };
        for operation in 0..operations {
            self.outside.now_ms.set(self.outside.now_ms.get() + 10);
            if self.keeping && operation % IDLE_EVERY == IDLE_EVERY - 1 {
                // All clients were idle for so long that a core whose clock is looked at first comes to rest.
                self.outside.now_ms.set(self.outside.now_ms.get() + IDLE_MS);
                (0..self.cores).for_each(|core| broker.spawn(broker.clone().keep(core)));
            }
            if faults_at == Some(operation) {
                self.break_something();
            }
            if full_at == Some(operation) || (self.full && self.random.random_ratio(1, 30)) {
                self.fill(!self.full);
            }
            for _ in 0..self.kind.clients {
                self.outside.counters.borrow_mut().operations += 1;
                self.operate(broker, focus)?;
            }
            for _ in 0..self.random.random_range(0..=steps_max) {
                if !executor.step() {
                    break;
                }
            }
            self.check()?;
            for running in running {
                if let Some(result) = running.take() {
                    self.say(|| format!("-- the journal failed: {result:?}"));
                    if result.is_ok() || !self.outside.model.borrow().may_discard {
                        return Err(format!("a log ended by itself: {result:?}"));
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Clients come back and send again what has no ack. Every other time this life ends here: little has come over
    /// what the crash before had left behind. How many operations it has left.
    fn send_again(&mut self, executor: &mut Executor, broker: &Broker, operations: u64) -> Outcome<u64> {
        broker.send_again();
        for _ in 0..self.random.random_range(0..=SENDING_AGAIN_STEPS_MAX) {
            if !executor.step() {
                break;
            }
        }
        self.check()?;
        Ok(if self.random.random() { operations } else { 0 })
    }

    fn break_something(&mut self) {
        let only: Option<fn(&Path) -> bool> =
            [None, Some(is_journal as fn(&Path) -> bool), Some(is_segment), Some(is_segment)][self.random.random_range(0..4)];
        let chance = [0.02, 0.1, 0.5][self.random.random_range(0..3)];
        let mut faults = Faults { only, ..Faults::default() };
        match self.random.random_range(0..3) {
            0 => faults.write_failed = chance,
            1 => faults.write_short = chance,
            _ => faults.flush_failed = chance,
        }
        self.say(|| format!("-- faults: {faults:?}"));
        self.outside.model.borrow_mut().may_discard = true;
        self.disk.set_faults(faults);
    }

    fn fill(&mut self, full: bool) {
        self.say(|| format!("-- full: {full}"));
        self.full = full;
        let left = self.random.random_range(0..40);
        self.disk.set_free_blocks(full.then_some(left));
        if full {
            self.outside.model.borrow_mut().may_discard = true;
        }
    }

    /// One operation of some client.
    fn operate(&mut self, broker: &Broker, focus: bool) -> Outcome {
        let model = self.outside.model.borrow();
        let alive: Vec<_> = model
            .partitions
            .iter()
            .filter(|(id, partition)| **id != PartitionId::CATALOG && partition.open && partition.existence == Existence::Alive)
            .map(|(id, _)| *id)
            .collect();
        let taken: Vec<_> = model.partitions.values().map(|partition| partition.topic).collect();
        let sick: Vec<_> = alive.iter().copied().filter(|id| model.sick.contains(id)).collect();
        let shortened = model.shortened.clone();
        drop(model);
        let alive: Vec<_> = alive.into_iter().filter(|id| !sick.contains(id)).collect();
        if let Some(id) = self.rot.deletes(&sick) {
            self.delete(broker, id);
        }
        let free: Vec<_> = (0..TOPICS).filter(|topic| !taken.contains(topic)).collect();
        if alive.len() < TOPICS as usize - 1 && !free.is_empty() && self.random.random_ratio(1, 3) || alive.is_empty() {
            if !free.is_empty() {
                let topic = free[self.random.random_range(0..free.len())];
                self.create(broker, topic);
            }
            return Ok(());
        }
        let some = self.random.random_range(0..alive.len());
        let id = alive[if focus && self.random.random_ratio(5, 6) { alive.len() / 2 } else { some }];
        match self.random.random_range(0..100) {
            0..45 if !shortened.contains(&id) => {
                let producers: Vec<_> =
                    self.outside.producers.borrow().iter().filter(|producer| producer.borrow().partition() == id).cloned().collect();
                let producer =
                    if producers.len() < 2 { broker.new_producer(id) } else { Rc::clone(&producers[self.random.random_range(0..2)]) };
                broker.spawn(broker.clone().produce(producer, self.random.random_range(0..4)));
            }
            0..70 => broker.spawn(broker.clone().produce_plain(id)),
            70..90 => broker.spawn(broker.clone().consume(id)),
            90..95 => broker.spawn(broker.clone().delete_records(id)),
            95..98 => self.delete(broker, id),
            _ => {}
        }
        if self.keeping && self.random.random_ratio(1, 4) {
            broker.spawn(broker.clone().keep(self.random.random_range(0..self.cores)));
        }
        Ok(())
    }

    /// A topic goes, or makes room for another of its name.
    fn delete(&mut self, broker: &Broker, id: PartitionId) {
        let topic = {
            let mut model = self.outside.model.borrow_mut();
            let partition = model.partitions.get_mut(&id).expect("alive");
            partition.existence = Existence::Deleting;
            partition.topic
        };
        if self.random.random() {
            broker.spawn(broker.clone().delete(id));
        } else {
            let (new, core) = self.new_partition(topic);
            broker.spawn(broker.clone().recreate(id, new, topic, core));
        }
    }

    fn create(&mut self, broker: &Broker, topic: u32) {
        let (id, core) = self.new_partition(topic);
        broker.spawn(broker.clone().create(id, topic, core));
    }

    /// The number and core of another partition.
    fn new_partition(&mut self, topic: u32) -> (PartitionId, usize) {
        // As a catalog does: never a number that any record has named.
        let id = PartitionId(1 + self.outside.highest.get());
        self.outside.highest.set(id.0);
        if self.outside.topics.borrow_mut().insert(topic, id).is_some() {
            self.hit(Hit::Recreated);
        }
        self.outside.model.borrow_mut().partitions.insert(id, Partition::new(topic, Existence::Creating));
        (id, self.random.random_range(0..self.cores))
    }

    /// The end of a life.
    fn end(&mut self, mut executor: Executor, broker: &Broker, running: Running, alive: bool) -> Outcome {
        let end = match self.random.random_range(0..10) {
            _ if !alive => [End::Crash, End::Kill][self.random.random_range(0..2)],
            0..5 => End::Crash,
            5..7 => End::Kill,
            _ => End::Stop,
        };
        self.say(|| format!("== end: {end:?}"));
        if alive && end != End::Crash && self.random.random() {
            self.settle(&mut executor, broker, &running)?;
        }
        if end == End::Stop {
            self.stop(&mut executor, broker)?;
        }
        self.check()?;
        drop(running);
        drop(executor);
        let clean = self.clean;
        match end {
            End::Stop if clean && self.random.random() => {}
            End::Stop => {
                let power = self.random.random();
                self.lose(power);
            }
            _ => self.fall(end == End::Crash),
        }
        self.clean = clean && end == End::Stop;
        if self.full && self.random.random() {
            self.fill(false);
        }
        Ok(())
    }

    /// Without faults and with space, every client gets its answer.
    fn settle(&mut self, executor: &mut Executor, broker: &Broker, running: &Running) -> Outcome {
        if self.full {
            self.fill(false);
        }
        self.disk.set_faults(Faults::default());
        let limit = executor.steps() + STEPS_MAX;
        while executor.step() {
            self.check()?;
            if executor.steps() > limit {
                return Err("the broker does not come to rest".into());
            }
        }
        let died = running.iter().any(|running| running.take().is_some());
        if broker.waiting.get() > 0 && !died {
            let logs: Vec<_> =
                broker.logs.iter().map(engine::log::Log::stats).map(|stats| (stats.unmoved, stats.admissions_waiting)).collect();
            return Err(format!("{} clients never get an answer; unmoved bytes and waiting senders: {logs:?}", broker.waiting.get()));
        }
        Ok(())
    }

    fn stop(&mut self, executor: &mut Executor, broker: &Broker) -> Outcome {
        let (logs, disk, config) = (Rc::clone(&broker.logs), self.disk.clone(), self.config.clone());
        self.outside.model.borrow_mut().stopping = true;
        let stopped = executor.spawn(async move {
            let mut left = 0;
            for log in logs.iter() {
                left += log.close().await?;
            }
            if left == 0 {
                mark_clean(&disk, &config).await?;
            }
            Ok::<_, LogError>(left == 0)
        });
        let result = drive(executor, &stopped)?;
        self.say(|| format!("-- stopped: {result:?}"));
        // What is discarded by a stop that fails is told apart from what a clean one keeps.
        let mut model = self.outside.model.borrow_mut();
        match result {
            Ok(is_clean) => {
                if is_clean {
                    self.hit(Hit::CleanStop);
                }
                self.clean = is_clean && !model.may_discard;
                Ok(())
            }
            Err(_) if model.may_discard => Ok(()),
            Err(error) => {
                model.failures.clear();
                Err(format!("a clean stop failed: {error}"))
            }
        }
    }
}
