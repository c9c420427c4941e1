//! What lies in a data directory of Kafka's beside the partitions: its names, and the checkpoints, which are all of one format.

use crate::segment::FormatError;

/// Its mark of a clean stop.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Whose directory it is: the cluster and the node.
pub const META_PROPERTIES: &str = "meta.properties";
/// The topic of a KRaft cluster's own metadata.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";
/// The first offset of each partition.
pub const LOG_START_CHECKPOINT: &str = "log-start-offset-checkpoint";
/// Up to where each partition is flushed.
pub const RECOVERY_POINT_CHECKPOINT: &str = "recovery-point-offset-checkpoint";
/// Each partition's high watermark.
pub const REPLICATION_CHECKPOINT: &str = "replication-offset-checkpoint";
/// Up to where each partition is compacted.
pub const CLEANER_CHECKPOINT: &str = "cleaner-offset-checkpoint";

/// The offsets of a checkpoint by topic and partition: `0`, the count, then `topic partition offset` a line. A Kafka to which one
/// is damaged goes on as if it were empty.
///
/// # Errors
/// [`FormatError`].
pub fn decode_offsets(bytes: &[u8]) -> Result<Vec<(&str, i32, i64)>, FormatError> {
    let text = str::from_utf8(bytes).map_err(|error| FormatError::Malformed(format!("byte {}", error.valid_up_to())))?;
    let mut lines = text.lines();
    match lines.next() {
        Some("0") => {}
        // A broker that was just started for the first time creates it empty.
        None => return Ok(Vec::new()),
        Some(other) => return Err(FormatError::Version(other.chars().take(20).collect())),
    }
    let count = lines.next().and_then(|line| line.parse::<usize>().ok());
    let mut entries = Vec::new();
    for (at, line) in lines.enumerate() {
        let mut fields = line.rsplitn(3, ' ');
        let mut entry = || {
            let offset = fields.next()?.parse().ok()?;
            let partition = fields.next()?.parse().ok()?;
            Some((fields.next()?, partition, offset))
        };
        entries.push(entry().ok_or_else(|| FormatError::Malformed(format!("entry {at}")))?);
    }
    if Some(entries.len()) == count { Ok(entries) } else { Err(FormatError::Malformed("its count".to_owned())) }
}

/// A checkpoint with these offsets.
#[must_use]
pub fn encode_offsets<'a>(entries: impl ExactSizeIterator<Item = (&'a str, i32, i64)>) -> String {
    let count = entries.len();
    let lines: String = entries.map(|(topic, partition, offset)| format!("{topic} {partition} {offset}\n")).collect();
    format!("0\n{count}\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_kafkas_text_and_one_that_is_damaged_says_where() {
        let entries = [("orders", 0, 17), ("orders", 11, 4)];
        let text = "0\n2\norders 0 17\norders 11 4\n";
        assert_eq!(encode_offsets(entries.into_iter()), text);
        assert_eq!(decode_offsets(text.as_bytes()).as_deref(), Ok(&entries[..]));
        assert_eq!((decode_offsets(b""), decode_offsets(b"0\n0\n")), (Ok(Vec::new()), Ok(Vec::new())));
        for (text, at) in [
            (&b"1\n0\n"[..], "version 1 is unknown"),
            (&b"0\n2\norders 0 17\n"[..], "it is malformed at its count"),
            (&b"0\n1\norders 0\n"[..], "it is malformed at entry 0"),
            (&b"0\n1\norders 0 \xff\n"[..], "it is malformed at byte 13"),
        ] {
            assert_eq!(decode_offsets(text).map_err(|error| error.to_string()), Err(at.to_owned()));
        }
    }
}
