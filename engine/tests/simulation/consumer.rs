//! What a consumer does, and that it is told and given nothing but what is true.

use crate::{life::Broker, model::Existence};
use engine::{
    disk::sim::SimDisk,
    log::{Log, Offsets, ReadError},
    partition::PartitionId,
};

impl Broker {
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

    /// A client asks for the offsets.
    pub fn told(&self, log: &Log<SimDisk>, id: PartitionId) -> Option<Offsets> {
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
}
