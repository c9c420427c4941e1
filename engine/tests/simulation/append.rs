//! One append: how a batch comes to the broker, and what each answer to it means.

use crate::{
    counters::Hit,
    life::Broker,
    model::{Batch, Existence},
};
use engine::{
    batch::BatchBuilder,
    disk::{BLOCK, Chunk, sim::SimDisk},
    log::{AppendError, Appended, Log},
    partition::PartitionId,
};
use std::rc::Rc;

impl Broker {
    /// A batch unlike any other, with what an idempotent producer says of it.
    pub fn batch(&self, producer: Option<(i64, i32)>) -> (Rc<Batch>, i32) {
        let label = self.outside.next_label();
        let records = if self.sizes.are_alike { 1 } else { 1 + self.up_to(3) };
        let size = if self.sizes.are_alike {
            self.sizes.small_max
        } else if self.chance(self.sizes.large_every) {
            self.up_to(self.sizes.large_max)
        } else {
            self.up_to(self.sizes.small_max)
        };
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
        log.append(id, received, now_ms)
    }

    /// Appends, and notes what the answer means. The base offset, or the error.
    pub fn append(&self, log: &Log<SimDisk>, id: PartitionId, batch: &Rc<Batch>) -> Result<i64, AppendError> {
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

    /// What durability means for a batch that was just appended is asked at once, before anything else runs.
    pub fn durability(
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

    /// Waits for the ack of a batch that was appended at `base`. True if it came.
    pub async fn ack(
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
    pub fn excuse(&self, id: PartitionId, error: &AppendError) {
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

    /// Waits until the partition can take `bytes` more. False if it can't.
    pub async fn room(&self, log: &Log<SimDisk>, id: PartitionId, bytes: usize) -> bool {
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
}
