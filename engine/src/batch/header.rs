//! The 61 bytes before a batch's records, all big-endian (Kafka: `DefaultRecordBatch`).

use super::Codec;
use std::fmt;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::big_endian::{I16, I32, I64, U32},
};

/// The size of a header in bytes.
pub const HEADER_BYTES: usize = 61;
/// Where the length field ends: it counts the bytes from here on.
pub const LENGTH_END: usize = 12;
/// The smallest valid length field: a header without records.
pub const BATCH_LENGTH_MIN: i32 = (HEADER_BYTES - LENGTH_END) as i32;
/// Where the base offset is, 8 bytes.
pub const BASE_OFFSET_AT: usize = 0;
/// Where the leader epoch is, 4 bytes.
pub const LEADER_EPOCH_AT: usize = 12;
/// Where the magic byte is.
pub const MAGIC_AT: usize = 16;
/// Where the CRC is, 4 bytes.
pub const CRC_AT: usize = 17;
/// The first byte that the CRC covers: base offset, length and leader epoch lie outside.
pub const CRC_FROM: usize = 21;
/// The only message format that is written and served.
pub const MAGIC: i8 = 2;
/// The producer id of a batch without idempotence.
pub const NO_PRODUCER: i64 = -1;
/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

const CODEC_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;

/// A batch's header. Reading one checks nothing: see [`super::validate`] and [`super::Scanner`].
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    pub(super) base_offset: I64,
    pub(super) length: I32,
    pub(super) leader_epoch: I32,
    pub(super) magic: i8,
    pub(super) crc: U32,
    pub(super) attributes: I16,
    pub(super) last_offset_delta: I32,
    pub(super) base_timestamp: I64,
    pub(super) max_timestamp: I64,
    pub(super) producer_id: I64,
    pub(super) producer_epoch: I16,
    pub(super) base_sequence: I32,
    pub(super) record_count: I32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// The CRC-32C that belongs into the header of `batch`, which must be one whole batch.
#[must_use]
pub fn crc(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[CRC_FROM..])
}

impl Header {
    /// The header at the front of `bytes`; `None` if they are shorter than one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Header> {
        Header::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Its 61 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(self.as_bytes());
        bytes
    }

    /// The offset of its first record, or of the one that compaction removed.
    #[must_use]
    pub fn base_offset(&self) -> i64 {
        self.base_offset.get()
    }

    /// The offset of its last record. It saturates; a valid batch does not reach the limit.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset().saturating_add(i64::from(self.last_offset_delta()))
    }

    /// The offset behind its last record.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The raw length field: bytes behind it.
    #[must_use]
    pub fn length(&self) -> i32 {
        self.length.get()
    }

    /// The whole batch in bytes, header included; 0 if the length field is below a header's.
    #[must_use]
    pub fn size(&self) -> usize {
        if self.length() < BATCH_LENGTH_MIN { 0 } else { self.length() as usize + LENGTH_END }
    }

    /// The epoch of the leader that appended it.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.get()
    }

    /// The message format.
    #[must_use]
    pub fn magic(&self) -> i8 {
        self.magic
    }

    /// The CRC-32C of everything from the attributes on.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc.get()
    }

    /// The raw attribute bits.
    #[must_use]
    pub fn attributes(&self) -> i16 {
        self.attributes.get()
    }

    /// The compression; the raw number if it is none that Kafka knows.
    ///
    /// # Errors
    /// The unknown number.
    pub fn codec(&self) -> Result<Codec, i16> {
        let id = self.attributes() & CODEC_MASK;
        Codec::of_id(id).ok_or(id)
    }

    /// True if the timestamp is the broker's (`message.timestamp.type=LogAppendTime`).
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME != 0
    }

    /// True if it belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    /// True if it holds a control record: the end of a transaction, or the like.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    /// When compaction may drop its tombstones, in ms; it then takes the place of the base timestamp.
    #[must_use]
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes() & DELETE_HORIZON != 0).then(|| self.base_timestamp())
    }

    /// Last offset minus first offset.
    #[must_use]
    pub fn last_offset_delta(&self) -> i32 {
        self.last_offset_delta.get()
    }

    /// What record timestamps count from, in ms.
    #[must_use]
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp.get()
    }

    /// The newest timestamp in ms, -1 if there is none.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp.get()
    }

    /// The idempotent producer, -1 if there is none.
    #[must_use]
    pub fn producer_id(&self) -> i64 {
        self.producer_id.get()
    }

    /// True if it comes from an idempotent producer.
    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer_id() > NO_PRODUCER
    }

    /// The producer's epoch, -1 if there is none.
    #[must_use]
    pub fn producer_epoch(&self) -> i16 {
        self.producer_epoch.get()
    }

    /// The sequence of its first record, -1 if there is none.
    #[must_use]
    pub fn base_sequence(&self) -> i32 {
        self.base_sequence.get()
    }

    /// The sequence of its last record: after `i32::MAX` comes 0. -1 if there is none.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence() < 0 { -1 } else { sequence_after(self.base_sequence(), self.last_offset_delta()) }
    }

    /// How many records it holds.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.record_count.get()
    }

    pub(super) fn set_timestamp_type(&mut self, log_append_time: bool) {
        let bits = self.attributes() & !LOG_APPEND_TIME;
        self.attributes = (if log_append_time { bits | LOG_APPEND_TIME } else { bits }).into();
    }

    pub(super) fn set_delete_horizon(&mut self, is_set: bool) {
        let bits = self.attributes() & !DELETE_HORIZON;
        self.attributes = (if is_set { bits | DELETE_HORIZON } else { bits }).into();
    }

    pub(super) fn flags(codec: Codec, transactional: bool, control: bool) -> i16 {
        codec.id() | if transactional { TRANSACTIONAL } else { 0 } | if control { CONTROL } else { 0 }
    }
}

