//! One life of the broker: what its cores and clients share while it runs, and what each client does.

use crate::{
    catalog::{self, Change},
    counters::{Counters, Hit},
    model::{Batch, Existence, Model, Partition},
};
use engine::{
    batch::BatchBuilder,
    disk::{
        BLOCK, Chunk,
        sim::{SimDisk, Spawner},
    },
    log::{AppendError, Appended, Log, Offsets, ReadError},
    partition::{PartitionConfig, PartitionId, PartitionSpec},
};
use rand::{Rng, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    rc::Rc,
};

/// Batches that an idempotent producer has in flight at most, as Kafka's clients.
pub const IN_FLIGHT_MAX: usize = 5;

/// An idempotent producer of one partition. It lives on over crashes, as clients do.
pub struct Producer {
    id: i64,
    partition: PartitionId,
    next_sequence: i32,
    /// Batches without an ack, oldest first, each with its sequence: sent again, byte for byte, until they have one.
    unacked: VecDeque<(i32, Rc<Batch>)>,
    /// How many of them were sent since the last error.
    sent: usize,
    /// Counts the errors.
    round: u64,
    busy: bool,
}

/// What outlives the broker: its clients, and what they know.
#[derive(Default)]
pub struct Outside {
    pub model: RefCell<Model>,
    pub counters: RefCell<Counters>,
    pub producers: RefCell<Vec<Rc<RefCell<Producer>>>>,
    pub now_ms: Cell<i64>,
    pub label: Cell<u64>,
    /// The highest partition id that was ever given.
    pub highest: Cell<u32>,
    /// The last partition of each topic's name.
    pub topics: RefCell<BTreeMap<u32, PartitionId>>,
    pub trace: bool,
    /// The start is over: what is written now, clients caused.
    pub running: Cell<bool>,
}

impl Outside {
    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{}", text());
        }
    }

    fn next_label(&self) -> u64 {
        self.label.set(self.label.get() + 1);
        self.label.get()
    }
}

/// A running broker, as its clients see it.
#[derive(Clone)]
pub struct Broker {
    pub disk: SimDisk,
    pub logs: Rc<Vec<Log<SimDisk>>>,
    /// Which core owns a partition in this life.
    pub owners: Rc<RefCell<BTreeMap<PartitionId, usize>>>,
    pub outside: Rc<Outside>,
    pub random: Rc<RefCell<SmallRng>>,
    pub spawner: Spawner,
    pub sizes: Sizes,
    /// Tasks that wait for an answer.
    pub waiting: Rc<Cell<usize>>,
}

/// How large things are in this history.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub small_max: usize,
    pub large_max: usize,
    /// One append in this many is large.
    pub large_every: u32,
    pub partition: PartitionConfig,
}

