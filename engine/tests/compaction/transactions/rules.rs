//! What was written to a log, what of it is there, what a reader of committed records makes of that, and what Kafka's cleaner would have
//! left (Kafka: `Cleaner.cleanInto`, `MemoryRecords.filterTo`, `CleanedTransactionMetadata`; `CompletedFetch` for the reader). Nothing here
//! knows of the engine's own rules: whose batch belongs to which transaction is known from who wrote it.

use engine::{
    batch::{ControlRecord, Header, Records, Scanner, payload, scan},
    compaction::{Cleaned, Job},
    disk::sim::SimDisk,
    segment::{FileKind, file_name, parse_file_name},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
};

/// The partition's directory.
pub const DIRECTORY: &str = "/data/table-0";
/// What a batch of these histories decompresses to at most, in bytes.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// A record as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; `None` of a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its timestamp in ms.
    pub timestamp: i64,
}

/// How a transaction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not yet.
    Open,
    /// With a commit.
    Committed,
    /// With an abort.
    Aborted,
}

/// A batch as it was written: its records have the offsets from its first one on.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Id, epoch and first sequence of its producer; -1 each without one.
    pub producer: (i64, i16, i32),
    /// A control batch: true of a commit, false of an abort.
    pub marker: Option<bool>,
    /// The number of its transaction.
    pub transaction: Option<usize>,
    /// Its records; of a marker the control record.
    pub records: Vec<Record>,
}

/// Everything that was written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The batches, by their first offsets.
    pub batches: BTreeMap<i64, Batch>,
    /// How each transaction has ended, by its number.
    pub fates: Vec<Fate>,
}

impl Written {
    /// True of records that a reader of committed ones is given.
    fn is_committed(&self, batch: &Batch) -> bool {
        batch.marker.is_none() && batch.transaction.is_none_or(|number| self.fates[number] == Fate::Committed)
    }

    /// True of records of an aborted transaction.
    fn is_aborted(&self, batch: &Batch) -> bool {
        batch.marker.is_none() && batch.transaction.is_some_and(|number| self.fates[number] == Fate::Aborted)
    }

    /// The record at an offset, and its batch.
    fn record(&self, offset: i64) -> Option<(&Batch, &Record)> {
        let (base, batch) = self.batches.range(..=offset).next_back()?;
        let record = batch.records.get(usize::try_from(offset - base).ok()?)?;
        Some((batch, record))
    }
}

/// A batch as it is there. All else of it is as it was written: [`There::of`] has looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct There {
    /// Its first offset.
    pub base: i64,
    /// Its last offset.
    pub last: i64,
    /// Its delete horizon, in ms.
    pub horizon: Option<i64>,
    /// The offsets of the records that it still has.
    pub offsets: Vec<i64>,
}

impl There {
    /// Holds a batch against the one that was written at its offset.
    pub fn of(header: &Header, bytes: &[u8], written: &Written) -> Result<There, String> {
        let base = header.base_offset();
        let batch = written.batches.get(&base).ok_or_else(|| format!("nobody wrote a batch at {base}: {header:?}"))?;
        let last = base + batch.records.len() as i64 - 1;
        let producer = (header.producer_id(), header.producer_epoch(), header.base_sequence());
        let is = (header.last_offset(), producer, header.is_transactional(), header.is_control());
        let was = (last, batch.producer, batch.transaction.is_some(), batch.marker.is_some());
        if is != was {
            return Err(format!("the batch at {base} is {is:?}, written was {was:?}"));
        }
        let records = payload(header, bytes, PAYLOAD_BYTES_MAX).map_err(|error| format!("the batch at {base}: {error}"))?;
        let mut offsets: Vec<i64> = Vec::new();
        for record in Records::new(header, &records) {
            let record = record.map_err(|error| format!("the batch at {base}: {error}"))?;
            let offset = record.offset(header);
            let was = usize::try_from(offset - base).ok().and_then(|at| batch.records.get(at));
            let is = Record {
                key: record.key.unwrap_or_default().to_vec(),
                value: record.value.map(<[u8]>::to_vec),
                timestamp: record.timestamp(header),
            };
            if was != Some(&is) {
                return Err(format!("at {offset} there is {is:?}, written was {was:?}"));
            }
            if offsets.last().is_some_and(|before| *before >= offset) {
                return Err(format!("offset {offset} comes behind {offsets:?}"));
            }
            offsets.push(offset);
        }
        Ok(There { base, last, horizon: header.delete_horizon(), offsets })
    }
}

