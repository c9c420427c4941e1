//! Bit rot: while no broker runs, bytes of acked batches change in a segment, below what the journal vouches for. Later they may
//! be put back, or their loss accepted. No client works with such a partition meanwhile: what it is asked is [`History::examine`].
//! And a slot of the superblock may rot, or be unreadable: nobody notices.

use crate::{
    counters::Hit,
    damage::{Damage, Segment},
    history::{DATA, History},
    model::{Existence, Model, Partition},
};
use engine::{
    disk::BLOCK,
    journal::{Superblock, superblock_path},
    partition::PartitionId,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
};

/// Partitions that are damaged at the same time.
const DAMAGED_MAX: usize = 3;

/// What rots, and when, is decided apart from all else: a seed without it lives as it did before there was any.
pub struct Rot {
    random: SmallRng,
    /// Of each partition that is damaged.
    pub damages: BTreeMap<PartitionId, Damage>,
    /// Partitions that are well again at the next start: what was acked must be there, but other batches were never looked at.
    pub cured: BTreeSet<PartitionId>,
}

impl Rot {
    pub fn new(seed: u64) -> Rot {
        Rot { random: SmallRng::seed_from_u64(!seed), damages: BTreeMap::new(), cured: BTreeSet::new() }
    }

    /// Now and then the topic of a damaged partition is deleted.
    pub fn deletes(&mut self, sick: &[PartitionId]) -> Option<PartitionId> {
        if sick.is_empty() || !self.random.random_ratio(1, 100) {
            return None;
        }
        Some(sick[self.random.random_range(0..sick.len())])
    }
}

impl History {
    /// What happens to the segments before the next start.
    pub fn decay(&mut self) {
        if !self.kind.rots {
            return;
        }
        self.forget_deleted();
        for id in self.damaged() {
            if self.rot.random.random_ratio(1, 3) {
                self.put_back(id);
            }
        }
        if self.rot.damages.len() < DAMAGED_MAX && self.rot.random.random_bool(0.5) {
            self.damage();
        }
        self.config.accept_loss = self.is_damaged() && self.rot.random.random_ratio(1, 4);
        if self.rot.random.random_ratio(1, 4) {
            self.damage_superblock();
        }
    }

    /// One of its slots rots, if both are whole, or can't be read until it is written again.
    fn damage_superblock(&mut self) {
        let path = superblock_path(&self.config.journal_dir);
        let Some(bytes) = self.disk.peek(&path) else { return };
        if bytes.chunks(BLOCK as usize).any(|slot| Superblock::of_slot(slot).is_none()) {
            return;
        }
        let (at, bit) = (self.rot.random.random_range(0..bytes.len()), self.rot.random.random_range(0..8_u32));
        let slot = at / BLOCK as usize;
        if self.rot.random.random() {
            self.say(|| format!("-- rot in slot {slot} of the superblock"));
            self.disk.rot(&path, |bytes| bytes[at] ^= 1 << bit);
            self.hit(Hit::SlotRotted);
        } else {
            self.say(|| format!("-- slot {slot} of the superblock can't be read"));
            self.disk.set_unreadable(&path, slot as u64);
            self.hit(Hit::SlotUnreadable);
        }
    }

    /// A start was refused since the disk is full: what an accepted loss cuts off, and what is carried on of a damaged partition, need
    /// space. The operator makes room, or goes without that loss.
    pub fn help_to_start(&mut self) {
        if !self.config.accept_loss || self.rot.random.random() {
            self.say(|| "-- there is room again".to_owned());
            self.full = false;
            self.disk.set_free_blocks(None);
        } else {
            self.config.accept_loss = false;
        }
    }

    /// Some partition is damaged.
    pub fn is_damaged(&self) -> bool {
        !self.rot.damages.is_empty()
    }

    /// Puts back all that was damaged.
    pub fn put_all_back(&mut self) {
        self.damaged().into_iter().for_each(|id| self.put_back(id));
    }