struct Waits(Rc<Cell<usize>>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A topic's directory and, unlike that, its partition's own id.
pub fn spec(id: PartitionId, topic: u32, core: usize, config: &PartitionConfig) -> PartitionSpec {
    PartitionSpec {
        id,
        topic_id: uuid::Uuid::from_u128(0x7ea1_0000_0000 + u128::from(id.0)),
        directory: PathBuf::from(format!("topic{topic}-0")),
        core,
        leader_epoch: 0,
        internal: false,
        config: config.clone(),
    }
}

impl Broker {
    pub fn log(&self, id: PartitionId) -> Option<Log<SimDisk>> {
        let owner = if id == PartitionId::CATALOG { 0 } else { *self.owners.borrow().get(&id)? };
        self.logs.get(owner).cloned()
    }

    fn chance(&self, one_in: u32) -> bool {
        self.random.borrow_mut().random_ratio(1, one_in)
    }

    fn up_to(&self, max: usize) -> usize {
        self.random.borrow_mut().random_range(0..=max)
    }

    /// Runs a client's request beside all else.
    pub fn spawn(&self, request: impl Future<Output = ()> + 'static) {
        self.waiting.set(self.waiting.get() + 1);
        let waits = Waits(Rc::clone(&self.waiting));
        self.spawner.spawn(async move {
            let _waits = waits;
            request.await;
        });
    }

    fn fail(&self, id: PartitionId, error: String) {
        self.outside.model.borrow_mut().failures.push(format!("partition {}: {error}", id.0));
    }

    fn batch(&self, producer: Option<(i64, i32)>) -> (Rc<Batch>, i32) {
        let label = self.outside.next_label();
        let records = 1 + self.up_to(3);
        let size = if self.chance(self.sizes.large_every) { self.up_to(self.sizes.large_max) } else { self.up_to(self.sizes.small_max) };
        let mut builder = BatchBuilder::new();
        if let Some((id, sequence)) = producer {
            builder = builder.producer(id, 0, sequence);
        }
        for record in 0..records {
            let mut value = vec![(label as u8).wrapping_mul(31) | 1; size / records];
            value.extend_from_slice(&label.to_be_bytes());
            builder.push(self.outside.now_ms.get(), Some(&[record as u8]), Some(&value), &[]);
        }
        (Rc::new(Batch { label, bytes: builder.build(), records: records as i64 }), records as i32)
    }

    /// Every other batch is received where its partition's tail can adopt it, as the broker does with large ones.
    fn take_in(&self, log: &Log<SimDisk>, id: PartitionId, batch: &Batch) -> Result<Appended, AppendError> {
        let now_ms = self.outside.now_ms.get();
        let phase = log.append_phase(id).filter(|_| batch.label.is_multiple_of(2));
        let Some(phase) = phase else { return log.append(id, &batch.bytes, now_ms) };
        let chunk = Chunk::for_receiving(batch.bytes.len(), phase);
        let start = chunk.filled();
        chunk.append(&batch.bytes);
        let received = chunk.slice(start, chunk.filled());
        drop(chunk);
        if phase + batch.bytes.len() as u64 > BLOCK {
            self.outside.counters.borrow_mut().hit(Hit::Adopted);
        }
        log.append_received(id, received, now_ms)
    }

    /// Appends, and notes what the answer means. The base offset, or the error.
    fn append(&self, log: &Log<SimDisk>, id: PartitionId, batch: &Rc<Batch>) -> Result<i64, AppendError> {
        let Some(offsets) = log.offsets(id) else { return Err(AppendError::UnknownPartition) };
        let mut model = self.outside.model.borrow_mut();
        if model.follow(id, &offsets) {
            self.outside.counters.borrow_mut().hit(Hit::Discarded);
        }
        let known = model.partitions.get(&id).is_some_and(|partition| partition.find(batch.label).is_some());
        let result = self.take_in(log, id, batch);
        self.outside.say(|| {
            let header = engine::batch::Header::read(&batch.bytes).expect("whole");
            let sequences = (header.producer_id(), header.base_sequence(), header.last_sequence());
            format!("  append {} to {} ({} bytes, {sequences:?}): {result:?}", batch.label, id.0, batch.bytes.len())
        });
        let appended = result?;
        let Some(partition) = model.partitions.get_mut(&id) else {
            model.failures.push(format!("partition {} took an append, but it does not exist", id.0));
            return Err(AppendError::UnknownPartition);
        };
        let duplicate = partition.appended(batch, appended.base_offset, appended.last_offset);
        model.claim(|| format!("partition {}, append", id.0), duplicate);
        if known {
            self.outside.counters.borrow_mut().hit(Hit::Duplicate);
        }
        Ok(appended.base_offset)
    }

    /// Waits for the ack of a batch that was appended at `base`. True if it came.
    /// What durability means for a batch that was just appended is asked at once, before anything else runs.
    fn durability(
        log: &Log<SimDisk>,
        id: PartitionId,
        batch: &Batch,
        base: i64,
    ) -> impl Future<Output = Result<(), AppendError>> + 'static {
        log.durable(id, base + batch.records - 1)
    }

    /// The count of offline partitions, which the broker's health rests on, is that of the partitions themselves.
    fn offline_is_counted(&self, log: &Log<SimDisk>) {
        let mut model = self.outside.model.borrow_mut();
        let offline = model.partitions.keys().filter(|id| log.offsets(**id).is_some_and(|offsets| offsets.offline)).count() as u64;
        if offline != log.offline() {
            model.failures.push(format!("{offline} partitions are offline, {} are counted", log.offline()));
        }
    }

    async fn ack(
        &self,
        log: &Log<SimDisk>,
        durable: impl Future<Output = Result<(), AppendError>>,
        id: PartitionId,
        batch: &Batch,
        base: i64,
    ) -> bool {
        let last = base + batch.records - 1;
        let result = durable.await;
        self.outside.say(|| format!("  durable {} of {}: {result:?}", batch.label, id.0));
        self.offline_is_counted(log);
        match result {
            Ok(()) => {
                let offsets = log.offsets(id);
                let mut model = self.outside.model.borrow_mut();
                let Some(partition) = model.partitions.get_mut(&id) else { return true };
                let acked = partition.acked(batch.label, base);
                model.claim(|| format!("partition {}, ack", id.0), acked);
                if offsets.is_some_and(|offsets| offsets.high_watermark <= last) {
                    model.failures.push(format!("partition {}: {last} was acked, the high watermark is {offsets:?}", id.0));
                }
                self.outside.counters.borrow_mut().acked += 1;
                true
            }
            Err(AppendError::Storage(_) | AppendError::UnknownPartition) => {
                let mut model = self.outside.model.borrow_mut();
                let excused =
                    model.may_discard || model.partitions.get(&id).is_none_or(|partition| partition.existence != Existence::Alive);
                if !excused {
                    model.failures.push(format!("partition {}: {result:?} without a cause", id.0));
                }
                false
            }
            Err(error) => {
                self.fail(id, format!("waiting for durability: {error}"));
                false
            }
        }
    }

    /// What an append may answer where no claim is hurt.
    fn excuse(&self, id: PartitionId, error: &AppendError) {
        let mut model = self.outside.model.borrow_mut();
        let partition = model.partitions.get(&id);
        let excused = match error {
            AppendError::UnknownPartition => partition.is_none_or(|partition| !partition.open || partition.existence != Existence::Alive),
            AppendError::Storage(_) => model.may_refuse(),
            _ => false,
        };
        if !excused {
            model.failures.push(format!("partition {}: an append was refused: {error}", id.0));
        }
    }

    async fn room(&self, log: &Log<SimDisk>, id: PartitionId, bytes: usize) -> bool {
        if let Err(error) = log.ready(&[id]).await {
            let excused = self.outside.model.borrow().partitions.get(&id).is_none_or(|partition| partition.existence != Existence::Alive);
            if !excused && !self.outside.model.borrow().may_refuse() {
                self.fail(id, format!("it can't be opened: {error}"));
            }
            return false;
        }
        log.admit(bytes).await;
        true
    }

    /// A producer without idempotence sends a batch once.
    pub async fn produce_plain(self, id: PartitionId) {
        let Some(log) = self.log(id) else { return };
        let (batch, _) = self.batch(None);
        if !self.room(&log, id, batch.bytes.len()).await {
            return;
        }
        match self.append(&log, id, &batch) {
            Ok(base) => {
                let durable = Self::durability(&log, id, &batch, base);
                self.ack(&log, durable, id, &batch, base).await;
            }
            Err(error) => self.excuse(id, &error),
        }
    }

    /// A producer sends what has no ack yet, and up to `new` more batches behind it.
    pub async fn produce(self, producer: Rc<RefCell<Producer>>, new: usize) {
        if producer.borrow().busy {
            return;
        }
        let id = producer.borrow().partition;
        for _ in 0..new {
            let mut producer = producer.borrow_mut();
            if producer.unacked.len() < IN_FLIGHT_MAX {
                let sequence = producer.next_sequence;
                let (batch, records) = self.batch(Some((producer.id, sequence)));
                producer.unacked.push_back((sequence, batch));
                producer.next_sequence += records;
            }
        }
        // Now and then a client's timer runs out, and it sends again what is still on its way.
        if self.chance(8) {
            producer.borrow_mut().sent = 0;
        }
        producer.borrow_mut().busy = true;
        self.send(&producer, id).await;
        producer.borrow_mut().busy = false;
    }

    async fn send(&self, producer: &Rc<RefCell<Producer>>, id: PartitionId) {
        let Some(log) = self.log(id) else { return };
        loop {
            let next = producer.borrow().unacked.get(producer.borrow().sent).cloned();
            let Some((_, batch)) = next else { return };
            let round = producer.borrow().round;
            if !self.room(&log, id, batch.bytes.len()).await {
                return;
            }
            let place = producer.borrow().unacked.iter().position(|(_, other)| other.label == batch.label);
            // Acks and errors that came meanwhile decide anew what is next.
            let Some(place) = place.filter(|place| *place == producer.borrow().sent && round == producer.borrow().round) else { continue };
            match self.append(&log, id, &batch) {
                Ok(base) => {
                    producer.borrow_mut().sent = place + 1;
                    let durable = Self::durability(&log, id, &batch, base);
                    let (broker, log, producer) = (self.clone(), log.clone(), Rc::clone(producer));
                    self.spawn(async move {
                        let acked = broker.ack(&log, durable, id, &batch, base).await;
                        let mut producer = producer.borrow_mut();
                        if acked {
                            if let Some(place) = producer.unacked.iter().position(|(_, other)| other.label == batch.label) {
                                // Answers come in the order of the requests: those before it were acked as well.
                                producer.unacked.drain(..=place);
                                producer.sent = producer.sent.saturating_sub(place + 1);
                            }
                        } else {
                            producer.sent = 0;
                            producer.round += 1;
                        }
                    });
                }
                Err(AppendError::OutOfOrderSequence { .. })
                    if place > 0 && self.is_missing(id, &producer.borrow().unacked[place - 1].1) =>
                {
                    // The batch before it was discarded, and its error is still on the way.
                    producer.borrow_mut().sent = 0;
                    return;
                }
                Err(error) => {
                    self.excuse(id, &error);
                    producer.borrow_mut().sent = 0;
                    return;
                }
            }
        }
    }

    fn is_missing(&self, id: PartitionId, batch: &Batch) -> bool {
        self.outside.model.borrow().partitions.get(&id).is_none_or(|partition| partition.find(batch.label).is_none())
    }

    /// Another idempotent producer for a partition.
    pub fn new_producer(&self, partition: PartitionId) -> Rc<RefCell<Producer>> {
        let mut producers = self.outside.producers.borrow_mut();
        let id = 1000 + producers.len() as i64;
        let producer = Producer { id, partition, next_sequence: 0, unacked: VecDeque::new(), sent: 0, round: 0, busy: false };
        producers.push(Rc::new(RefCell::new(producer)));
        Rc::clone(producers.last().expect("just pushed"))
    }

    /// A consumer is told the offsets and reads somewhere between them.
    pub async fn consume(self, id: PartitionId) {
        let Some(log) = self.log(id) else { return };
        if log.ready(&[id]).await.is_err() {
            return;
        }
        let Some(offsets) = self.told(&log, id) else { return };
        let mut offset = offsets.log_start + self.up_to((offsets.high_watermark - offsets.log_start) as usize) as i64;
        for _ in 0..1 + self.up_to(3) {
            match self.read(&log, id, offset).await {
                Some(next) if next >= offset => offset = next,
                _ => return,
            }
        }
    }

    fn told(&self, log: &Log<SimDisk>, id: PartitionId) -> Option<Offsets> {
        let offsets = log.offsets(id)?;
        let mut model = self.outside.model.borrow_mut();
        let told = model.partitions.get_mut(&id)?.told(&offsets);
        model.claim(|| format!("partition {}, offsets", id.0), told);
        Some(offsets)
    }

    /// One read, checked. Where it ends.
    async fn read(&self, log: &Log<SimDisk>, id: PartitionId, offset: i64) -> Option<i64> {
        let bytes_max = [1, 3000, 40_000, 1 << 20][self.up_to(3)];
        let was_offline = log.offsets(id).is_some_and(|offsets| offsets.offline);
        let plan = match log.read(id, offset, bytes_max, true, self.chance(2)).await {
            Ok(plan) => plan,
            Err(error) => {
                self.unreadable(log, id, offset, &format!("{error:?}"), matches!(error, ReadError::OutOfRange));
                return None;
            }
        };
        let offsets = self.told(log, id)?;
        let bytes = match plan.collect(&self.disk).await {
            Ok(bytes) => bytes,
            // Its file was cut between the plan and the read, as it went offline: whoever asks again gets the rest from memory.
            Err(_) if !was_offline && log.offsets(id).is_some_and(|offsets| offsets.offline) => return Some(offset),
            Err(error) => {
                self.unreadable(log, id, offset, &error.to_string(), false);
                return None;
            }
        };
        let mut model = self.outside.model.borrow_mut();
        if plan.bytes != bytes.len() {
            model.failures.push(format!("partition {}: a plan of {} bytes gave {}", id.0, plan.bytes, bytes.len()));
        }
        let read = model.partitions.get(&id)?.check_read(offset, offsets.high_watermark, &bytes);
        let next = model.claim(|| format!("partition {}, read at {offset}", id.0), read)?;
        if next == offset && offset < offsets.high_watermark && offsets.log_start <= offset {
            model.failures.push(format!("partition {}: nothing at {offset} below the high watermark {}", id.0, offsets.high_watermark));
        }
        Some(next)
    }

    fn unreadable(&self, log: &Log<SimDisk>, id: PartitionId, offset: i64, error: &str, out_of_range: bool) {
        let start = log.offsets(id).map(|offsets| offsets.log_start);
        let gone = self.outside.model.borrow().partitions.get(&id).is_none_or(|partition| partition.existence != Existence::Alive);
        if !gone && start.is_none_or(|start| offset >= start) {
            self.fail(id, format!("a read at {offset} ({start:?} is the start, out of range: {out_of_range}): {error}"));
        }
    }

    /// DeleteRecords somewhere below the high watermark.
    pub async fn delete_records(self, id: PartitionId) {
        let Some(log) = self.log(id) else { return };
        if log.ready(&[id]).await.is_err() {
            return;
        }
        let Some(offsets) = self.told(&log, id) else { return };
        let before = offsets.log_start + self.up_to((offsets.high_watermark - offsets.log_start) as usize) as i64;
        let asked = |partition: &mut Partition| partition.start_asked = partition.start_asked.max(before);
        self.outside.model.borrow_mut().partitions.get_mut(&id).map(asked);
        let result = log.delete_records(id, before).await;
        self.outside.say(|| format!("  delete records of {} before {before}: {result:?}", id.0));
        let mut model = self.outside.model.borrow_mut();
        let may = model.may_refuse();
        let Some(partition) = model.partitions.get_mut(&id) else { return };
        match result {
            Ok(start) if start < before => {
                model.failures.push(format!("partition {}: records below {before} were deleted, it starts at {start}", id.0))
            }
            Ok(_) => {
                partition.start_acked = partition.start_acked.max(before);
                if before > 0 {
                    self.outside.counters.borrow_mut().hit(Hit::RecordsDeleted);
                }
            }
            Err(_) if may || partition.existence != Existence::Alive => {}
            Err(error) => model.failures.push(format!("partition {}: records below {before} can't be deleted: {error}", id.0)),
        }
    }

    /// Retention of one core: it may take anything that is durable.
    pub async fn keep(self, core: usize) {
        for partition in self.outside.model.borrow_mut().partitions.values_mut() {
            partition.start_asked = i64::MAX;
        }
        self.outside.say(|| format!("  retention of core {core}"));
        let next = self.logs[core].keep(self.outside.now_ms.get()).await;
        self.outside.say(|| format!("  retention of core {core}: next at {next:?}"));
    }

    /// Writes a change into the catalog. True if it is durable.
    async fn change(&self, change: Change) -> bool {
        let log = self.logs[0].clone();
        let batch =
            Rc::new(Batch { label: self.outside.next_label(), bytes: catalog::encode(change, self.outside.now_ms.get()), records: 1 });
        match self.append(&log, PartitionId::CATALOG, &batch) {
            Ok(base) => {
                let durable = Self::durability(&log, PartitionId::CATALOG, &batch, base);
                self.ack(&log, durable, PartitionId::CATALOG, &batch, base).await
            }
            Err(error) => {
                self.excuse(PartitionId::CATALOG, &error);
                false
            }
        }
    }

    async fn catalog_created(&self, id: PartitionId, topic: u32) -> bool {
        if !self.room(&self.logs[0].clone(), PartitionId::CATALOG, 200).await || !self.change(Change::Created { id, topic }).await {
            return false;
        }
        if let Some(partition) = self.outside.model.borrow_mut().partitions.get_mut(&id) {
            partition.existence = Existence::Alive;
        }
        true
    }

    async fn create_files(self, id: PartitionId, topic: u32, core: usize) {
        let result = self.logs[core].create(spec(id, topic, core, &self.sizes.partition)).await;
        self.outside.say(|| format!("  create {} as topic {topic} on core {core}: {result:?}", id.0));
        let mut model = self.outside.model.borrow_mut();
        match result {
            Ok(()) => {
                let Some(partition) = model.partitions.get_mut(&id) else { return };
                partition.open = true;
                self.owners.borrow_mut().insert(id, core);
            }
            Err(error) if !model.may_refuse() => model.failures.push(format!("partition {} can't be created: {error}", id.0)),
            Err(_) => {}
        }
    }

    /// Creates a partition under the name of one that is deleted with it: the catalog has both changes before the first
    /// file of the old one goes.
    pub async fn recreate(self, old: PartitionId, id: PartitionId, topic: u32, core: usize) {
        if !self.catalog_deleted(old).await || !self.catalog_created(id, topic).await {
            return;
        }
        self.clone().delete_files(old).await;
        if !self.outside.model.borrow().partitions.contains_key(&old) {
            self.create_files(id, topic, core).await;
        }
    }

    /// Creates a partition for a topic that has none.
    pub async fn create(self, id: PartitionId, topic: u32, core: usize) {
        if self.catalog_created(id, topic).await {
            self.create_files(id, topic, core).await;
        }
    }

    /// Deletes a partition.
    pub async fn delete(self, id: PartitionId) {
        if self.catalog_deleted(id).await {
            self.delete_files(id).await;
        }
    }

    async fn catalog_deleted(&self, id: PartitionId) -> bool {
        if !self.room(&self.logs[0].clone(), PartitionId::CATALOG, 200).await || !self.change(Change::Deleted { id }).await {
            return false;
        }
        if let Some(partition) = self.outside.model.borrow_mut().partitions.get_mut(&id) {
            partition.existence = Existence::Gone;
        }
        true
    }

    async fn delete_files(self, id: PartitionId) {
        let Some(log) = self.log(id) else { return };
        let result = log.delete(id).await;
        self.outside.say(|| format!("  delete {}: {result:?}", id.0));
        self.owners.borrow_mut().remove(&id);
        let mut model = self.outside.model.borrow_mut();
        match result {
            Ok(()) => drop(model.partitions.remove(&id)),
            Err(error) if !model.may_refuse() => model.failures.push(format!("partition {} can't be deleted: {error}", id.0)),
            Err(_) => {}
        }
    }
}

impl Producer {
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The broker went away: everything without an ack is sent again.
    pub fn restart(&mut self, model: &Model, counters: &mut Counters) {
        self.busy = false;
        self.sent = 0;
        self.round += 1;
        if let Some(partition) = model.partitions.get(&self.partition)
            && self.unacked.iter().any(|(_, batch)| partition.find(batch.label).is_none())
        {
            counters.hit(Hit::Resent);
        }
    }
}
