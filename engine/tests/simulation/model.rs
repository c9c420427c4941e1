//! The oracle: what was appended to each partition, what was acked, what a consumer has seen; and so, what a recovered
//! partition may hold.

use engine::{batch::Header, log::Offsets, partition::PartitionId};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// A batch as a client sent it.
#[derive(Debug)]
pub struct Batch {
    /// Unlike that of any other batch.
    pub label: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its records.
    pub records: i64,
}

/// A batch in a partition.
#[derive(Clone, Debug)]
pub struct Entry {
    pub base: i64,
    pub batch: Rc<Batch>,
    /// The leader epoch that it was given. `None` once that was changed on the disk: no checksum of a segment covers it.
    pub epoch: Option<i32>,
    pub acked: bool,
    /// Up to here all was acked when it was appended: its own ack is an entry of the journal behind all of that.
    settles: i64,
}

impl Entry {
    pub fn next(&self) -> i64 {
        self.base + self.batch.records
    }
}

/// How far a partition's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    /// Its creation was not answered: a crash may take it back.
    Creating,
    /// It exists.
    Alive,
    /// Its deletion was not answered: a crash may take that back.
    Deleting,
    /// It is gone for good.
    Gone,
}

/// What is known of a partition.
#[derive(Debug)]
pub struct Partition {
    pub topic: u32,
    pub existence: Existence,
    /// The engine knows it in this life.
    pub open: bool,
    /// The leader epoch of what is appended in this life.
    pub epoch: i32,
    /// Everything that was appended and may be there, in order.
    pub log: Vec<Entry>,
    /// Tails that a running engine has discarded, each with the entries that it followed by their count. A crash may
    /// bring one back, as long as nothing that took its place was acked or seen.
    discarded: Vec<Vec<Entry>>,
    /// The log start that was answered, and the highest that was asked for.
    pub start_acked: i64,
    pub start_asked: i64,
    /// The highest high watermark that a consumer was told.
    pub seen: i64,
    /// Up to here the journal vouches for the log. Of a last run that was acked it does so from the next entry on only: until
    /// then it can't be told from one whose flush never came.
    pub vouched: i64,
}

impl Partition {
    pub fn new(topic: u32, existence: Existence) -> Partition {
        Partition {
            topic,
            existence,
            open: false,
            epoch: 0,
            log: Vec::new(),
            discarded: Vec::new(),
            start_acked: 0,
            start_asked: 0,
            seen: 0,
            vouched: 0,
        }
    }

    pub fn end(&self) -> i64 {
        self.log.last().map_or(0, Entry::next)
    }

    /// Up to where nothing may be lost.
    pub fn floor(&self) -> i64 {
        self.acked_end().max(self.seen).max(self.start_acked)
    }

    fn acked_end(&self) -> i64 {
        self.log.iter().rev().find(|entry| entry.acked).map_or(0, Entry::next)
    }

    /// A loss was accepted: it goes on from `end`.
    pub fn shorten(&mut self, end: i64) {
        self.log.retain(|entry| entry.next() <= end);
        self.discarded.clear();
        (self.seen, self.vouched) = (end, end);
        self.start_acked = self.start_acked.min(end);
    }

    /// The leader epochs of the batches at these base offsets were changed.
    pub fn forget_epochs(&mut self, bases: &[i64]) {
        self.log.iter_mut().filter(|entry| bases.contains(&entry.base)).for_each(|entry| entry.epoch = None);
    }

    pub fn find(&self, label: u64) -> Option<&Entry> {
        self.log.iter().rev().find(|entry| entry.batch.label == label)
    }

    /// The engine's log end is this: what the model has beyond was discarded.
    pub fn discard_from(&mut self, log_end: i64) -> Result<bool, String> {
        if log_end >= self.end() {
            return if log_end == self.end() {
                Ok(false)
            } else {
                Err(format!("log end {log_end} above everything appended, {}", self.end()))
            };
        }
        if log_end < self.floor() {
            return Err(format!("log end fell to {log_end}, but {} was acked or seen", self.floor()));
        }
        let keep = self.log.iter().take_while(|entry| entry.next() <= log_end).count();
        let fork = self.log.clone();
        self.discarded.push(fork);
        self.log.truncate(keep);
        if self.end() != log_end { Err(format!("log end {log_end} lies within a batch")) } else { Ok(true) }
    }

