//! Putting a compacted segment in the place of those that it was made of, safe at any crash point (Kafka:
//! `UnifiedLog.replaceSegments`, `LogLoader`).
//!
//! ```text
//! 1. cleaning/7/B.{index,timeindex,txnindex}.cleaned  ->  orders-0/B.{…}.swap    both directories flushed
//! 2. cleaning/7/B.log.cleaned                         ->  orders-0/B.log.swap    directory flushed: this is the commit
//! 3. the other segments of the group are removed                                 directory flushed
//! 4. B.{…}.swap -> B.{…}                                                         directory flushed
//! 5. B.log.swap -> B.log                                                         directory flushed
//! ```
//! A start that finds `B.log.swap` goes on with step 3, as often as it takes; one that finds other `.swap` files without it
//! removes them: then the old segments are all there. In step 3 a start knows only the offsets that the new segment still
//! has; an old segment above those may stay. Nothing in it is needed any more, and the next round cleans it. Nor does it show aborted records,
//! though its `.txnindex`, or that of a later one, may be gone: their marker lies behind them, and the new segment still has it.

use super::{
    directory::{PartitionFiles, remove_segment},
    names::{FileKind, file_name, parse_file_name},
    walk::Walk,
};
use crate::{
    batch::Scanner,
    disk::{Disk, Open},
};
use std::{io, path::Path};

/// The ending of a file that waits to take its place.
pub(super) const SWAP: &str = ".swap";
/// The ending of a file that may never take it.
pub(super) const CLEANED: &str = ".cleaned";

pub(super) fn waiting(base_offset: i64, kind: FileKind) -> String {
    format!("{}{SWAP}", file_name(base_offset, kind))
}

/// The name of a file that a cleaning writes.
#[must_use]
pub fn cleaned_name(base_offset: i64, kind: FileKind) -> String {
    format!("{}{CLEANED}", file_name(base_offset, kind))
}

/// Steps 1 and 2. Whatever fails before the log's own renaming can be taken back by [`recover`] without a change.
///
/// # Errors
/// The disk's, and whether the log was renamed already: then only a start can tell what counts.
pub async fn commit<D: Disk>(disk: &D, scratch: &Path, directory: &Path, base_offset: i64) -> Result<(), (io::Error, bool)> {
    let before = |error| (error, false);
    for kind in FileKind::INDEXES {
        let (from, to) = (scratch.join(cleaned_name(base_offset, kind)), directory.join(waiting(base_offset, kind)));
        disk.rename(&from, &to).await.map_err(before)?;
    }
    // The scratch directory too: a rename is durable when both of its directories are.
    disk.sync_dir(scratch).await.map_err(before)?;
    disk.sync_dir(directory).await.map_err(before)?;
    let (from, to) = (scratch.join(cleaned_name(base_offset, FileKind::Log)), directory.join(waiting(base_offset, FileKind::Log)));
    disk.rename(&from, &to).await.map_err(before)?;
    let after = |error| (error, true);
    disk.sync_dir(scratch).await.map_err(after)?;
    disk.sync_dir(directory).await.map_err(after)
}

/// Steps 3 to 5. It may be repeated.
///
/// # Errors
/// The disk's.
pub async fn complete<D: Disk>(disk: &D, directory: &Path, base_offset: i64, others: &[i64]) -> io::Result<()> {
    for other in others {
        remove_segment(disk, directory, *other).await?;
    }
    disk.sync_dir(directory).await?;
    for kind in FileKind::INDEXES {
        take_place(disk, directory, base_offset, kind).await?;
    }
    disk.sync_dir(directory).await?;
    take_place(disk, directory, base_offset, FileKind::Log).await?;
    disk.sync_dir(directory).await?;
    drop_empty(disk, directory, base_offset).await;
    Ok(())
}

/// A segment without aborted transactions has no `.txnindex`. An empty one says the same, so one that can't be removed is no
/// reason to fail.
pub(super) async fn drop_empty<D: Disk>(disk: &D, directory: &Path, base_offset: i64) {
    let transactions = directory.join(file_name(base_offset, FileKind::TxnIndex));
    if let Ok(file) = disk.open(&transactions, Open::Existing).await
        && disk.size(&file).await.is_ok_and(|bytes| bytes == 0)
    {
        let _ = disk.remove(&transactions).await;
    }
}

async fn take_place<D: Disk>(disk: &D, directory: &Path, base_offset: i64, kind: FileKind) -> io::Result<()> {
    match disk.rename(&directory.join(waiting(base_offset, kind)), &directory.join(file_name(base_offset, kind))).await {
        // It has taken its place before.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Finishes or takes back what a crash has cut short in a directory. `active` is the base offset of the segment that is
/// written to: it is never touched. True if there was something.
///
/// # Errors
/// The disk's: it may be repeated.
pub async fn recover<D: Disk>(disk: &D, directory: &Path, active: i64) -> io::Result<bool> {
    let files = PartitionFiles::list(disk, directory).await?;
    let swaps = |name: &String| name.ends_with(SWAP) || name.ends_with(CLEANED);
    if !files.set_aside.iter().any(swaps) {
        return Ok(false);
    }
    let committed = files.set_aside.iter().filter_map(|name| parse_file_name(name.strip_suffix(SWAP)?));
    for (base_offset, _) in committed.filter(|(base, kind)| *kind == FileKind::Log && *base < active) {
        let end = next_offset(disk, directory, base_offset).await?.min(active);
        let bases = files.segments.iter().map(|segment| segment.base_offset);
        let others: Vec<i64> = bases.filter(|base| *base > base_offset && *base < end).collect();
        tracing::info!("{}: the compacted segment at {base_offset} takes its place", directory.display());
        complete(disk, directory, base_offset, &others).await?;
    }
    for name in PartitionFiles::list(disk, directory).await?.set_aside.into_iter().filter(swaps) {
        disk.remove(&directory.join(name)).await?;
    }
    disk.sync_dir(directory).await?;
    Ok(true)
}

/// The offset behind the last batch of a compacted segment that waits.
pub(super) async fn next_offset<D: Disk>(disk: &D, directory: &Path, base_offset: i64) -> io::Result<i64> {
    let path = directory.join(waiting(base_offset, FileKind::Log));
    let bytes = disk.size(&disk.open(&path, Open::Existing).await?).await?;
    let reader = disk.open_reader(&path).await?;
    let mut walk = Walk::new(disk, &reader, Scanner::new(0, base_offset, i32::MIN), bytes);
    while walk.next_header().await?.is_ok() {}
    Ok(walk.scanner().next_offset)
}
