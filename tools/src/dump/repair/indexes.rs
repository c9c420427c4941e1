//! Building the indexes of a segment again from its log. Those that are right are left alone.

use super::{log::headers, replace};
use anyhow::Result;
use engine::{
    batch::ControlRecord,
    segment::{FileKind, Indexes, OpenTransactions, decode_snapshot, file_name},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Writes `.index`, `.timeindex` and `.txnindex` of the segment. Returns the files that keep what was replaced.
pub(super) fn rebuild(directory: &Path, base_offset: i64) -> Result<Vec<PathBuf>> {
    let path = |kind| directory.join(file_name(base_offset, kind));
    let mut indexes = Indexes::new(base_offset);
    let mut open = open_before(directory, base_offset)?;
    headers(&path(FileKind::Log), base_offset, |position, header, batch| {
        indexes.push(position, header);
        if let Some(aborted) = open.push(header, ControlRecord::of_batch(header, batch)) {
            indexes.transactions.push(aborted);
        }
    })?;
    indexes.seal();
    let mut kept = Vec::new();
    kept.extend(put(&path(FileKind::Index), &indexes.offsets.encode())?);
    kept.extend(put(&path(FileKind::TimeIndex), &indexes.times.encode())?);
    let transactions = path(FileKind::TxnIndex);
    if !indexes.transactions.entries().is_empty() || transactions.exists() {
        kept.extend(put(&transactions, &indexes.transactions.encode())?);
    }
    Ok(kept)
}

fn put(path: &Path, content: &[u8]) -> Result<Option<PathBuf>> {
    if fs::read(path).is_ok_and(|found| found == content) { Ok(None) } else { replace(path, content) }
}

/// The transactions that are open where the segment begins: those of its snapshot, or of the log before.
fn open_before(directory: &Path, base_offset: i64) -> Result<OpenTransactions> {
    let snapshot = fs::read(directory.join(file_name(base_offset, FileKind::Snapshot))).ok();
    if let Some(producers) = snapshot.and_then(|bytes| decode_snapshot(&bytes).ok()) {
        return Ok(OpenTransactions::of(&producers));
    }
    let mut open = OpenTransactions::default();
    for base in crate::dump::inputs::Listing::of(directory)?.segments().into_iter().filter(|base| *base < base_offset) {
        headers(&directory.join(file_name(base, FileKind::Log)), base, |_, header, batch| {
            open.push(header, ControlRecord::of_batch(header, batch));
        })?;
    }
    Ok(open)
}
