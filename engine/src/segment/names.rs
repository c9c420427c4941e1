//! Kafka's file names: a segment's files are named after its first offset, a partition's directory after its topic. What is taken out
//! of these, or set aside, has names that no broker reads.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

/// The kinds of a segment's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// `.log`: the batches.
    Log,
    /// `.index`: offsets to positions.
    Index,
    /// `.timeindex`: timestamps to offsets.
    TimeIndex,
    /// `.txnindex`: aborted transactions.
    TxnIndex,
    /// `.snapshot`: the producers as of the base offset.
    Snapshot,
}

impl FileKind {
    /// All of them.
    pub const ALL: [FileKind; 5] = [FileKind::Log, FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex, FileKind::Snapshot];

    /// Its indexes.
    pub const INDEXES: [FileKind; 3] = [FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex];

    /// The suffix, without its dot.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            FileKind::Log => "log",
            FileKind::Index => "index",
            FileKind::TimeIndex => "timeindex",
            FileKind::TxnIndex => "txnindex",
            FileKind::Snapshot => "snapshot",
        }
    }
}

/// Where a partition's leader epochs begin.
pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
/// Whose partition a directory is.
pub const PARTITION_METADATA: &str = "partition.metadata";
/// Digits of a base offset in a file name.
const DIGITS: usize = 20;
/// What the name of a file or directory may have, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// `00000000000000000042.log`.
#[must_use]
pub fn file_name(base_offset: i64, kind: FileKind) -> String {
    format!("{base_offset:0DIGITS$}.{}", kind.suffix())
}

/// Base offset and kind of a segment's file; `None` for every other name.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<(i64, FileKind)> {
    let (base, suffix) = name.split_once('.')?;
    if base.len() != DIGITS || !base.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kind = FileKind::ALL.into_iter().find(|kind| kind.suffix() == suffix)?;
    Some((base.parse().ok()?, kind))
}

/// `orders-3`.
#[must_use]
pub fn directory_name(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// Topic and partition of a directory; `None` for those that Kafka has set aside (`-delete`, `-stray`, `-future`) and
/// every other name.
#[must_use]
pub fn parse_directory_name(name: &str) -> Option<(&str, i32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    if topic.is_empty() || partition.is_empty() || !partition.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((topic, partition.parse().ok()?))
}

/// Where what is taken out of a file is kept, in the order in which to look for a free place: `FILE.removed`, or
/// `FILE.removed-2909-3019` for the bytes of a range, and then the same with `.1`, `.2`, … behind.
pub fn removed_paths(file: &Path, range: Option<Range<u64>>) -> impl Iterator<Item = PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let bytes = range.map(|range| format!("-{}-{}", range.start, range.end)).unwrap_or_default();
    let name = format!("{name}.removed{bytes}");
    (0u64..).map(move |number| file.with_file_name(if number == 0 { name.clone() } else { format!("{name}.{number}") }))
}

/// Names of a directory that is set aside, in the order in which to look for a free one: `DIRECTORY.ID-stray`, as a Kafka gives them, and
/// then `DIRECTORY.ID.1-stray`. A directory's name is cut to what fits: that of a topic may have nearly as much.
pub fn stray_names(directory: &str, id: &str) -> impl Iterator<Item = String> {
    (0u64..).map(move |number| {
        let end = if number == 0 { format!(".{id}-stray") } else { format!(".{id}.{number}-stray") };
        let room = NAME_BYTES_MAX.saturating_sub(end.len()).min(directory.len());
        let cut = (0..=room).rev().find(|at| directory.is_char_boundary(*at)).unwrap_or(0);
        directory[..cut].to_owned() + &end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        for kind in FileKind::ALL {
            let name = file_name(1_234, kind);
            assert_eq!(parse_file_name(&name), Some((1_234, kind)));
        }
        assert_eq!(file_name(0, FileKind::Log), "00000000000000000000.log");
        assert_eq!(directory_name("a-b", 7), "a-b-7");
        assert_eq!(parse_directory_name("a-b-7"), Some(("a-b", 7)));
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in ["0.log", "00000000000000000000.log.deleted", "00000000000000000000.log.swap", "+0000000000000000001.log", "x", ""] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
        // 20 digits can say more than an offset can be.
        assert_eq!(parse_file_name("99999999999999999999.log"), None);
        for name in ["t-0.2f3a-delete", "t-1.abc-stray", "meta.properties", "-1", "t--", "t-99999999999"] {
            assert_eq!(parse_directory_name(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_taken_out_or_set_aside_has_names_that_nobody_reads() {
        let file = Path::new("/data/t-0/00000000000000000042.log");
        let paths: Vec<PathBuf> = removed_paths(file, Some(2_909..3_019)).take(2).chain(removed_paths(file, None).take(1)).collect();
        let expected = ["removed-2909-3019", "removed-2909-3019.1", "removed"];
        assert_eq!(paths, expected.map(|end| file.with_extension(format!("log.{end}"))));
        assert!(paths.iter().all(|path| parse_file_name(&path.file_name().unwrap_or_default().to_string_lossy()).is_none()));
        assert_eq!(stray_names("t-1", "abc").take(2).collect::<Vec<_>>(), ["t-1.abc-stray", "t-1.abc.1-stray"]);
        let long = "é".repeat(124) + "-1";
        let names: Vec<String> = stray_names(&long, "abc").take(2).collect();
        assert!(names.iter().all(|name| name.len() <= NAME_BYTES_MAX && parse_directory_name(name).is_none()), "{names:?}");
    }
}
