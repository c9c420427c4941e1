//! `.index`, `.timeindex` and `.txnindex`.

use super::{Line, Printer};
use crate::dump::inputs::{trimmed_index, trimmed_times};
use anyhow::Result;
use engine::segment::{IndexError, OffsetIndex, TimeIndex, TxnIndex};
use std::path::Path;

pub(super) fn offsets(path: &Path, base_offset: i64, bytes: &[u8], out: &mut Printer<'_>) -> Result<bool> {
    let entries = trimmed_index(bytes);
    let index = match OffsetIndex::decode(base_offset, entries, u64::MAX) {
        Ok(index) => index,
        Err(error) => return damaged(error, out),
    };
    for entry in index.entries() {
        let offset = base_offset + i64::from(entry.relative_offset);
        out.line(&Line::new("indexEntry").int("offset", offset).int("position", entry.position))?;
    }
    end(path, bytes, entries, out)
}

pub(super) fn times(path: &Path, base_offset: i64, bytes: &[u8], out: &mut Printer<'_>) -> Result<bool> {
    let entries = trimmed_times(bytes);
    let index = match TimeIndex::decode(base_offset, entries) {
        Ok(index) => index,
        Err(error) => return damaged(error, out),
    };
    for entry in index.entries() {
        let offset = base_offset + i64::from(entry.relative_offset);
        out.line(&Line::new("timeIndexEntry").int("timestamp", entry.timestamp).int("offset", offset))?;
    }
    end(path, bytes, entries, out)
}

pub(super) fn transactions(bytes: &[u8], out: &mut Printer<'_>) -> Result<bool> {
    let index = match TxnIndex::decode(bytes) {
        Ok(index) => index,
        Err(error) => return damaged(error, out),
    };
    for entry in index.entries() {
        let line = Line::new("abortedTransaction").int("version", 0).int("producerId", entry.producer_id);
        let line = line.int("firstOffset", entry.first_offset).int("lastOffset", entry.last_offset);
        out.line(&line.int("lastStableOffset", entry.last_stable_offset))?;
    }
    Ok(true)
}

fn end(path: &Path, bytes: &[u8], written: &[u8], out: &mut Printer<'_>) -> Result<bool> {
    if bytes.is_empty() {
        out.note(None, &format!("{} is empty.", path.display()))?;
    } else if bytes.len() > written.len() {
        let rest = bytes.len() - written.len();
        out.note(Some(written.len() as u64), &format!("{rest} bytes from position {} on are allocated and not written", written.len()))?;
    }
    Ok(true)
}

fn damaged(error: IndexError, out: &mut Printer<'_>) -> Result<bool> {
    out.damage(None, &format!("Damaged: {error}"))?;
    Ok(false)
}
