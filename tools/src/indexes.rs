//! `.index`, `.timeindex`, `.txnindex`, and whether they fit the log beside them.

use crate::{BytesAt, Options, log};
use anyhow::Result;
use engine::segment::{INDEX_ENTRY_BYTES, IndexError, OffsetIndex, TIME_ENTRY_BYTES, TimeIndex, TxnIndex};
use std::{collections::BTreeMap, io::Write, path::Path};

/// The entries before the zeros at the end: a broker that did not stop cleanly leaves indexes longer than what they hold.
fn written(bytes: &[u8], entry: usize) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(entry));
    &bytes[..end.min(bytes.len())]
}

fn report(bytes: &[u8], written: &[u8], error: Option<IndexError>, out: &mut dyn Write) -> Result<u64> {
    if bytes.len() > written.len() {
        writeln!(out, "{} bytes from position {} on are allocated and not written", bytes.len() - written.len(), written.len())?;
    }
    if let Some(error) = error {
        writeln!(out, "Damaged: {error}")?;
        return Ok(1);
    }
    Ok(0)
}

pub(crate) fn dump_offsets(path: &Path, base_offset: i64, bytes: &[u8], options: &Options, out: &mut dyn Write) -> Result<u64> {
    let entries = written(bytes, INDEX_ENTRY_BYTES);
    let index = match OffsetIndex::decode(base_offset, entries, u64::MAX) {
        Ok(index) => index,
        Err(error) => return report(bytes, entries, Some(error), out),
    };
    let batches = if options.verify { batches(path, base_offset)? } else { None };
    let mut damages = 0;
    for entry in index.entries() {
        let offset = base_offset + i64::from(entry.relative_offset);
        write!(out, "offset: {offset} position: {}", entry.position)?;
        match batches.as_ref().map(|batches| batches.get(&u64::from(entry.position))) {
            Some(None) => {
                damages += 1;
                write!(out, " Mismatch: no batch begins there")?;
            }
            Some(Some(batch)) if batch.base_offset > offset => {
                damages += 1;
                write!(out, " Mismatch: the batch there begins at offset {}", batch.base_offset)?;
            }
            _ => {}
        }
        writeln!(out)?;
    }
    Ok(damages + report(bytes, entries, None, out)?)
}

pub(crate) fn dump_times(path: &Path, base_offset: i64, bytes: &[u8], options: &Options, out: &mut dyn Write) -> Result<u64> {
    let entries = written(bytes, TIME_ENTRY_BYTES);
    let index = match TimeIndex::decode(base_offset, entries) {
        Ok(index) => index,
        Err(error) => return report(bytes, entries, Some(error), out),
    };
    let batches = if options.verify { batches(path, base_offset)? } else { None };
    let mut damages = 0;
    for entry in index.entries() {
        let offset = base_offset + i64::from(entry.relative_offset);
        write!(out, "timestamp: {} offset: {offset}", entry.timestamp)?;
        let holder = |batches: &BTreeMap<u64, Batch>| batches.values().find(|batch| batch.last_offset >= offset).copied();
        match batches.as_ref().map(holder) {
            Some(None) => {
                damages += 1;
                write!(out, " Mismatch: no batch has this offset")?;
            }
            Some(Some(batch)) if batch.max_timestamp != entry.timestamp => {
                damages += 1;
                write!(out, " Mismatch: the batch there has timestamp {}", batch.max_timestamp)?;
            }
            _ => {}
        }
        writeln!(out)?;
    }
    Ok(damages + report(bytes, entries, None, out)?)
}

pub(crate) fn dump_transactions(bytes: &[u8], out: &mut dyn Write) -> Result<u64> {
    match TxnIndex::decode(bytes) {
        Ok(index) => {
            for entry in index.entries() {
                writeln!(
                    out,
                    "version: 0 producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
                    entry.producer_id, entry.first_offset, entry.last_offset, entry.last_stable_offset
                )?;
            }
            Ok(0)
        }
        Err(error) => report(bytes, bytes, Some(error), out),
    }
}

#[derive(Clone, Copy)]
struct Batch {
    base_offset: i64,
    last_offset: i64,
    max_timestamp: i64,
}

/// The batches of the log beside an index, by position; `None` without a log.
fn batches(index: &Path, base_offset: i64) -> Result<Option<BTreeMap<u64, Batch>>> {
    let path = index.with_extension("log");
    if !path.is_file() {
        return Ok(None);
    }
    let mut batches = BTreeMap::new();
    log::walk(&mut BytesAt::open(&path)?, base_offset, |seen| {
        let header = seen.header;
        let (base_offset, last_offset, max_timestamp) = (header.base_offset(), header.last_offset(), header.max_timestamp());
        batches.insert(seen.position, Batch { base_offset, last_offset, max_timestamp });
        Ok(true)
    })?;
    Ok(Some(batches))
}
