//! Which Kafka error code says what the engine said. The one table.

use engine::log::{AppendError, LogError, ReadError};
use kafka_protocol::ResponseError;

/// The answer to a refused append.
#[must_use]
pub fn of_append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::UnknownPartition => ResponseError::NotLeaderOrFollower,
        AppendError::Corrupt(_) => ResponseError::CorruptMessage,
        AppendError::InvalidRecord(_) => ResponseError::InvalidRecord,
        AppendError::UnsupportedFormat(_) => ResponseError::UnsupportedForMessageFormat,
        AppendError::UnsupportedCompression(_) => ResponseError::UnsupportedCompressionType,
        AppendError::TooLarge { .. } => ResponseError::MessageTooLarge,
        AppendError::LargerThanSegment { .. } => ResponseError::RecordListTooLarge,
        AppendError::InvalidTimestamp(_) => ResponseError::InvalidTimestamp,
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        AppendError::Transactional => ResponseError::InvalidTxnState,
        AppendError::Storage(_) => ResponseError::KafkaStorageError,
    }
}

/// The answer to a refused read.
#[must_use]
pub fn of_read(error: &ReadError) -> ResponseError {
    match error {
        ReadError::UnknownPartition => ResponseError::NotLeaderOrFollower,
        ReadError::OutOfRange => ResponseError::OffsetOutOfRange,
        ReadError::Corrupt { .. } => ResponseError::CorruptMessage,
        ReadError::Storage { .. } => ResponseError::KafkaStorageError,
    }
}

/// The answer to a request that the log could not carry out (creation, deletion).
#[must_use]
pub fn of_log(error: &LogError) -> ResponseError {
    match error {
        LogError::JournalTooSmall { .. } => ResponseError::PolicyViolation,
        LogError::Disk { .. }
        | LogError::Journal { .. }
        | LogError::Damaged { .. }
        | LogError::NewerFormat { .. }
        | LogError::NoRoomToKeep { .. }
        | LogError::NoEpochLeft { .. }
        | LogError::MissingSegment { .. }
        | LogError::NoSuperblock { .. }
        | LogError::NoRoomForMarkers { .. }
        | LogError::Missing { .. } => ResponseError::KafkaStorageError,
    }
}
