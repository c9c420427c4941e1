//! A start with a damaged partition: it is refused, or each of its acked records is there, or whoever reads it can tell. Never
//! does its log end sooner without a word.

use crate::{
    counters::Hit,
    damage::Damage,
    history::{History, Outcome},
    life::Broker,
    model::{Entry, Partition},
    start::drive,
};
use engine::{
    disk::sim::{Executor, SimDisk},
    log::{Log, Offsets, ReadError},
    partition::PartitionId,
};
use std::io;

/// What readers of an open partition got: its offsets, and what came at each base offset.
type Seen = (Offsets, Vec<(i64, Result<Vec<u8>, String>)>);

/// What the engine says of a leader epoch above all that were given.
const FAR_EPOCH: &str = "the highest that was given";

/// What has become of a damaged partition.
enum Verdict {
    /// With what the engine says of it.
    Refused(String),
    /// It is open; a reader can see the damage.
    Damaged,
    /// It is open, and nobody has seen anything of the damage.
    Served,
    /// It is open, and what can be said of it is over.
    Lost,
    /// The loss was accepted: it ends here now, before the damage.
    Shortened(i64),
}

impl History {
    /// Holds a damaged partition against the model after a start. True if it is well again: a loss was accepted.
    pub fn examine(&mut self, executor: &mut Executor, broker: &Broker, id: PartitionId) -> Outcome<bool> {
        let context = |error: String| format!("damaged partition {} after a start: {error}", id.0);
        let log = broker.log(id).ok_or_else(|| context("it has no core".into()))?;
        // Whatever else was appended may be gone.
        let entries: Vec<Entry> = {
            let model = self.outside.model.borrow();
            let partition = &model.partitions[&id];
            partition.log.iter().filter(|entry| entry.next() <= partition.floor()).cloned().collect()
        };
        let bases = entries.iter().map(|entry| entry.base).collect();
        let seen = executor.spawn(read_all(log, self.disk.clone(), id, bases));
        let seen = drive(executor, &seen)?.map_err(context)?;
        let verdict = {
            let model = self.outside.model.borrow();
            let damage = self.rot.damages.get_mut(&id).ok_or_else(|| context("nothing of it was damaged".into()))?;
            judge(damage, &model.partitions[&id], &entries, self.config.accept_loss, seen).map_err(context)?
        };
        match verdict {
            Verdict::Refused(why) => {
                self.hit(Hit::Refused);
                if why.contains(FAR_EPOCH) {
                    self.hit(Hit::EpochRefused);
                }
            }
            Verdict::Damaged => self.hit(Hit::DamageSeen),
            Verdict::Served | Verdict::Lost => {}
            Verdict::Shortened(end) => {
                self.say(|| format!("  partition {} goes on from {end}: the loss is accepted", id.0));
                self.hit(Hit::LossAccepted);
                self.cure(id);
                let mut model = self.outside.model.borrow_mut();
                model.partitions.get_mut(&id).expect("looked up").shorten(end);
                model.shortened.insert(id);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Asks for each base offset of an open partition; what the engine says if it is refused, as damaged.
async fn read_all(log: Log<SimDisk>, disk: SimDisk, id: PartitionId, bases: Vec<i64>) -> Result<Result<Seen, String>, String> {
    match log.ready(&[id]).await {
        Err(ReadError::Storage { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
            let is_told = log.offsets(id).is_some_and(|offsets| offsets.offline) && log.offline() > 0;
            return if is_told { Ok(Err(source.to_string())) } else { Err(format!("it is refused, and not offline: {source}")) };
        }
        ready => ready.map_err(|error| error.to_string())?,
    }
    let offsets = log.offsets(id).ok_or_else(|| "its core does not know it".to_owned())?;
    if offsets.offline {
        return Err(format!("it is open, and offline: {offsets:?}"));
    }
    let mut reads = Vec::new();
    for (number, base) in bases.into_iter().enumerate() {
        if base < offsets.log_start || base >= offsets.high_watermark {
            continue;
        }
        let bytes_max = if number.is_multiple_of(2) { 1 } else { 30_000 };
        let read = match log.read(id, base, bytes_max, true, false).await {
            Ok(plan) => plan.collect(&disk).await.map_err(|error| error.to_string()),
            Err(error @ (ReadError::Corrupt { .. } | ReadError::Storage { .. })) => Err(error.to_string()),
            Err(error) => return Err(format!("a read at {base} of {offsets:?}: {error}")),
        };
        reads.push((base, read));
    }
    Ok(Ok((offsets, reads)))
}

/// What may not be: an end below what was acked, and bytes that are wrong and look right. `entries` is what may not be lost.
fn judge(damage: &mut Damage, partition: &Partition, entries: &[Entry], accepts: bool, seen: Result<Seen, String>) -> Outcome<Verdict> {
    let (offsets, reads) = match seen {
        Ok(seen) => seen,
        Err(why) if accepts => return Err(format!("the loss is accepted, and it is refused: {why}")),
        Err(why) if !damage.may_refuse() => return Err(format!("it is refused, although it was put back: {why}")),
        Err(why) => return Ok(Verdict::Refused(why)),
    };
    damage.was_opened = true;
    let (end, floor) = (offsets.log_end, partition.floor());
    // No checksum of a segment covers an offset: the last one may be any that is higher.
    damage.is_lost |= damage.hides_end() || end < floor && damage.hides_rest(end);
    if damage.is_lost {
        return Ok(Verdict::Lost);
    }
    if end < floor && !accepts {
        return Err(format!("it ends at {end}, but {floor} was acked or seen, and nobody is told"));
    }
    let mut is_seen = false;
    for (base, read) in reads {
        let at = entries.partition_point(|entry| entry.base < base);
        // With a loss the log may end within what was the last batch: that one is damaged.
        if entries[at].next() <= end {
            is_seen |= damage.check(&entries[at..], &read)?;
        }
        if entries[at].next() == end {
            damage.check_last(base, &read, offsets.leader_epoch)?;
        }
    }
    if end >= floor {
        return Ok(if is_seen { Verdict::Damaged } else { Verdict::Served });
    }
    let hit = damage.offsets();
    // What the journal holds may go on behind the damage: then it is whole.
    if is_seen {
        return Err(format!("the loss is accepted, and it ends at {end}, with damage of {hit:?} before that"));
    }
    if end != offsets.log_start && !entries.iter().any(|entry| entry.next() == end) {
        return Err(format!("the loss is accepted, and it ends at {end}, within a batch"));
    }
    Ok(Verdict::Shortened(end))
}