/// `sequence` plus `count`: after `i32::MAX` comes 0 (Kafka: `DefaultRecordBatch.incrementSequence`).
#[must_use]
pub fn sequence_after(sequence: i32, count: i32) -> i32 {
    (i64::from(sequence) + i64::from(count)).rem_euclid(1 << 31) as i32
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("offsets", &(self.base_offset()..=self.last_offset()))
            .field("length", &self.length())
            .field("leader_epoch", &self.leader_epoch())
            .field("magic", &self.magic())
            .field("crc", &self.crc())
            .field("attributes", &self.attributes())
            .field("timestamps", &(self.base_timestamp()..=self.max_timestamp()))
            .field("producer", &(self.producer_id(), self.producer_epoch(), self.base_sequence()))
            .field("records", &self.record_count())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero_after_the_highest() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 2, 5), 2);
        assert_eq!(sequence_after(7, 0), 7);
    }

    #[test]
    fn fields_are_where_kafka_puts_them() {
        let mut bytes = [0u8; HEADER_BYTES];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8;
        }
        let header = Header::read(&bytes).expect("whole");
        assert_eq!(header.base_offset(), i64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(header.length(), i32::from_be_bytes([8, 9, 10, 11]));
        assert_eq!(header.leader_epoch(), i32::from_be_bytes([12, 13, 14, 15]));
        assert_eq!(header.magic(), 16);
        assert_eq!(header.crc(), u32::from_be_bytes([17, 18, 19, 20]));
        assert_eq!(header.attributes(), i16::from_be_bytes([21, 22]));
        assert_eq!(header.last_offset_delta(), i32::from_be_bytes([23, 24, 25, 26]));
        assert_eq!(header.base_timestamp(), i64::from_be_bytes([27, 28, 29, 30, 31, 32, 33, 34]));
        assert_eq!(header.max_timestamp(), i64::from_be_bytes([35, 36, 37, 38, 39, 40, 41, 42]));
        assert_eq!(header.producer_id(), i64::from_be_bytes([43, 44, 45, 46, 47, 48, 49, 50]));
        assert_eq!(header.producer_epoch(), i16::from_be_bytes([51, 52]));
        assert_eq!(header.base_sequence(), i32::from_be_bytes([53, 54, 55, 56]));
        assert_eq!(header.record_count(), i32::from_be_bytes([57, 58, 59, 60]));
        assert_eq!(header.to_bytes(), bytes);
        assert!(Header::read(&bytes[..60]).is_none());
    }
}
