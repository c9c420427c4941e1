//! Kafka's RecordBatch v2, as it travels and as it is stored: header, validation, patching, records, scanning.
//!
//! The log never changes a batch but for its base offset and leader epoch (and, with LogAppendTime or a wrong maximum
//! timestamp, the timestamp fields and the CRC). So this module reads batches in place; only tests, tools, the groups
//! and the catalog build them.

mod builder;
mod codec;
mod header;
mod patch;
mod records;
mod rewrite;
mod scan;
mod validate;
mod varint;

pub use builder::{BatchBuilder, control_batch};
pub use codec::{Codec, DECOMPRESSED_BYTES_MAX, compress, decompress};
pub use header::{
    BASE_OFFSET_AT, BATCH_LENGTH_MIN, CRC_AT, CRC_FROM, HEADER_BYTES, Header, LEADER_EPOCH_AT, LENGTH_END, MAGIC, MAGIC_AT, NO_PRODUCER,
    NO_TIMESTAMP, crc, sequence_after,
};
pub use patch::{Patch, copy_patched, patched_header};
pub use records::{ControlRecord, Headers, Record, RecordError, Records, payload};
pub use rewrite::{Kept, with_records, without_records};
pub use scan::{Scan, Scanner, Step, Stop, scan};
pub use validate::{BatchError, Checked, Rules, validate};