    /// A batch was appended at `base`. True if it was a duplicate.
    pub fn appended(&mut self, batch: &Rc<Batch>, base: i64, last: i64) -> Result<bool, String> {
        if last - base + 1 != batch.records {
            return Err(format!("offsets {base}..={last} for {} records", batch.records));
        }
        if let Some(entry) = self.find(batch.label) {
            if entry.base != base {
                return Err(format!("batch {} is at {}, its repetition was answered with {base}", batch.label, entry.base));
            }
            return Ok(true);
        }
        if base != self.end() {
            return Err(format!("a new batch got offset {base}, the end is {}", self.end()));
        }
        let (settles, epoch) = (self.acked_end(), Some(self.epoch));
        self.log.push(Entry { base, batch: Rc::clone(batch), epoch, acked: false, settles });
        Ok(false)
    }

    /// The batch at `base` was acked.
    pub fn acked(&mut self, label: u64, base: i64) -> Result<(), String> {
        let entry = self.log.iter_mut().rev().find(|entry| entry.base == base && entry.batch.label == label);
        let entry = entry.ok_or_else(|| format!("batch {label} at {base} was acked, but had been discarded"))?;
        entry.acked = true;
        self.vouched = self.vouched.max(entry.settles);
        Ok(())
    }

    /// A consumer was told these offsets.
    pub fn told(&mut self, offsets: &Offsets) -> Result<(), String> {
        if offsets.high_watermark < self.seen {
            return Err(format!("the high watermark fell from {} to {}", self.seen, offsets.high_watermark));
        }
        if offsets.high_watermark > offsets.log_end || offsets.last_stable > offsets.high_watermark {
            return Err(format!("offsets out of order: {offsets:?}"));
        }
        if offsets.leader_epoch != self.epoch {
            return Err(format!("its leader epoch is {}, it was given {}", offsets.leader_epoch, self.epoch));
        }
        if offsets.log_start < self.start_acked || offsets.log_start > self.start_asked {
            return Err(format!(
                "log start {} where {} was answered and {} asked for",
                offsets.log_start, self.start_acked, self.start_asked
            ));
        }
        self.seen = offsets.high_watermark;
        Ok(())
    }

    /// `bytes` were read from `offset` on, where the high watermark is `high_watermark`: they must be what was appended.
    /// Returns where they end.
    pub fn check_read(&self, offset: i64, high_watermark: i64, bytes: &[u8]) -> Result<i64, String> {
        let mut next = offset;
        let mut entries = self.log[self.log.partition_point(|entry| entry.next() <= offset)..].iter();
        for (header, batch) in split(bytes)? {
            let entry = entries.next().ok_or_else(|| format!("a batch at {} that nobody appended", header.base_offset()))?;
            same(entry, &header, batch)?;
            if entry.next() > high_watermark {
                return Err(format!("a read beyond the high watermark {high_watermark}: {}", entry.next()));
            }
            next = entry.next();
        }
        Ok(next)
    }

