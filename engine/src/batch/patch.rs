//! What an append changes in a batch: base offset and leader epoch, and the timestamps where the topic wants it.

use super::header::{CRC_FROM, HEADER_BYTES, Header};

/// What to write into a batch's header on append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The offset of its first record.
    pub base_offset: i64,
    /// The leader epoch.
    pub leader_epoch: i32,
    /// The maximum timestamp in ms: the broker's time with LogAppendTime, else what [`super::validate`] found.
    pub max_timestamp: i64,
    /// The topic has LogAppendTime.
    pub log_append_time: bool,
}

/// The header of `batch` (one whole, valid batch) after `patch`. The CRC is computed anew only if something that it
/// covers has changed. The bytes from [`HEADER_BYTES`] on stay as they are.
#[must_use]
pub fn patched_header(batch: &[u8], patch: &Patch) -> [u8; HEADER_BYTES] {
    let mut header = Header::read(batch).expect("a whole batch");
    header.base_offset = patch.base_offset.into();
    header.leader_epoch = patch.leader_epoch.into();
    if header.max_timestamp() == patch.max_timestamp && header.is_log_append_time() == patch.log_append_time {
        return header.to_bytes();
    }
    header.max_timestamp = patch.max_timestamp.into();
    header.set_timestamp_type(patch.log_append_time);
    let crc = crc32c::crc32c(&header.to_bytes()[CRC_FROM..]);
    header.crc = crc32c::crc32c_append(crc, &batch[HEADER_BYTES..]).into();
    header.to_bytes()
}

/// Appends `batch`, patched, to `out`.
pub fn copy_patched(batch: &[u8], patch: &Patch, out: &mut Vec<u8>) {
    out.extend_from_slice(&patched_header(batch, patch));
    out.extend_from_slice(&batch[HEADER_BYTES..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, crc};

    fn batch() -> Vec<u8> {
        BatchBuilder::new().record(1_000, Some(b"key"), Some(b"value")).record(1_005, None, None).build()
    }

    #[test]
    fn offset_and_epoch_leave_the_crc_alone() {
        let batch = batch();
        let mut out = vec![9];
        copy_patched(&batch, &Patch { base_offset: 42, leader_epoch: 7, max_timestamp: 1_005, log_append_time: false }, &mut out);
        let header = Header::read(&out[1..]).expect("whole");
        assert_eq!((header.base_offset(), header.leader_epoch(), header.last_offset()), (42, 7, 43));
        assert_eq!(out[1 + 16..], batch[16..]);
    }

    #[test]
    fn log_append_time_rewrites_timestamp_and_crc() {
        let batch = batch();
        let mut out = Vec::new();
        copy_patched(&batch, &Patch { base_offset: 0, leader_epoch: 0, max_timestamp: 5_000, log_append_time: true }, &mut out);
        let header = Header::read(&out).expect("whole");
        assert!(header.is_log_append_time());
        assert_eq!(header.max_timestamp(), 5_000);
        assert_eq!(header.crc(), crc(&out));
        assert_ne!(crc(&out), crc(&batch));
    }
}
