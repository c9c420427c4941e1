//! Putting a compacted segment in its place in a directory that a Kafka starts on next, whatever has happened until then
//! (Kafka: `UnifiedLog.replaceSegments`, `LogLoader.load`).
//!
//! A Kafka knows a swap by names alone: as long as there is a `.cleaned`, nothing from its offset on has happened; without one,
//! every `.swap` takes its place, an index also without its log. So the order is not that of [`super::swap`], whose indexes come first:
//!
//! ```text
//! 1. cleaning/B.{log,index,timeindex,txnindex}.cleaned  ->  orders-0/B.{…}.cleaned   both directories flushed
//! 2. B.{…}.cleaned  ->  B.{…}.swap                                                   the last of them is the commit; flushed
//! 3. the other segments of the group, and what B was, are removed                    flushed
//! 4. B.log.swap  ->  B.log, then the others                                          flushed
//! ```

use super::{
    directory::{PartitionFiles, remove_segment},
    names::{FileKind, file_name, parse_file_name},
    swap::{CLEANED, SWAP, cleaned_name, drop_empty, next_offset, waiting},
};
use crate::disk::Disk;
use std::{io, path::Path};

/// A segment's files, in the order in which they are renamed.
const FILES: [FileKind; 4] = [FileKind::Log, FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex];

/// Puts the segment that a cleaning has left in `scratch` in the place of those with the base offsets `bases`, the first of which
/// is its own.
///
/// # Errors
/// The disk's: [`recover`], or that Kafka's start, takes it back or finishes it.
pub async fn replace<D: Disk>(disk: &D, scratch: &Path, directory: &Path, bases: &[i64]) -> io::Result<()> {
    let [base_offset, others @ ..] = bases else { return Ok(()) };
    for kind in FILES {
        let name = cleaned_name(*base_offset, kind);
        disk.rename(&scratch.join(&name), &directory.join(&name)).await?;
    }
    disk.sync_dir(scratch).await?;
    disk.sync_dir(directory).await?;
    for kind in FILES {
        disk.rename(&directory.join(cleaned_name(*base_offset, kind)), &directory.join(waiting(*base_offset, kind))).await?;
    }
    disk.sync_dir(directory).await?;
    // All of them, also those whose offsets the new one does not reach any more: no start could tell these.
    for other in others {
        remove_segment(disk, directory, *other).await?;
    }
    recover(disk, directory).await?;
    drop_empty(disk, directory, *base_offset).await;
    Ok(())
}

/// Finishes, or takes back, what was cut short in a directory, as a Kafka's start does.
///
/// # Errors
/// The disk's: it may be repeated.
pub async fn recover<D: Disk>(disk: &D, directory: &Path) -> io::Result<()> {
    let files = PartitionFiles::list(disk, directory).await?;
    let named = |ending: &'static str| {
        let parse = move |name: &String| parse_file_name(name.strip_suffix(ending)?);
        files.set_aside.iter().filter_map(parse).collect::<Vec<_>>()
    };
    let (cleaned, swaps) = (named(CLEANED), named(SWAP));
    let first_cleaned = cleaned.iter().map(|(base, _)| *base).min().unwrap_or(i64::MAX);
    let (mut valid, invalid): (Vec<_>, Vec<_>) = swaps.into_iter().partition(|(base, _)| *base < first_cleaned);
    // What was not committed goes before the sign that it was not.
    for (base, kind) in invalid {
        disk.remove(&directory.join(waiting(base, kind))).await?;
    }
    disk.sync_dir(directory).await?;
    for (base, kind) in cleaned {
        disk.remove(&directory.join(cleaned_name(base, kind))).await?;
    }
    for (base, _) in valid.iter().filter(|(_, kind)| *kind == FileKind::Log) {
        let end = next_offset(disk, directory, *base).await?;
        for segment in files.segments.iter().filter(|segment| (base + 1..end).contains(&segment.base_offset)) {
            remove_segment(disk, directory, segment.base_offset).await?;
        }
    }
    disk.sync_dir(directory).await?;
    valid.sort_by_key(|(base, kind)| (*kind != FileKind::Log, *base));
    for (base, kind) in valid {
        disk.rename(&directory.join(waiting(base, kind)), &directory.join(file_name(base, kind))).await?;
    }
    disk.sync_dir(directory).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::BatchBuilder,
        disk::{
            sim::{Executor, SimDisk},
            write_whole,
        },
    };
    use std::path::PathBuf;

    /// Segments of one batch each; of a log the indexes say which one they are of.
    fn files(name: impl Fn(i64, FileKind) -> String, bases: &[i64], word: &str) -> Vec<(String, Vec<u8>)> {
        let of = |base: i64| {
            let log = BatchBuilder::new().at(base, 0).record(1, None, Some(word.as_bytes())).build();
            FILES.map(|kind| (name(base, kind), if kind == FileKind::Log { log.clone() } else { word.as_bytes().to_vec() }))
        };
        bases.iter().flat_map(|base| of(*base)).collect()
    }

    /// Which segments there are, and what is in the files of the first one.
    fn seen(disk: &SimDisk, directory: &Path) -> (Vec<i64>, Vec<Option<Vec<u8>>>) {
        let mut bases: Vec<i64> = disk.names(directory).iter().filter_map(|name| parse_file_name(name)).map(|(base, _)| base).collect();
        bases.sort_unstable();
        bases.dedup();
        (bases, FILES.map(|kind| disk.peek(&directory.join(file_name(10, kind)))).to_vec())
    }

    #[test]
    fn whatever_a_crash_leaves_is_the_old_log_or_the_new_one_with_its_own_indexes() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..600 {
            let [data, directory, scratch] = ["/data", "/data/table-0", "/data/table-0/scratch"].map(PathBuf::from);
            let disk = SimDisk::new(seed, &[&data, &directory, &scratch]);
            let mut executor = Executor::new(&disk, seed);
            let (there, cleaned) = (files(file_name, &[10, 20, 30], "old"), files(cleaned_name, &[10], "new"));
            executor.block_on({
                let (disk, directory, scratch) = (disk.clone(), directory.clone(), scratch.clone());
                async move {
                    for (place, files) in [(&directory, there), (&scratch, cleaned)] {
                        for (name, bytes) in files {
                            write_whole(&disk, &place.join(name), &bytes).await.expect("writes");
                        }
                    }
                }
            });
            let before = seen(&disk, &directory);
            let work = executor.spawn({
                let (disk, directory, scratch) = (disk.clone(), directory.clone(), scratch.clone());
                async move { replace(&disk, &scratch, &directory, &[10, 20]).await }
            });
            let steps = seed % 60;
            for _ in 0..steps {
                if work.take().is_some() || !executor.step() {
                    break;
                }
            }
            drop((work, executor));
            disk.crash();
            let mut executor = Executor::new(&disk, seed);
            executor
                .block_on({
                    let (disk, directory) = (disk.clone(), directory.clone());
                    async move { recover(&disk, &directory).await }
                })
                .expect("recovers");
            let after = seen(&disk, &directory);
            if after == before {
                old += 1;
                continue;
            }
            new += 1;
            assert!(after.0 == [10, 30] || after.0 == [10, 20, 30], "seed {seed}: {:?}", after.0);
            let all_new = after.1[1..].iter().all(|file| file.as_deref() == Some(b"new")) && after.1[0] != before.1[0];
            assert!(all_new, "seed {seed}: {:?}", after.1);
        }
        assert!(old > 50 && new > 50, "{old} {new}");
    }
}