    /// After a start: `bytes` is everything from `start` to `end`. Takes over what survived.
    pub fn recovered(&mut self, start: i64, end: i64, bytes: &[u8]) -> Result<(), String> {
        let floor = self.floor();
        let mut survivors = Vec::new();
        let mut next = start;
        // The tails that it may have followed, the current one first.
        let mut histories: Vec<&Vec<Entry>> = std::iter::once(&self.log).chain(&self.discarded).collect();
        for (header, batch) in split(bytes)? {
            let fits = |history: &&Vec<Entry>| {
                history.iter().any(|entry| entry.base == header.base_offset() && same(entry, &header, batch).is_ok())
            };
            let left: Vec<_> = histories.iter().copied().filter(fits).collect();
            let Some(history) = left.first() else {
                let expected = histories[0].iter().find(|entry| entry.next() > header.base_offset());
                let why = expected.map_or("nobody appended it".into(), |entry| same(entry, &header, batch).unwrap_err());
                return Err(format!("recovered batch {}..={}: {why}", header.base_offset(), header.last_offset()));
            };
            let entry = history.iter().find(|entry| entry.base == header.base_offset()).expect("it fits");
            if header.base_offset() > next {
                return Err(format!("nothing at {next}, the next batch is at {}", header.base_offset()));
            }
            next = entry.next();
            survivors.push(entry.clone());
            histories = left;
        }
        if next != end {
            return Err(format!("the log ends at {end}, but its batches at {next}"));
        }
        if end < floor {
            return Err(format!("it ends at {end}, but {floor} was acked or seen"));
        }
        let first = survivors.first().map_or(end, |entry| entry.base);
        let mut log: Vec<Entry> = self.log.iter().take_while(|entry| entry.next() <= first).cloned().collect();
        log.extend(survivors);
        // What was acked must be among them as it was.
        for acked in self.log.iter().filter(|entry| entry.next() <= floor) {
            let there = log.iter().any(|entry| entry.base == acked.base && entry.batch.label == acked.batch.label);
            if !there {
                return Err(format!("batch {} at {} was acked or seen, another took its place", acked.batch.label, acked.base));
            }
        }
        self.log = log;
        self.vouched = end;
        self.discarded.clear();
        if self.end() != end && !(self.log.is_empty() && end == start) {
            return Err(format!("it ends at {end}, the model at {}", self.end()));
        }
        Ok(())
    }
}

/// The batches of a read.
pub fn split(mut bytes: &[u8]) -> Result<Vec<(Header, &[u8])>, String> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let header = Header::read(bytes).filter(|header| header.length() > 0 && header.size() <= bytes.len());
        let header = header.ok_or_else(|| format!("{} bytes that are no batch", bytes.len()))?;
        let (batch, rest) = bytes.split_at(header.size());
        batches.push((header, batch));
        bytes = rest;
    }
    Ok(batches)
}

pub fn same(entry: &Entry, header: &Header, batch: &[u8]) -> Result<(), String> {
    if header.base_offset() != entry.base {
        return Err(format!("a batch at {} where {} was appended", header.base_offset(), entry.base));
    }
    if let Some(epoch) = entry.epoch.filter(|epoch| *epoch != header.leader_epoch()) {
        return Err(format!("at {} there is leader epoch {} where {epoch} was given", entry.base, header.leader_epoch()));
    }
    // Offset and leader epoch are the broker's; all else is as it was sent.
    let sent = &entry.batch.bytes;
    if batch.len() != sent.len() || batch[8..12] != sent[8..12] || batch[16..] != sent[16..] {
        return Err(format!("at {} there are not the bytes of batch {}", entry.base, entry.batch.label));
    }
    Ok(())
}

/// Everything that is known.
#[derive(Default)]
pub struct Model {
    pub partitions: BTreeMap<PartitionId, Partition>,
    /// Claims that did not hold.
    pub failures: Vec<String>,
    /// Something in this life allows a tail to be discarded: a full disk, a failed write.
    pub may_discard: bool,
    /// The broker is stopping: whoever waits may be refused.
    pub stopping: bool,
    /// Partitions with damage in their segments: no client works with them.
    pub sick: BTreeSet<PartitionId>,
    /// Partitions of which a loss was accepted: what their idempotent producers know may be lost as well.
    pub shortened: BTreeSet<PartitionId>,
}

impl Model {
    /// A refusal of a partition that exists needs no other cause.
    pub fn may_refuse(&self) -> bool {
        self.may_discard || self.stopping
    }

    /// Notes a claim that did not hold.
    pub fn claim<T>(&mut self, what: impl FnOnce() -> String, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failures.push(format!("{}: {error}", what()));
                None
            }
        }
    }

    /// Follows the engine's log end.
    pub fn follow(&mut self, id: PartitionId, offsets: &Offsets) -> bool {
        let may = self.may_discard;
        let Some(partition) = self.partitions.get_mut(&id) else { return false };
        let result = partition.discard_from(offsets.log_end);
        let result = if result == Ok(true) && !may { Err("a tail was discarded without a cause".into()) } else { result };
        self.claim(|| format!("partition {}", id.0), result).unwrap_or(false)
    }
}
