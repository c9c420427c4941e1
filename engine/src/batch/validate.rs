//! What a produced batch must be, in Kafka's order (`ProduceRequest.validateRecords`,
//! `UnifiedLog.analyzeAndValidateRecords`, `LogValidator`), so that a client gets the error that Kafka would give.

use super::{
    codec::{Codec, DECOMPRESSED_BYTES_MAX},
    header::{BATCH_LENGTH_MIN, HEADER_BYTES, Header, LENGTH_END, MAGIC, NO_TIMESTAMP, crc},
    records::{RecordError, Records, payload},
};

/// What a topic and the broker ask of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `max.message.bytes`: the largest batch in bytes, header included.
    pub max_message_bytes: usize,
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// LogAppendTime: the producer's timestamps don't count.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// Every record needs a key; compressed batches are walked too.
    pub compacted: bool,
    /// Compressed batches are walked too.
    pub strict: bool,
    /// What a batch may decompress to where it is walked, in bytes.
    pub decompressed_bytes_max: usize,
    /// The broker's clock in ms.
    pub now_ms: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            max_message_bytes: 1_048_588,
            segment_bytes: 1 << 30,
            log_append_time: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
            strict: false,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            now_ms: 0,
        }
    }
}

/// A batch was refused. Each variant is one of Kafka's answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// CORRUPT_MESSAGE.
    #[error("corrupt batch: {0}")]
    Corrupt(String),
    /// INVALID_RECORD.
    #[error("invalid record: {0}")]
    InvalidRecord(String),
    /// UNSUPPORTED_FOR_MESSAGE_FORMAT.
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
    /// RECORD_LIST_TOO_LARGE.
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
}

/// A valid batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its header, as it came. Whether it is transactional is the log's to judge.
    pub header: Header,
    /// The maximum timestamp that its header must get: the broker's time with LogAppendTime, the true maximum where the
    /// records were walked, else what the header says.
    pub max_timestamp: i64,
}

fn invalid(what: impl Into<String>) -> BatchError {
    BatchError::InvalidRecord(what.into())
}

/// Checks what a producer sent for one partition: exactly one batch.
///
/// # Errors
/// The first thing that is wrong, in Kafka's order.
pub fn validate(bytes: &[u8], rules: &Rules) -> Result<Checked, BatchError> {
    let header = framed(bytes)?;
    if header.base_offset() != 0 {
        return Err(invalid(format!("the base offset of a produced batch is 0, not {}", header.base_offset())));
    }
    if bytes.len() > rules.max_message_bytes {
        return Err(BatchError::TooLarge { bytes: bytes.len(), max: rules.max_message_bytes });
    }
    let computed = crc(bytes);
    if computed != header.crc() {
        return Err(BatchError::Corrupt(format!("its CRC is {computed}, the header says {}", header.crc())));
    }
    if bytes.len() as u64 > rules.segment_bytes {
        return Err(BatchError::LargerThanSegment { bytes: bytes.len(), max: rules.segment_bytes });
    }
    counted(&header)?;
    let codec = header.codec().map_err(BatchError::UnsupportedCompression)?;
    let walk = codec == Codec::None || rules.compacted || rules.strict;
    let newest = if walk { walked(&header, bytes, rules)? } else { trusted(&header, rules)? };
    Ok(Checked { header, max_timestamp: if rules.log_append_time { rules.now_ms } else { newest } })
}

/// Exactly one whole batch of format 2.
fn framed(bytes: &[u8]) -> Result<Header, BatchError> {
    if bytes.is_empty() {
        return Err(invalid("there is no batch"));
    }
    let length = bytes.get(8..LENGTH_END).and_then(|field| field.try_into().ok()).map(i32::from_be_bytes);
    let magic = bytes.get(super::header::MAGIC_AT).map(|byte| *byte as i8);
    if let Some(magic @ (0 | 1)) = magic {
        return Err(BatchError::UnsupportedFormat(magic));
    }
    if magic.is_some_and(|magic| magic != MAGIC) {
        return Err(BatchError::Corrupt(format!("{} is no message format", magic.unwrap_or_default())));
    }
    match (length, Header::read(bytes)) {
        (Some(length), _) if length < BATCH_LENGTH_MIN => Err(BatchError::Corrupt(format!("{length} is no batch length"))),
        (Some(length), _) if length as u64 + LENGTH_END as u64 > bytes.len() as u64 => {
            Err(BatchError::Corrupt(format!("it is cut short: {} bytes of {}", bytes.len(), length as u64 + LENGTH_END as u64)))
        }
        (_, Some(header)) if header.size() < bytes.len() => Err(invalid("a partition gets exactly one batch in a request")),
        (_, Some(header)) => Ok(header),
        _ => Err(BatchError::Corrupt(format!("{} bytes are less than a batch header's {HEADER_BYTES}", bytes.len()))),
    }
}

fn counted(header: &Header) -> Result<(), BatchError> {
    let (count, last) = (header.record_count(), header.last_offset_delta());
    if last < 0 {
        return Err(invalid(format!("its last offset is {last} from its first")));
    }
    if count <= 0 {
        return Err(invalid(format!("it holds {count} records")));
    }
    if i64::from(last) + 1 != i64::from(count) {
        return Err(invalid(format!("its offsets are for {} records, it holds {count}", i64::from(last) + 1)));
    }
    if header.is_control() {
        return Err(invalid("clients may not write control records"));
    }
    if header.delete_horizon().is_some() {
        return Err(invalid("a delete horizon is the broker's to set"));
    }
    if header.has_producer() && (header.base_sequence() < 0 || header.producer_epoch() < 0) {
        return Err(invalid(format!(
            "sequence {} and epoch {} of producer {} must not be negative",
            header.base_sequence(),
            header.producer_epoch(),
            header.producer_id()
        )));
    }
    Ok(())
}

/// Walks the records; returns their newest timestamp.
fn walked(header: &Header, bytes: &[u8], rules: &Rules) -> Result<i64, BatchError> {
    let payload = payload(header, bytes, rules.decompressed_bytes_max).map_err(|error| match error {
        RecordError::Compression { .. } | RecordError::TooLarge { .. } => BatchError::Corrupt(error.to_string()),
        _ => invalid(error.to_string()),
    })?;
    let mut newest = NO_TIMESTAMP;
    for (index, record) in (0..).zip(Records::new(header, &payload)) {
        let record = record.map_err(|error| invalid(error.to_string()))?;
        if record.offset_delta != index {
            return Err(invalid(format!("record {index} has offset {}: inner offsets are not contiguous", record.offset_delta)));
        }
        if rules.compacted && record.key.is_none() {
            return Err(invalid(format!("record {index} has no key, which a compacted topic needs")));
        }
        let timestamp = header.base_timestamp().wrapping_add(record.timestamp_delta);
        near(timestamp, rules)?;
        newest = newest.max(timestamp);
    }
    Ok(newest)
}

/// The header's word on timestamps, for records that stay compressed.
fn trusted(header: &Header, rules: &Rules) -> Result<i64, BatchError> {
    near(header.base_timestamp(), rules)?;
    near(header.max_timestamp(), rules)?;
    Ok(header.max_timestamp())
}

fn near(timestamp: i64, rules: &Rules) -> Result<(), BatchError> {
    if rules.log_append_time || timestamp == NO_TIMESTAMP {
        return Ok(());
    }
    let age = rules.now_ms.saturating_sub(timestamp);
    if age > rules.timestamp_before_max_ms || timestamp.saturating_sub(rules.now_ms) > rules.timestamp_after_max_ms {
        return Err(BatchError::InvalidTimestamp(timestamp));
    }
    Ok(())
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