    fn damaged(&self) -> Vec<PartitionId> {
        self.rot.damages.keys().copied().collect()
    }

    fn forget_deleted(&mut self) {
        let mut model = self.outside.model.borrow_mut();
        let Model { partitions, sick, shortened, .. } = &mut *model;
        sick.retain(|id| partitions.contains_key(id));
        shortened.retain(|id| partitions.contains_key(id));
        self.rot.damages.retain(|id, _| partitions.contains_key(id));
    }

    fn damage(&mut self) {
        let outside = Rc::clone(&self.outside);
        let mut model = outside.model.borrow_mut();
        let is_well = |id: &PartitionId, partition: &Partition| {
            // Without the catalog nothing starts at all.
            *id != PartitionId::CATALOG && partition.open && partition.existence == Existence::Alive && !model.sick.contains(id)
        };
        let well: Vec<_> = model.partitions.iter().filter(|(id, partition)| is_well(id, partition)).map(|(id, _)| *id).collect();
        if well.is_empty() {
            return;
        }
        let id = well[self.rot.random.random_range(0..well.len())];
        let partition = &model.partitions[&id];
        let segments: Vec<_> = self.segments(partition).into_iter().filter(|segment| segment.has_targets(partition)).collect();
        let Some(last) = segments.last() else { return };
        // A start looks at the last one only.
        let random = &mut self.rot.random;
        let segment = if random.random_bool(0.6) { last } else { &segments[random.random_range(0..segments.len())] };
        let Some(damage) = Damage::draw(random, segment, partition) else { return };
        self.say(|| format!("-- rot in partition {}: {damage}", id.0));
        self.disk.rot(&damage.path, |bytes| damage.apply(bytes));
        self.hit(Hit::Rotted);
        if !damage.epochs().is_empty() {
            self.hit(Hit::EpochRotted);
        }
        if let Some(partition) = model.partitions.get_mut(&id) {
            partition.forget_epochs(damage.epochs());
        }
        model.sick.insert(id);
        self.rot.damages.insert(id, damage);
    }

    /// The segments of a partition, in order, as they are on the disk.
    fn segments(&self, partition: &Partition) -> Vec<Segment> {
        let directory = Path::new(DATA).join(format!("topic{}-0", partition.topic));
        let names = self.disk.names(&directory);
        let mut bases: Vec<i64> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
        bases.sort_unstable();
        let mut segments = Vec::new();
        for (at, base) in bases.iter().enumerate() {
            let path = directory.join(format!("{base:020}.log"));
            let next = bases.get(at + 1).copied().unwrap_or(i64::MAX);
            if let Some(bytes) = self.disk.peek(&path) {
                segments.push(Segment::new(path, *base..next, bytes, partition));
            }
        }
        segments
    }

    fn put_back(&mut self, id: PartitionId) {
        // One whose deletion was not answered may have made room for another of its name.
        let is_there = self.outside.model.borrow().partitions.get(&id).is_some_and(|partition| partition.existence == Existence::Alive);
        let Some(damage) = self.rot.damages.get_mut(&id) else { return };
        if !is_there || damage.is_put_back || damage.is_lost {
            return;
        }
        let mut is_back = false;
        self.disk.rot(&damage.path, |bytes| is_back = damage.put_back(bytes));
        if !is_back {
            return;
        }
        damage.is_put_back = true;
        let is_undone = damage.is_undone();
        self.say(|| format!("-- partition {} is put back, {}", id.0, if is_undone { "for good" } else { "but was opened meanwhile" }));
        if is_undone {
            self.hit(Hit::PutBack);
            self.cure(id);
        }
    }

    /// A partition is well again.
    pub fn cure(&mut self, id: PartitionId) {
        self.rot.damages.remove(&id);
        self.rot.cured.insert(id);
        self.outside.model.borrow_mut().sick.remove(&id);
    }
}
