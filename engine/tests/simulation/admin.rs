//! What admins do: topics come and go, records are deleted, retention takes its share.

use crate::{
    catalog::{self, Change},
    counters::Hit,
    life::{Broker, spec},
    model::{Batch, Existence, Partition},
};
use engine::partition::PartitionId;
use std::rc::Rc;

impl Broker {
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

    /// The catalog has it, with the leader epoch that the counter stands at.
    async fn catalog_created(&self, id: PartitionId, topic: u32) -> bool {
        if !self.room(&self.logs[0].clone(), PartitionId::CATALOG, 200).await || !self.change(Change::Created { id, topic }).await {
            return false;
        }
        if let Some(partition) = self.outside.model.borrow_mut().partitions.get_mut(&id) {
            partition.existence = Existence::Alive;
            partition.epoch = self.outside.epoch.get();
        }
        true
    }

    async fn create_files(self, id: PartitionId, topic: u32, core: usize) {
        let Some(epoch) = self.outside.model.borrow().partitions.get(&id).map(|partition| partition.epoch) else { return };
        let result = self.logs[core].create(spec(id, topic, core, epoch, &self.sizes.partition)).await;
        self.outside.say(|| format!("  create {} as topic {topic} on core {core} with leader epoch {epoch}: {result:?}", id.0));
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

    /// The catalog has it no more. What is created from now on has a higher leader epoch.
    async fn catalog_deleted(&self, id: PartitionId) -> bool {
        if !self.room(&self.logs[0].clone(), PartitionId::CATALOG, 200).await {
            return false;
        }
        if !self.change(Change::Deleted { id }).await {
            return false;
        }
        self.outside.epoch.set(self.outside.epoch.get() + 1);
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
