//! The dirty part of a log, read once: the last offset of each key, and of which parts of it nothing can stay.

use super::{
    filter::Filter,
    job::{CleanError, Job},
    key_map::KeyMap,
    source::{Batches, Source},
    transactions::Transactions,
};
use crate::{
    batch::{ControlRecord, DECOMPRESSED_BYTES_MAX, Header, Record, Records, payload},
    disk::Disk,
    segment::{AbortedTxn, Pass, STREAM_WINDOW_BYTES},
};
use std::collections::BTreeMap;

/// The keys of the dirty part, as far as they fitted.
pub(super) struct Dirty {
    pub keys: KeyMap,
    /// As [`Filter::is_regular`].
    pub is_regular: bool,
    /// No batch of it is transactional, or a marker.
    pub is_plain: bool,
    /// What its segments are made of, by their base offsets.
    pub parts: BTreeMap<i64, Parts>,
    /// Up to where it was read.
    pub end_offset: i64,
    /// There were more keys.
    pub is_partial: bool,
}

/// The parts of a segment: a window of its stream each, or a sixteenth of a small segment.
pub(super) struct Parts {
    /// What a part has at least, in bytes.
    bytes: u64,
    /// Position and first offset of each.
    starts: Vec<(u64, i64)>,
    /// Records in all of them.
    records: u64,
}

impl Parts {
    pub fn of(segment: &Source) -> Parts {
        Parts { bytes: (segment.bytes / 16).clamp(1, STREAM_WINDOW_BYTES), starts: Vec::new(), records: 0 }
    }

    pub fn push(&mut self, position: u64, header: &Header) {
        if self.starts.last().is_none_or(|last| position / self.bytes > last.0 / self.bytes) {
            self.starts.push((position, header.base_offset()));
        }
        self.records += header.record_count().max(0) as u64;
    }
}

impl Dirty {
    /// Reads the dirty part, and notes the last offset of each key.
    pub async fn read<D: Disk>(job: &Job, disk: &D, aborted: Vec<AbortedTxn>) -> Result<Dirty, CleanError> {
        let span = usize::try_from(job.end - job.first_dirty).unwrap_or(usize::MAX);
        let keys = KeyMap::new(job.keys_max.min(span), job.secret);
        let mut dirty =
            Dirty { keys, is_regular: true, is_plain: true, parts: BTreeMap::new(), end_offset: job.first_dirty, is_partial: false };
        let next = |index: usize| job.segments.get(index + 1).map_or(job.end, |next| next.base_offset);
        let clean = (0..job.segments.len()).take_while(|index| next(*index) <= job.first_dirty).count();
        // Those that have ended before have their markers where this doesn't come: what their producers did afterwards would count as
        // aborted (Kafka: `collectAbortedTransactions` of the dirty part only).
        let first = job.segments.get(clean).map_or(job.end, |segment| segment.base_offset);
        let mut transactions = Transactions::new(aborted.into_iter().filter(|txn| txn.last_offset >= first).collect());
        for (index, segment) in job.segments.iter().enumerate().skip(clean) {
            let mut source = Batches::open(disk, &job.directory, segment, Vec::new(), &job.progress).await?;
            let mut parts = Parts::of(segment);
            while let Some(header) = source.next().await? {
                job.progress.add(header.size());
                parts.push(source.position, &header);
                dirty.is_plain &= !header.is_transactional() && !header.is_control();
                let is_dirty = header.last_offset() >= job.first_dirty;
                let is_aborted = match header.is_control() {
                    true => {
                        transactions.marker(&header, ControlRecord::of_batch(&header, source.batch(&header).await?));
                        true
                    }
                    false => transactions.is_aborted(&header),
                };
                if !is_dirty {
                    continue;
                }
                if !is_aborted {
                    let position = source.position;
                    let noted = dirty.note(&header, source.batch(&header).await?, job.first_dirty);
                    if !noted.map_err(|what| source.corrupt(position, what))? {
                        dirty.is_partial = true;
                        return Ok(dirty);
                    }
                }
                dirty.end_offset = header.next_offset();
            }
            dirty.end_offset = next(index).max(job.first_dirty);
            dirty.parts.insert(segment.base_offset, parts);
        }
        Ok(dirty)
    }

    /// Records in all batches of a segment of which it has passes.
    pub fn records(&self, segment: &Source) -> u64 {
        self.parts[&segment.base_offset].records
    }

    /// The parts of a segment of which nothing is left: neither have they to be read again.
    pub fn passes(&self, segment: &Source, filter: &Filter<'_>) -> Vec<Pass> {
        let mut passes: Vec<Pass> = Vec::new();
        let Some(parts) = self.parts.get(&segment.base_offset).filter(|_| self.is_plain) else { return passes };
        for pair in parts.starts.windows(2) {
            let [(from, first), (to, next_offset)] = [pair[0], pair[1]];
            if !filter.leaves_nothing_of(first, next_offset) {
                continue;
            }
            match passes.last_mut() {
                Some(last) if last.to == from => (last.to, last.next_offset) = (to, next_offset),
                _ => passes.push(Pass { from, to, next_offset }),
            }
        }
        passes
    }

    /// Notes the keys of a batch. False if there is no room for all of them, and none is noted then.
    fn note(&mut self, header: &Header, batch: &[u8], first_dirty: i64) -> Result<bool, String> {
        let records = payload(header, batch, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
        let is_noted = |record: &Record<'_>| record.key.is_some() && record.offset(header) >= first_dirty;
        // There are never more of them than the header says, which is a client's word: where there is no room for that many
        // they are counted, and memory is taken for those that are there.
        if !self.keys.has_room(header.record_count().max(0) as usize) {
            let mut count = 0;
            for record in Records::new(header, &records) {
                count += usize::from(is_noted(&record.map_err(|error| error.to_string())?));
            }
            if !self.keys.has_room(count) {
                if !self.keys.is_empty() {
                    return Ok(false);
                }
                self.keys.reserve(count);
            }
        }
        for record in Records::new(header, &records) {
            let record = record.map_err(|error| error.to_string())?;
            let offset = record.offset(header);
            // A client may have given a compressed batch any offsets.
            self.is_regular &= record.key.is_some() && (header.base_offset()..=header.last_offset()).contains(&offset);
            if is_noted(&record) {
                self.keys.put(record.key.expect("it has one"), offset);
            }
        }
        Ok(true)
    }
}
