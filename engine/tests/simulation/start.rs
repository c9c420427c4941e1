//! The start of a life: as many attempts as it takes, interrupted and failing, and then everything that was recovered is
//! held against the model.

use crate::{
    catalog,
    counters::Hit,
    history::{DATA, History, Outcome, Running, STEPS_MAX},
    life::{Broker, spec},
    model::Existence,
};
use engine::{
    disk::sim::{Executor, Faults, Joined},
    log::{CoreStart, Log, LogError, ReadError, Start},
    partition::PartitionId,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
};

/// A start with so many attempts before it is no longer excused by a full disk.
const ATTEMPTS_MAX: u64 = 200;

impl History {
    /// Starts the broker, however many attempts it takes, and checks what it has recovered.
    pub fn start(&mut self) -> Outcome<(Executor, Broker, Running)> {
        // More cores need journals of their own, and so space. A start with fewer that was cut off may have removed some.
        let mut needs_space = false;
        for attempt in 0.. {
            let cores = if self.random.random_ratio(1, 4) { self.random.random_range(1..=3) } else { self.cores };
            let mut executor = Executor::new(&self.disk, self.random.random());
            needs_space |= cores != self.cores;
            let interrupted = attempt < 4 && self.random.random_ratio(1, 5);
            let most = [50, 400][self.random.random_range(0..2)];
            let limit = if interrupted { self.random.random_range(1..most) } else { STEPS_MAX };
            let faulty = attempt < 4 && self.random.random_ratio(1, 10);
            if faulty {
                self.disk.set_faults(Faults { write_failed: 0.02, write_short: 0.02, flush_failed: 0.03, only: None });
            }
            let before = self.images();
            let started = executor.spawn(self.recover(cores));
            let outcome = loop {
                if let Some(outcome) = started.take() {
                    break Some(outcome);
                }
                if executor.steps() >= limit {
                    break None;
                }
                if !executor.step() {
                    return Err("the start waits for itself".into());
                }
            };
            self.say(|| {
                format!(
                    "== start of {cores} cores: {}",
                    match &outcome {
                        None => "interrupted".into(),
                        Some(Ok(_)) => "done".into(),
                        Some(Err(error)) => error.clone(),
                    }
                )
            });
            match outcome {
                Some(Ok(starts)) => {
                    self.disk.set_faults(Faults::default());
                    self.note(&before, &starts);
                    let cores_before = std::mem::replace(&mut self.cores, cores);
                    if cores_before != cores {
                        self.hit(Hit::CoresChanged);
                    }
                    let opened = self.open(executor, starts)?;
                    self.config.accept_loss = false;
                    return Ok(opened);
                }
                None if limit == STEPS_MAX => return Err("a start without an end".into()),
                Some(Err(error)) if attempt == ATTEMPTS_MAX => {
                    return Err(format!("the start of {cores} cores fails again and again: {error}"));
                }
                // So does what is carried on of a damaged partition.
                Some(Err(error)) if !(faulty || self.full && (needs_space || self.is_damaged())) => {
                    return Err(format!("the start of {cores} cores failed: {error}"));
                }
                _ => {
                    let crashed = outcome.is_none();
                    if !crashed && self.full && self.is_damaged() {
                        self.help_to_start();
                    }
                    drop(started);
                    drop(executor);
                    self.hit(if crashed { Hit::CrashInRecovery } else { Hit::StartRepeated });
                    let power = self.random.random();
                    let clean = self.clean;
                    self.fall(power);
                    // A start that was not finished takes nothing away from a clean stop.
                    self.clean = clean;
                }
            }
        }
        unreachable!("attempts end")
    }

