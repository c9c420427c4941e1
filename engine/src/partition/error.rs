//! What can go wrong with one partition, each with where and what to do. The broker maps them to Kafka's error codes in one
//! table.

use super::producers::SequenceError;
use crate::{batch::BatchError, segment::SegmentError};
use std::{io, path::PathBuf};

/// An append was refused; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// This core does not own the partition.
    #[error("this core does not own the partition")]
    UnknownPartition,
    /// CORRUPT_MESSAGE: size or CRC is wrong.
    #[error("corrupt batch: {0}")]
    Corrupt(String),
    /// INVALID_RECORD: counts, offsets, keys, flags.
    #[error("invalid record: {0}")]
    InvalidRecord(String),
    /// UNSUPPORTED_FOR_MESSAGE_FORMAT: not magic 2.
    #[error("message format {0} is not supported; use format 2 (Kafka 0.11 or newer)")]
    UnsupportedFormat(i8),
    /// UNSUPPORTED_COMPRESSION_TYPE.
    #[error("compression type {0} is unknown")]
    UnsupportedCompression(i16),
    /// MESSAGE_TOO_LARGE.
    #[error("a batch of {bytes} bytes is above max.message.bytes {max}")]
    TooLarge {
        /// The batch.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// RECORD_LIST_TOO_LARGE: larger than a segment.
    #[error("a batch of {bytes} bytes is above segment.bytes {max}")]
    LargerThanSegment {
        /// The batch.
        bytes: usize,
        /// The bound.
        max: u64,
    },
    /// INVALID_TIMESTAMP.
    #[error("timestamp {0} is too far from the broker's clock")]
    InvalidTimestamp(i64),
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("sequence {got} of producer {producer} is not the expected {expected}")]
    OutOfOrderSequence {
        /// The producer's id.
        producer: i64,
        /// What came.
        got: i32,
        /// What is next.
        expected: i32,
    },
    /// INVALID_PRODUCER_EPOCH.
    #[error("epoch {got} of producer {producer} is below {current}")]
    InvalidProducerEpoch {
        /// The producer's id.
        producer: i64,
        /// What came.
        got: i16,
        /// What is current.
        current: i16,
    },
    /// Transactional batches come with the transaction coordinator (INVALID_TXN_STATE until then).
    #[error("transactions are not supported yet")]
    Transactional,
    /// KAFKA_STORAGE_ERROR: the partition is offline or the disk is full.
    #[error("storage: {0}")]
    Storage(String),
}

/// A read was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// This core does not own the partition.
    #[error("this core does not own the partition")]
    UnknownPartition,
    /// OFFSET_OUT_OF_RANGE.
    #[error("the offset is below the log start or above the log end")]
    OutOfRange,
    /// CORRUPT_MESSAGE: a batch on disk is damaged below the recovery point.
    #[error("{path} is corrupt at position {position}: {what}; see segment-dump")]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// The position in it, in bytes.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// KAFKA_STORAGE_ERROR.
    #[error("{path}: {source}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// The disk's word.
        source: io::Error,
    },
}

impl From<BatchError> for AppendError {
    fn from(error: BatchError) -> AppendError {
        match error {
            BatchError::Corrupt(what) => AppendError::Corrupt(what),
            BatchError::InvalidRecord(what) => AppendError::InvalidRecord(what),
            BatchError::UnsupportedFormat(magic) => AppendError::UnsupportedFormat(magic),
            BatchError::UnsupportedCompression(codec) => AppendError::UnsupportedCompression(codec),
            BatchError::TooLarge { bytes, max } => AppendError::TooLarge { bytes, max },
            BatchError::LargerThanSegment { bytes, max } => AppendError::LargerThanSegment { bytes, max },
            BatchError::InvalidTimestamp(timestamp) => AppendError::InvalidTimestamp(timestamp),
        }
    }
}

impl From<SegmentError> for ReadError {
    fn from(error: SegmentError) -> ReadError {
        match error {
            SegmentError::Disk { path, source } => ReadError::Storage { path, source },
            SegmentError::Corrupt { path, position, what } => ReadError::Corrupt { path, position, what },
        }
    }
}

impl From<SequenceError> for AppendError {
    fn from(error: SequenceError) -> AppendError {
        match error {
            SequenceError::OutOfOrder { producer, got, expected } => AppendError::OutOfOrderSequence { producer, got, expected },
            SequenceError::Epoch { producer, got, current } => AppendError::InvalidProducerEpoch { producer, got, current },
        }
    }
}
