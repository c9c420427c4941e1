//! What the segments of a partition take, with their indexes.

use anyhow::{Context, Result};
use engine::{
    disk::Disk,
    partition::Recovered,
    segment::{FileKind, file_name},
};
use std::{collections::BTreeMap, path::Path};

/// Digits of a base offset in the name of a file.
const OFFSET_DIGITS: usize = 20;

/// What the segments of a partition take on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes of all their files.
    pub(crate) bytes: u64,
    /// How many there are.
    pub(crate) segments: u64,
}

/// Where a start has found the end of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The active segment.
    base_offset: i64,
    /// Where its bytes end, if the start has looked.
    scanned: Option<u64>,
    /// Up to where they were flushed.
    flushed: u64,
}

impl End {
    pub(crate) fn of(recovered: &Recovered) -> End {
        End {
            base_offset: recovered.line.segment_base,
            scanned: recovered.scanned.as_ref().map(|scanned| scanned.end_position.into()),
            flushed: recovered.line.flushed.into(),
        }
    }
}

/// The files of a partition's segments, with their bytes: logs and indexes, also under the names that a swap gives them; not
/// checkpoints, which every stop writes anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(BTreeMap<String, u64>);

impl Files {
    pub(crate) async fn list<D: Disk>(disk: &D, directory: &Path) -> Result<Files> {
        let entries = match disk.list(directory).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            entries => entries.with_context(|| format!("can't list {}", directory.display()))?,
        };
        let files = entries.into_iter().filter(|entry| !entry.is_dir && base_of(&entry.name).is_some());
        Ok(Files(files.map(|entry| (entry.name, entry.bytes)).collect()))
    }

    pub(crate) fn size(&self) -> Size {
        Size { bytes: self.0.values().sum(), segments: self.0.keys().filter(|name| name.ends_with(".log")).count() as u64 }
    }

    /// As they would be had the broker been stopped cleanly: of a killed one, the active segment has space in reserve, and bytes and
    /// indexes that are elsewhere. `after` is what the stop has made of it.
    pub(crate) fn settled(&self, end: &End, after: &Files) -> Size {
        let active = end.base_offset;
        let Some(allocated) = self.0.get(&file_name(active, FileKind::Log)) else { return self.size() };
        let log = end.scanned.unwrap_or(end.flushed.min(*allocated));
        // Where compaction has put another log in its place, the indexes are that one's.
        let is_there = after.0.get(&file_name(active, FileKind::Log)) == Some(&log);
        let of_indexes = if is_there { after } else { self };
        let indexes: u64 = FileKind::INDEXES.iter().filter_map(|kind| of_indexes.0.get(&file_name(active, *kind))).sum();
        // What lies behind the active segment was never acked: a start removes it.
        let sealed = self.0.iter().filter(|(name, _)| base_of(name) < Some(active));
        let sealed = Files(sealed.map(|(name, bytes)| (name.clone(), *bytes)).collect()).size();
        Size { bytes: sealed.bytes + log + indexes, segments: sealed.segments + 1 }
    }
}

/// The base offset in the name of a segment's file; `None` of others.
fn base_of(name: &str) -> Option<i64> {
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    (digits == OFFSET_DIGITS && !name.ends_with(".snapshot")).then(|| name[..digits].parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(i64, FileKind, u64)]) -> Files {
        Files(entries.iter().map(|(base, kind, bytes)| (file_name(*base, *kind), *bytes)).collect())
    }

    #[test]
    fn what_a_killed_broker_had_in_reserve_is_not_counted_and_what_was_in_its_journal_is() {
        let end = End { base_offset: 10, scanned: Some(5000), flushed: 4096 };
        let killed = files(&[(0, FileKind::Log, 300), (0, FileKind::Index, 8), (10, FileKind::Log, 262_144), (30, FileKind::Log, 4096)]);
        let stopped = files(&[(0, FileKind::Log, 300), (0, FileKind::Index, 8), (10, FileKind::Log, 5000), (10, FileKind::TimeIndex, 12)]);
        assert_eq!(killed.settled(&end, &stopped), stopped.size());
        assert_eq!(killed.settled(&end, &files(&[])), Size { bytes: 5308, segments: 2 });
        let compacted = files(&[(10, FileKind::Log, 700), (10, FileKind::TimeIndex, 0)]);
        assert_eq!(killed.settled(&end, &compacted), Size { bytes: 5308, segments: 2 });
        let small = files(&[(10, FileKind::Log, 0)]);
        assert_eq!(small.settled(&end, &files(&[(10, FileKind::Log, 5000)])).bytes, 5000);
    }
}