    /// The program of a start, as the broker runs it.
    fn recover(&mut self, cores: usize) -> impl Future<Output = Result<Vec<CoreStart>, String>> + 'static {
        let (disk, config, salt) = (self.disk.clone(), self.config.clone(), self.random.random());
        let move_some = self.random.random_ratio(1, 4);
        let (mut owners, partition) = (self.owners.clone(), self.sizes.partition.clone());
        let shift: usize = self.random.random_range(0..3);
        async move {
            let start = Start::read(&disk, &config, salt).await.map_err(|error| error.to_string())?;
            let catalog = catalog::replay(start.catalog())?;
            let specs = catalog.exist.iter().map(|(id, topic)| {
                let owner = owners.entry(*id).or_insert(id.0 as usize % cores);
                if *owner >= cores || move_some {
                    *owner = (id.0 as usize + shift) % cores;
                }
                spec(*id, *topic, *owner, catalog.epoch, &partition)
            });
            let specs = specs.collect();
            start.finish(cores, specs, catalog.epoch).await.map_err(|error| error.to_string())
        }
    }

    /// Opens the logs of all cores, and holds what they recovered against the model.
    fn open(&mut self, mut executor: Executor, starts: Vec<CoreStart>) -> Outcome<(Executor, Broker, Running)> {
        let mut owners = BTreeMap::new();
        let mut exist = BTreeMap::new();
        for start in &starts {
            for recovered in &start.partitions {
                let spec = &recovered.spec;
                let is_sick = self.outside.model.borrow().sick.contains(&spec.id);
                if let Some(damage) = recovered.damage.as_ref().filter(|_| !is_sick) {
                    return Err(format!("{} is refused, although nothing was damaged: {}", spec.directory.display(), damage.what));
                }
                exist.insert(spec.id, spec.directory.clone());
                if spec.id != PartitionId::CATALOG {
                    owners.insert(spec.id, spec.core);
                }
            }
        }
        self.owners = owners.clone();
        let epoch = starts.first().ok_or("a start of no core")?.leader_epoch;
        let given = self.outside.epoch.replace(epoch);
        if epoch <= given {
            return Err(format!("the start gives leader epoch {epoch}, but {given} was given before"));
        }
        let disk = self.disk.clone();
        let logs = executor.spawn(async move {
            let mut logs = Vec::new();
            for start in starts {
                logs.push(Log::open(disk.clone(), start).await?);
            }
            Ok::<_, LogError>(logs)
        });
        let logs = drive(&mut executor, &logs)?.map_err(|error| format!("a log can't be opened: {error}"))?;
        let running = logs.iter().map(|log| {
            let log = log.clone();
            executor.spawn(async move { log.run().await })
        });
        let running = running.collect();
        self.reconcile(&exist, epoch)?;
        let broker = Broker {
            disk: self.disk.clone(),
            logs: Rc::new(logs),
            owners: Rc::new(RefCell::new(owners)),
            outside: Rc::clone(&self.outside),
            random: Rc::new(RefCell::new(SmallRng::seed_from_u64(self.random.random()))),
            spawner: executor.spawner(),
            sizes: self.sizes.clone(),
            waiting: Rc::new(Cell::new(0)),
        };
        for id in exist.into_keys() {
            let is_sick = self.outside.model.borrow().sick.contains(&id);
            if !is_sick || self.examine(&mut executor, &broker, id)? {
                self.compare(&mut executor, &broker, id)?;
            }
        }
        self.rot.cured.clear();
        self.started_epoch = epoch;
        self.outside.model.borrow_mut().may_discard = self.full;
        self.outside.model.borrow_mut().stopping = false;
        let model = self.outside.model.borrow();
        for producer in self.outside.producers.borrow().iter() {
            producer.borrow_mut().restart(&model, &mut self.outside.counters.borrow_mut());
        }
        drop(model);
        self.clean = false;
        self.outside.running.set(true);
        Ok((executor, broker, running))
    }

    /// Which partitions must exist, and which must not. Those that do go on with the start's leader epoch.
    fn reconcile(&self, exist: &BTreeMap<PartitionId, PathBuf>, epoch: i32) -> Outcome {
        let mut model = self.outside.model.borrow_mut();
        for (id, partition) in &model.partitions {
            let there = exist.contains_key(id);
            match partition.existence {
                Existence::Alive if !there => return Err(format!("partition {} was created, and is not there", id.0)),
                Existence::Gone if there => return Err(format!("partition {} was deleted, and is there", id.0)),
                _ => {}
            }
        }
        if let Some(id) = exist.keys().find(|id| !model.partitions.contains_key(id)) {
            return Err(format!("partition {} exists, and nobody created it", id.0));
        }
        model.partitions.retain(|id, _| exist.contains_key(id));
        for partition in model.partitions.values_mut() {
            partition.existence = Existence::Alive;
            partition.open = true;
            partition.epoch = epoch;
        }
        Ok(())
    }

    /// Reads a recovered partition, whole.
    fn compare(&self, executor: &mut Executor, broker: &Broker, id: PartitionId) -> Outcome {
        let log = broker.log(id).ok_or_else(|| format!("partition {} has no core", id.0))?;
        let (disk, full) = (self.disk.clone(), self.full);
        let content = executor.spawn(async move {
            match log.ready(&[id]).await {
                // Not even its directory was created yet: there was no space, and there is none.
                Err(ReadError::Storage { source, .. }) if full && engine::disk::is_full(&source) => return Ok(None),
                ready => ready.map_err(|error| error.to_string())?,
            }
            let offsets = log.offsets(id).ok_or("its core does not know it")?;
            if offsets.offline || offsets.high_watermark != offsets.log_end {
                return Err(format!("after a start: {offsets:?}"));
            }
            let (mut bytes, mut offset) = (Vec::new(), offsets.log_start);
            while offset < offsets.high_watermark {
                let plan = log.read(id, offset, 100_000, true, false).await.map_err(|error| error.to_string())?;
                let part = plan.collect(&disk).await.map_err(|error| error.to_string())?;
                let last = crate::model::split(&part)?.last().map(|(header, _)| header.next_offset());
                offset = last.filter(|next| *next > offset).ok_or_else(|| format!("nothing at {offset} of {offsets:?}"))?;
                bytes.extend_from_slice(&part);
            }
            Ok(Some((offsets, bytes)))
        });
        let context = |error: String| format!("partition {} after a start: {error}", id.0);
        let content = drive(executor, &content)?.map_err(context)?;
        let mut model = self.outside.model.borrow_mut();
        let partition = model.partitions.get_mut(&id).expect("reconciled");
        let Some((offsets, bytes)) = content else {
            partition.open = false;
            return if partition.end() == 0 { Ok(()) } else { Err(context("it held batches, and can't be opened".into())) };
        };
        if self.clean && offsets.log_end != partition.end() && !self.rot.cured.contains(&id) {
            return Err(context(format!("it ends at {}, and at {} before a clean stop", offsets.log_end, partition.end())));
        }
        self.outside.say(|| {
            format!(
                "  partition {} is {}..{}, the model {}..{} of which {} may not be lost",
                id.0,
                offsets.log_start,
                offsets.log_end,
                partition.start_acked,
                partition.end(),
                partition.floor()
            )
        });
        partition.recovered(offsets.log_start, offsets.log_end, &bytes).map_err(context)?;
        if partition.log.iter().any(|entry| entry.epoch.is_some_and(|epoch| epoch > self.started_epoch)) {
            self.hit(Hit::BehindDeletion);
        }
        partition.told(&offsets).map_err(context)
    }

    /// The newest segment of each directory, before a start.
    fn images(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        if self.lives == 0 || !self.lives.is_multiple_of(2) {
            return BTreeMap::new();
        }
        let logs = self.disk.names(Path::new(DATA)).into_iter().filter_map(|name| {
            let directory = Path::new(DATA).join(name);
            let log = self.disk.names(&directory).into_iter().rfind(|name| name.ends_with(".log"))?;
            let path = directory.join(log);
            Some((path.clone(), self.disk.peek(&path)?))
        });
        logs.collect()
    }

    /// Counts what a start has met.
    fn note(&self, before: &BTreeMap<PathBuf, Vec<u8>>, starts: &[CoreStart]) {
        for recovered in starts.iter().flat_map(|start| &start.partitions) {
            let line = recovered.line;
            if line.segment_base > 0 {
                self.hit(Hit::Roll);
            }
            let Some(scanned) = &recovered.scanned else {
                if line.flushed % 4096 != 0 {
                    self.hit(Hit::Parked);
                }
                continue;
            };
            if line.batch_start < line.flushed && line.flushed < scanned.end_position {
                self.hit(Hit::Straddling);
            }
            let path = Path::new(DATA).join(&recovered.spec.directory).join(format!("{:020}.log", line.segment_base));
            if let Some(image) = before.get(&path)
                && has_batch(image, scanned.end_position as usize)
            {
                self.hit(Hit::StaleBeyondCut);
            }
        }
    }
}

/// Steps until a task has ended.
pub fn drive<T>(executor: &mut Executor, task: &Joined<T>) -> Outcome<T> {
    let limit = executor.steps() + STEPS_MAX;
    loop {
        if let Some(value) = task.take() {
            return Ok(value);
        }
        if executor.steps() > limit {
            return Err("a task without an end".into());
        }
        if !executor.step() {
            return Err("every task waits for another".into());
        }
    }
}

/// A whole valid batch begins at or behind `from`.
fn has_batch(image: &[u8], from: usize) -> bool {
    use engine::batch::{CRC_FROM, HEADER_BYTES, Header, crc};
    let mut at = from;
    while at + HEADER_BYTES < image.len() {
        // The magic byte is rare in what these clients send.
        let Some(found) = image[at + 16..].iter().position(|byte| *byte == 2) else { return false };
        at += found;
        if at + HEADER_BYTES < image.len()
            && let Some(header) = Header::read(&image[at..])
            && header.length() >= 49
            && header.size() <= image.len() - at
            && header.size() > CRC_FROM
            && header.crc() == crc(&image[at..at + header.size()])
        {
            return true;
        }
        at += 1;
    }
    false
}