/// The first offsets of the segments on the disk, in order.
pub fn segment_bases(disk: &SimDisk) -> Vec<i64> {
    let names = disk.names(Path::new(DIRECTORY));
    let logs = names.iter().filter_map(|name| parse_file_name(name)).filter(|(_, kind)| *kind == FileKind::Log);
    let mut bases: Vec<i64> = logs.map(|(base, _)| base).collect();
    bases.sort_unstable();
    bases
}

/// A file of a segment as it is on the disk now; `None` if it has none.
pub fn segment_file(disk: &SimDisk, base: i64, kind: FileKind) -> Option<Vec<u8>> {
    disk.peek(&Path::new(DIRECTORY).join(file_name(base, kind)))
}

/// The batches of the segments that begin at these offsets, as they are on the disk now.
pub fn on_disk(disk: &SimDisk, bases: Range<i64>, written: &Written) -> Result<Vec<There>, String> {
    let mut all: Vec<There> = Vec::new();
    for base in segment_bases(disk).into_iter().filter(|base| bases.contains(base)) {
        let bytes = segment_file(disk, base, FileKind::Log).unwrap_or_default();
        let mut failure: Option<String> = None;
        let scanned = scan(&bytes, Scanner::new(0, base, i32::MIN), |_, header, batch| match There::of(header, batch, written) {
            Ok(there) => all.push(there),
            Err(error) => failure = failure.take().or(Some(error)),
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        if scanned.end.position != bytes.len() as u64 {
            return Err(format!("the segment at {base} ends at byte {} of {}: {}", scanned.end.position, bytes.len(), scanned.stop));
        }
    }
    match all.windows(2).find(|pair| pair[0].last >= pair[1].base) {
        Some(pair) => Err(format!("{:?} comes behind {:?}", pair[1], pair[0])),
        None => Ok(all),
    }
}

/// What Kafka's cleaner makes of the batches that a job has found, in a round that knew the keys of the dirty part up to `clean_to`.
fn cleaner(job: &Job, clean_to: i64, before: &[There], written: &Written) -> Vec<There> {
    let mut latest: BTreeMap<&[u8], i64> = BTreeMap::new();
    let mut with_data: BTreeSet<usize> = BTreeSet::new();
    for there in before {
        let batch = &written.batches[&there.base];
        if batch.marker.is_some() {
            continue;
        }
        with_data.extend(batch.transaction);
        let dirty = there.offsets.iter().filter(|offset| (job.first_dirty..clean_to).contains(*offset) && !written.is_aborted(batch));
        latest.extend(dirty.map(|offset| (&batch.records[(offset - there.base) as usize].key[..], *offset)));
    }
    // Segments are cleaned as a whole, also the one in which the memory for keys was full.
    let limit = job.segments.iter().map(|segment| segment.base_offset).find(|base| *base >= clean_to).unwrap_or(job.end);
    let mut after = Vec::new();
    for there in before {
        let batch = &written.batches[&there.base];
        if there.base >= limit {
            after.push(there.clone());
            continue;
        }
        let is_last_of_producer = batch.producer.0 >= 0
            && job.producers.get(&batch.producer.0).is_some_and(|last| match last.data_offset {
                Some(offset) => there.last == offset,
                None => batch.marker.is_some() && batch.producer.1 == last.epoch,
            });
        let has_had_its_time = there.horizon.is_some_and(|horizon| horizon <= job.now_ms);
        let (offsets, wants_horizon) = if batch.marker.is_some() {
            let is_idle = there.offsets.is_empty() || batch.transaction.is_some_and(|number| !with_data.contains(&number));
            (if is_idle && has_had_its_time { Vec::new() } else { there.offsets.clone() }, is_idle)
        } else if written.is_aborted(batch) {
            (Vec::new(), false)
        } else {
            let record = |offset: i64| &batch.records[(offset - there.base) as usize];
            let is_latest = |offset: i64| latest.get(&record(offset).key[..]).is_none_or(|latest| offset >= *latest);
            let stays = |offset: i64| offset >= clean_to || is_latest(offset) && (record(offset).value.is_some() || !has_had_its_time);
            let offsets: Vec<i64> = there.offsets.iter().copied().filter(|offset| stays(*offset)).collect();
            let has_tombstone = offsets.iter().any(|offset| record(*offset).value.is_none());
            (offsets, has_tombstone)
        };
        if offsets.is_empty() {
            if is_last_of_producer || there.last + 1 == job.end {
                after.push(There { horizon: None, offsets, ..*there });
            }
            continue;
        }
        let horizon = there.horizon.or_else(|| wants_horizon.then(|| job.now_ms + job.delete_retention_ms));
        after.push(There { horizon, offsets, ..*there });
    }
    after
}

/// A round that came to its end has left what Kafka's rules leave of the batches that were there `before`.
pub fn check_round(disk: &SimDisk, job: &Job, cleaned: &Cleaned, before: &[There], written: &Written) -> Result<(), String> {
    let after = on_disk(disk, job.segments[0].base_offset..job.end, written)?;
    let expected = cleaner(job, cleaned.clean_to, before, written);
    let round = format!("a round from {} to {} (clean to {}) at {} ms", job.first_dirty, job.end, cleaned.clean_to, job.now_ms);
    if after != expected {
        let at = after.iter().zip(&expected).position(|(is, must)| is != must).unwrap_or(after.len().min(expected.len()));
        let (is, must) = (after.get(at), expected.get(at));
        let first = is.into_iter().chain(must).map(|there| there.base).min().unwrap_or(0);
        let (was, batch) = (before.iter().find(|there| there.base == first), written.batches.get(&first));
        return Err(format!("{round} has left {is:?}, by Kafka's rules it is {must:?}; at {first} there was {was:?} of {batch:?}"));
    }
    let is_left = |there: &&There| there.last < cleaned.clean_to && !there.offsets.is_empty();
    match after.iter().filter(is_left).find(|there| written.is_aborted(&written.batches[&there.base])) {
        Some(there) => Err(format!("{round} has left aborted records: {there:?}")),
        None => Ok(()),
    }
}

/// Nothing is missing of the batches that begin at or above `from` and end below `up_to`: no round could have cleaned them.
pub fn check_untouched(all: &[There], written: &Written, from: i64, up_to: i64) -> Result<(), String> {
    let there: BTreeMap<i64, &There> = all.iter().map(|there| (there.base, there)).collect();
    for (base, batch) in written.batches.range(from..up_to.max(from)) {
        let end = base + batch.records.len() as i64;
        let is_whole = there.get(base).is_some_and(|there| there.offsets.len() == batch.records.len() && there.horizon.is_none());
        if end <= up_to && !is_whole {
            return Err(format!("at {base}, which no round was to clean, there is {:?} of {batch:?}", there.get(base)));
        }
    }
    Ok(())
}

/// What a consumer has made of what it has fetched.
#[derive(Debug, Default)]
pub struct Consumed {
    /// All batches that came.
    pub batches: Vec<There>,
    /// The offsets of the records that the application was given.
    pub delivered: Vec<i64>,
}

impl Consumed {
    /// Takes in the answer to one fetch from the offset `from` on, with its aborted transactions (first offset and producer), as a
    /// Kafka consumer that reads committed records does. Returns where it fetches next: `from` if nothing came.
    pub fn fetch(&mut self, bytes: &[u8], mut aborted: Vec<(i64, i64)>, from: i64, written: &Written) -> Result<i64, String> {
        aborted.sort_unstable();
        let mut to_come = aborted.into_iter().peekable();
        let mut producers: BTreeSet<i64> = BTreeSet::new();
        let (mut rest, mut next) = (bytes, from);
        while let Some(header) = Header::read(rest) {
            if header.size() == 0 || header.size() > rest.len() || header.last_offset() < next {
                return Err(format!("{header:?} came where {next} was to come"));
            }
            let (batch, behind) = rest.split_at(header.size());
            rest = behind;
            next = header.next_offset();
            let there = There::of(&header, batch, written)?;
            let mut is_skipped = header.is_control();
            if header.has_producer() {
                while let Some((_, producer)) = to_come.next_if(|(first, _)| *first <= header.last_offset()) {
                    producers.insert(producer);
                }
                if matches!(ControlRecord::of_batch(&header, batch), Some(ControlRecord::Abort { .. })) {
                    producers.remove(&header.producer_id());
                } else {
                    is_skipped |= header.is_transactional() && producers.contains(&header.producer_id());
                }
            }
            if !is_skipped {
                self.delivered.extend(there.offsets.iter().filter(|offset| **offset >= from));
            }
            self.batches.push(there);
        }
        Ok(next)
    }

    /// The application was given committed records only, and knows of each key what the full log says of it from the offset `from` on,
    /// up to `up_to`. Unless it was read `at_once` a tombstone may have had its time meanwhile, when what it ends was read already.
    pub fn check(&self, written: &Written, from: i64, up_to: i64, at_once: bool) -> Result<(), String> {
        let mut is: BTreeMap<&[u8], i64> = BTreeMap::new();
        for offset in &self.delivered {
            let (batch, record) = written.record(*offset).ok_or_else(|| format!("nobody wrote a record at {offset}"))?;
            if !written.is_committed(batch) || *offset >= up_to {
                return Err(format!("the record at {offset} was given to a reader of committed ones up to {up_to}: {batch:?}"));
            }
            if is.insert(&record.key, *offset).is_some_and(|before| before >= *offset) {
                return Err(format!("the record at {offset} came too late"));
            }
        }
        let mut must: BTreeMap<&[u8], (i64, bool)> = BTreeMap::new();
        for (base, batch) in written.batches.range(..up_to).filter(|(_, batch)| written.is_committed(batch)) {
            let records = (*base..).zip(&batch.records).filter(|(offset, _)| (from..up_to).contains(offset));
            must.extend(records.map(|(offset, record)| (&record.key[..], (offset, record.value.is_some()))));
        }
        for (key, (offset, has_value)) in must {
            match is.remove(key) {
                Some(at) if at == offset => {}
                // Its last record was a tombstone, and had its time.
                None if !has_value => {}
                Some(_) if !has_value && !at_once => {}
                other => {
                    let batch = written.record(offset).map(|(batch, _)| batch);
                    return Err(format!(
                        "of {key:?} a reader knows {other:?}, the last one is at {offset} (a value: {has_value}): {batch:?}"
                    ));
                }
            }
        }
        if is.is_empty() { Ok(()) } else { Err(format!("a reader knows keys that nobody wrote: {is:?}")) }
    }

    /// Each key was given once.
    pub fn check_once(&self, written: &Written) -> Result<(), String> {
        let mut keys: BTreeMap<&[u8], i64> = BTreeMap::new();
        for offset in &self.delivered {
            let Some((_, record)) = written.record(*offset) else { continue };
            if let Some(before) = keys.insert(&record.key, *offset) {
                return Err(format!("in the end {:?} is there at {before} and at {offset}", record.key));
            }
        }
        Ok(())
    }
}
