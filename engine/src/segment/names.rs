//! Kafka's file names: a segment's files are named after its first offset, a partition's directory after its topic.

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
}
